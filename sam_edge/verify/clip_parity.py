"""Parity of a bundle's CLIP: are its features those of the PyTorch reference?

Golden data: the texts as token numbers with their features, and the features of the bundle's golden images.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle.variant import ClipParityReport
from ..errors import IntegrityError
from ..system.files import write_atomically
from ..tasks.clip import Clip, normalise
from .parity import OVERFLOWN

# The least cosine similarity that each feature must have with the reference's.
GATES = {"fp32": 0.999, "fp16": 0.995, "bf16": 0.995, "int8": 0.98}


@dataclass(frozen=True)
class ClipGolden:
    """What the reference makes of some texts, and of the images of the bundle's golden data.

    Attributes:
        input_ids: (T, context_length) int32.
        text_features: (T, embed_dim) float32, of any length.
        image_features: (N, embed_dim) float32, of any length, in the order of the images.
    """

    input_ids: NDArray[np.int32]
    text_features: NDArray[np.float32]
    image_features: NDArray[np.float32]


def write_clip_golden(path: Path, golden: ClipGolden) -> None:
    """Write `golden` as a compressed npz."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        input_ids=golden.input_ids,
        text_features=golden.text_features,
        image_features=golden.image_features,
    )
    write_atomically(path, buffer.getvalue())


def read_clip_golden(path: Path) -> ClipGolden:
    """Read what `write_clip_golden` wrote; raises `IntegrityError` if it is something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            golden = ClipGolden(file["input_ids"], file["text_features"], file["image_features"])
        if not 0 < len(golden.input_ids) == len(golden.text_features) or not len(golden.image_features):
            raise ValueError("it is for no texts or images")
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
    """Encode the golden texts and images, and compare; the result is the manifest's `parity`.

    Args:
        clip: the loaded variant.
        golden: the reference's answers.
        images: the bundle's golden images, (H, W, 3) uint8 RGB each.
        precision: whose gate applies, a key of `GATES`.
        gate: replaces it.

    Raises:
        IntegrityError: the golden data are for other images, or another model's.
    """
    sizes = golden.text_features.shape[1:], golden.image_features.shape
    width = clip.rules.embed_dim
    if sizes != ((width,), (len(images), width)) or golden.input_ids.shape[1:] != (
        clip.rules.context_length,
    ):
        raise IntegrityError("CLIP's golden data do not fit the bundle; export it again")
    texts, pictures = clip.encode_tokens(golden.input_ids), clip.encode_images(images)
    right_texts, right_pictures = normalise(golden.text_features), normalise(golden.image_features)
    cosines = [_least(texts, right_texts), _least(pictures, right_pictures)]
    differences = np.abs(pictures @ texts.T - right_pictures @ right_texts.T)
    worst = float(differences.max()) if np.isfinite(differences).all() else OVERFLOWN
    gate = GATES[precision] if gate is None else gate
    return ClipParityReport(
        min_text_cosine=cosines[0],
        min_image_cosine=cosines[1],
        max_score_difference=worst,
        num_texts=len(texts),
        num_images=len(pictures),
        gate=gate,
        passed=min(cosines) >= gate,
    )


def _least(ours: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """The least cosine similarity of rows; -1 where there are infinities or NaN."""
    cosines = (ours.astype(np.float64) * right).sum(1)
    return float(cosines.min()) if np.isfinite(cosines).all() else -1.0
