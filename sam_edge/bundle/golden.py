"""golden.npz: images, prompts and the PyTorch reference's masks and scores.

It lets an export be checked on the target device, without PyTorch. Masks are stored as packed bits;
nothing is pickled.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import IntegrityError
from ..system.files import write_atomically
from ..types import Prompts

_SAMPLES = 4096


@dataclass(frozen=True)
class GoldenPrompt:
    """One prompt, in pixels of the original image, and the reference's answer.

    Attributes:
        image_index: index of the image in the golden data.
        point_coords: (K, 2) or None.
        point_labels: (K,) or None.
        box: (4,) x0, y0, x1, y1 or None.
        mask_input: (1, h, w) logits or None.
        masks: (M, H, W) bool: the logits above `threshold`.
        scores: (M,) predicted IoU.
        threshold: the model's mask threshold; or, for a model whose masks are all empty or full (an
            untrained one), the median of the picked mask's logits, so that masks can be compared.
    """

    image_index: int
    point_coords: NDArray[np.float32] | None
    point_labels: NDArray[np.float32] | None
    box: NDArray[np.float32] | None
    mask_input: NDArray[np.float32] | None
    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    threshold: float = 0.0

    @property
    def prompts(self) -> Prompts:
        """The prompt as `Prompts`."""
        return Prompts(self.point_coords, self.point_labels, self.box, self.mask_input)


@dataclass(frozen=True)
class Golden:
    """Images (H, W, 3) uint8 RGB, samples of each one's reference embeddings by name, and the prompts."""

    images: list[NDArray[np.uint8]]
    embeddings: list[dict[str, NDArray[np.float32]]]
    prompts: list[GoldenPrompt]


def sample_embedding(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return at most 4096 values of an embedding, evenly strided: enough to measure its error."""
    flat = np.asarray(embedding, np.float32).ravel()
    return flat[:: -(-flat.size // _SAMPLES)]


def write_golden(path: Path, golden: Golden) -> None:
    """Write `golden` as a compressed npz."""
    arrays: dict[str, Any] = {"prompt_image": np.array([p.image_index for p in golden.prompts])}
    for i, (image, embeddings) in enumerate(zip(golden.images, golden.embeddings, strict=True)):
        arrays[f"image_{i}"] = image
        arrays |= {f"embedding_{i}_{name}": sample for name, sample in embeddings.items()}
    for j, prompt in enumerate(golden.prompts):
        arrays[f"masks_{j}"] = np.packbits(prompt.masks)
        arrays[f"scores_{j}"] = prompt.scores
        arrays[f"threshold_{j}"] = np.array(prompt.threshold)
        for name in ("point_coords", "point_labels", "box", "mask_input"):
            value = getattr(prompt, name)
            if value is not None:
                arrays[f"{name}_{j}"] = value
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def read_golden(path: Path) -> Golden:
    """Read what `write_golden` wrote.

    Raises:
        IntegrityError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        count = sum(name.startswith("image_") for name in arrays)
        images = [arrays[f"image_{i}"] for i in range(count)]
        prompts = []
        for j, image_index in enumerate(arrays["prompt_image"].tolist()):
            shape = (len(arrays[f"scores_{j}"]), *images[image_index].shape[:2])
            bits = np.unpackbits(arrays[f"masks_{j}"], count=int(np.prod(shape)))
            prompts.append(
                GoldenPrompt(
                    image_index=image_index,
                    point_coords=arrays.get(f"point_coords_{j}"),
                    point_labels=arrays.get(f"point_labels_{j}"),
                    box=arrays.get(f"box_{j}"),
                    mask_input=arrays.get(f"mask_input_{j}"),
                    masks=bits.reshape(shape).astype(bool),
                    scores=arrays[f"scores_{j}"],
                    threshold=float(arrays[f"threshold_{j}"]),
                )
            )
        embeddings = [
            {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            for start in (f"embedding_{i}_" for i in range(count))
        ]
        if not all(embeddings):
            raise ValueError("an image has no embedding")
        return Golden(images, embeddings, prompts)
    except Exception as error:  # damaged zip and npy data raise nearly anything
        raise IntegrityError(f"{path} is damaged ({error}); export the bundle again") from error
