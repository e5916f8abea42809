"""The values that the runtime takes and returns, and the types of its arguments."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NewType, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from .errors import IntegrityError, PromptError
from .imaging.regions import clean
from .system.files import write_atomically

Arrays = dict[str, NDArray[Any]]

# Arrays of numbers, or nested sequences of numbers. numpy.typing.ArrayLike would let strings pass.
Scalar: TypeAlias = "float | np.integer[Any] | np.floating[Any]"
NumericArray: TypeAlias = "NDArray[np.number[Any] | np.bool_]"
Vector: TypeAlias = "NumericArray | Sequence[Scalar]"
Matrix: TypeAlias = "NumericArray | Sequence[Vector]"
Tensor3: TypeAlias = "NumericArray | Sequence[Matrix]"
Tensor4: TypeAlias = "NumericArray | Sequence[Tensor3]"

# (K, 2) or (N, K, 2), or N arrays (K_n, 2): x, y in pixels.
PointCoords: TypeAlias = "Matrix | Tensor3"
# (K,) or (N, K), or N arrays (K_n,).
PointLabels: TypeAlias = "Vector | Matrix"
# (4,) or (N, 4): x0, y0, x1, y1 in pixels.
Boxes: TypeAlias = "Vector | Matrix"
# (1, h, w) or (N, 1, h, w) low-resolution logits.
MaskInput: TypeAlias = "Tensor3 | Tensor4"
# (T, dim) or (N, T, dim).
TextEmbeddings: TypeAlias = "Matrix | Tensor3"

# The name of one device of a backend, as `sam-edge devices` lists it, such as DeviceName("GPU.0").
DeviceName = NewType("DeviceName", str)
Device: TypeAlias = "Literal['auto', 'cpu', 'gpu', 'npu'] | DeviceName"
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


@dataclass(frozen=True)
class ImageEmbedding:
    """An encoded image: a value that can be kept, saved, and shared by threads.

        embedding = sam.encode(image)
        embedding.save("photo.npz")

    Attributes:
        image_embeddings: (1, C, h, w) float32.
        original_size: (H, W) of the image in pixels.
        resized_size: (H, W) of the image inside the encoder's input, in pixels.
        model: the id of the model that made it: the checkpoint's SHA-256, and the input's size where that is
            not the model's own.
        extra_embeddings: other outputs of the encoder that the decoder takes, by name, (1, C, h', w') each.
    """

    image_embeddings: NDArray[np.float32]
    original_size: tuple[int, int]
    resized_size: tuple[int, int]
    model: str
    extra_embeddings: Arrays = field(default_factory=dict)

    @property
    def arrays(self) -> Arrays:
        """Every embedding by name."""
        return {"image_embeddings": self.image_embeddings, **self.extra_embeddings}

    def save(self, path: str | Path) -> None:
        """Write as .npz, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        buffer = io.BytesIO()
        sizes = np.array([self.original_size, self.resized_size])
        arrays: dict[str, Any] = {**self.arrays, "sizes": sizes, "model": np.array(self.model)}
        np.savez(buffer, **arrays)
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> ImageEmbedding:
        """Read what `save` wrote.

        Raises:
            IntegrityError: the file is missing, damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            original, resized = arrays.pop("sizes").tolist()
            model, image_embeddings = str(arrays.pop("model")), arrays.pop("image_embeddings")
            return cls(image_embeddings, tuple(original), tuple(resized), model, arrays)
        except Exception as error:  # damaged zip and npy data raise nearly anything
            raise IntegrityError(f"{path} is not a saved embedding ({error})") from error


@dataclass(frozen=True)
class Masks:
    """Masks for N prompts, M for each.

        found = sam.predict(embedding, boxes=[[10, 20, 80, 60]])
        mask = found.best()[0]

    Attributes:
        masks: (N, M, H, W) bool at the original image's size, or float32 logits if asked for.
        scores: (N, M) float32, the model's own estimate of each mask's IoU; or, where the manifest says
            so, the mask's stability when the threshold is moved.
        low_res_logits: (N, M, h, w) float32; one of them can be the `mask_input` of a next call.
    """

    masks: NDArray[Any]
    scores: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]

    def best(self) -> NDArray[Any]:
        """Return the best-scored mask of each prompt, (N, H, W)."""
        return self.masks[np.arange(len(self.masks)), self.scores.argmax(1)]

    def only_best(self) -> Masks:
        """Return the best-scored mask of each prompt with its score and logits: M is 1."""
        best = np.arange(len(self.scores)), self.scores.argmax(1)
        return Masks(
            self.masks[best][:, None], self.scores[best][:, None], self.low_res_logits[best][:, None]
        )

    def cleaned(self, min_area: float) -> Masks:
        """Fill holes and remove islands of fewer than `min_area` pixels; see `regions.clean`.

        Raises:
            PromptError: the masks are logits, or `min_area` is negative.
        """
        if self.masks.dtype != bool:
            raise PromptError("min_region_area cleans masks, not logits; give one of it and return_logits")
        return replace(self, masks=clean(self.masks, min_area))


@dataclass(frozen=True)
class Prompts:
    """N prompts as a caller gives them, in pixels of the original image.

    Attributes:
        point_coords: (K, 2) for one prompt or (N, K, 2) for N: x, y; or a list of N such arrays (K_n, 2);
            None for no points.
        point_labels: (K,) or (N, K), or a list like that of the points: 1 foreground, 0 background, -1
            padding; None: all foreground.
        boxes: (4,) or (N, 4): x0, y0, x1, y1; None for no boxes. A prompt may have points and a box.
        mask_input: (1, h, w) or (N, 1, h, w) low-resolution logits; None for no masks.
        inside: whether points and boxes must be inside the image, and boxes not empty.
        text_embeddings: (T, dim) or (N, T, dim): tokens of a text, with the `dim` of the image embeddings;
            for bundles exported with `--text-embeddings`.
    """

    point_coords: PointCoords | None = None
    point_labels: PointLabels | None = None
    boxes: Boxes | None = None
    mask_input: MaskInput | None = None
    inside: bool = True
    text_embeddings: TextEmbeddings | None = None


class MaskRecord(TypedDict):
    """One mask of `SamAutomaticMaskGenerator.generate`.

    Keys:
        segmentation: (H, W) bool, or a run-length encoding `{"size": [H, W], "counts": ...}`, as the
            generator's `output_mode` says.
        area: of the mask, in pixels.
        bbox: [x, y, w, h] in pixels, as published: from the first to the last pixel of the mask.
        predicted_iou: the model's own estimate of the mask's IoU.
        point_coords: [[x, y]] of the prompt, in pixels.
        stability_score: IoU of the mask at a raised and at a lowered threshold.
        crop_box: [x, y, w, h] in pixels of the crop that the mask was found in.
    """

    segmentation: Any
    area: int
    bbox: list[int]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[int]


@dataclass(frozen=True)
class Choice:
    """Why a backend's device, or a variant on it, was chosen or not.

    Attributes:
        backend: the backend's name.
        device: cpu, gpu, npu, or "-" where the backend has none.
        name: the device's name in that backend.
        variant: the variant's id; None where the backend or device was not chosen, whatever the variant.
        chosen: whether this is what was loaded.
        reason: "chosen", or why not.
    """

    backend: str
    device: str
    name: str
    variant: str | None
    chosen: bool
    reason: str

    def __str__(self) -> str:
        """Return one line."""
        parts = (self.backend, self.device, self.name, self.variant)
        return f"{' '.join(part for part in parts if part and part != '-')}: {self.reason}"
