"""CLIP parity: compares the text and image features of a bundle's CLIP with the PyTorch reference's.

The golden data are texts as token ids with their features, and the features of the bundle's golden images.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..axes import PRECISIONS
from ..bundle.variant import ClipParityReport
from ..errors import IntegrityError
from ..system.files import write_atomically
from ..tasks.clip import Clip, normalise
from .parity import NON_FINITE


@dataclass(frozen=True)
class ClipGolden:
    """The reference's features of some texts and of the bundle's golden images.

    Attributes:
        input_ids: (T, context_length) int32 token ids.
        text_features: (T, embed_dim) float32, not normalised.
        image_features: (N, embed_dim) float32, not normalised, in the order of the images.
    """

    input_ids: NDArray[np.int32]
    text_features: NDArray[np.float32]
    image_features: NDArray[np.float32]


def write_clip_golden(path: Path, golden: ClipGolden) -> None:
    """Write `golden` as a compressed npz; raises `OutputError` if the file cannot be written."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        input_ids=golden.input_ids,
        text_features=golden.text_features,
        image_features=golden.image_features,
    )
    write_atomically(path, buffer.getvalue())


def read_clip_golden(path: Path) -> ClipGolden:
    """Read a file of `write_clip_golden`; raises `IntegrityError` if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            golden = ClipGolden(file["input_ids"], file["text_features"], file["image_features"])
        if not 0 < len(golden.input_ids) == len(golden.text_features) or not len(golden.image_features):
            raise ValueError("it has no texts or no images")
        return golden
    except Exception as error:  # damaged zip and npy data raise nearly anything
        raise IntegrityError(f"{path} is damaged ({error}); export the bundle again") from error


def run_clip_parity(
    clip: Clip,
    golden: ClipGolden,
    images: Sequence[NDArray[np.uint8]],
    precision: str,
    gate: float | None = None,
) -> ClipParityReport:
    """Encode the golden texts and images and compare with the reference.

    Args:
        clip: the loaded variant.
        golden: the reference's features.
        images: the bundle's golden images, (H, W, 3) uint8 RGB each.
        precision: whose gate applies, of `sam_edge.axes.PRECISIONS`.
        gate: replaces the gate of that precision.

    Raises:
        IntegrityError: the golden data belong to other images or another model.
    """
    sizes = golden.text_features.shape[1:], golden.image_features.shape
    width = clip.rules.embed_dim
    if sizes != ((width,), (len(images), width)) or golden.input_ids.shape[1:] != (
        clip.rules.context_length,
    ):
        raise IntegrityError("CLIP's golden data do not fit the bundle; export it again")
    text, image = clip.encode_tokens(golden.input_ids), clip.encode_images(images)
    expected_text, expected_image = normalise(golden.text_features), normalise(golden.image_features)
    cosines = [_min_cosine(text, expected_text), _min_cosine(image, expected_image)]
    differences = np.abs(image @ text.T - expected_image @ expected_text.T)
    max_difference = float(differences.max()) if np.isfinite(differences).all() else NON_FINITE
    gate = PRECISIONS.get(precision).clip_gate if gate is None else gate
    return ClipParityReport(
        min_text_cosine=cosines[0],
        min_image_cosine=cosines[1],
        max_score_difference=max_difference,
        num_texts=len(text),
        num_images=len(image),
        gate=gate,
        passed=min(cosines) >= gate,
    )


def _min_cosine(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the minimum cosine similarity of corresponding rows of unit length; -1 if any is not finite."""
    cosines = (actual.astype(np.float64) * expected).sum(1)
    return float(cosines.min()) if np.isfinite(cosines).all() else -1.0
