"""`encode` an image once, `predict` masks for as many prompts as you like."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Arrays, Session
from .bundle import Bundle
from .errors import IntegrityError, PromptError
from .files import write_atomically
from .postprocess import upscale
from .preprocess import letterbox, preprocess, resized_size
from .prompts import encode_prompts

_PER_PROMPT = ("point_coords", "point_labels", "mask_input", "has_mask_input")


@dataclass(frozen=True)
class ImageEmbedding:
    """An encoded image: a value that can be kept, saved, and shared by threads.

    Attributes:
        image_embeddings: (1, C, h, w) float32.
        original_size: (H, W) of the image in pixels.
        resized_size: (H, W) of the image inside the encoder's input.
        model: sha256 of the checkpoint it was made with.
        extra_embeddings: what else the model's encoder makes for its decoder, by name, (1, C, h', w') each.
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
        """Write as .npz, whole or not at all."""
        buffer = io.BytesIO()
        sizes = np.array([self.original_size, self.resized_size])
        arrays: dict[str, Any] = {**self.arrays, "sizes": sizes, "model": np.array(self.model)}
        np.savez(buffer, **arrays)
        write_atomically(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> ImageEmbedding:
        """Read what `save` wrote; raises `IntegrityError` if it is something else."""
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
        """(N, H, W): the best-scored mask of each prompt."""
        return self.masks[np.arange(len(self.masks)), self.scores.argmax(1)]


@dataclass(frozen=True)
class Choice:
    """Why a backend's device, or a variant on it, was taken or was not.

    Attributes:
        backend: the backend's name.
        device: cpu, gpu, npu, or "-" where the backend has none.
        name: the device's name in that backend.
        variant: the variant's id; None where the backend or device was not taken, whatever the variant.
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
        """One line."""
        parts = (self.backend, self.device, self.name, self.variant)
        return f"{' '.join(part for part in parts if part and part != '-')}: {self.reason}"


class Sam:
    """One variant of a bundle, loaded on one backend and device. Safe to call from several threads."""

    def __init__(
        self,
        bundle: Bundle,
        variant: dict[str, Any],
        backend: str,
        encoder: Session,
        decoder: Session,
        explain: Callable[[], list[Choice]] = list,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.variant = variant
        self.backend = backend
        self.device = encoder.device
        self._encoder = encoder
        self._decoder = decoder
        self._explain = explain

    @property
    def placement(self) -> dict[str, dict[str, int] | None]:
        """For "encoder" and "decoder", how many nodes each part of the runtime took; None if it does not say.

        Of ONNX Runtime, after its basic rewrites: {"CUDAExecutionProvider": 301, "CPUExecutionProvider": 4}.
        """
        return {"encoder": self._encoder.placement, "decoder": self._decoder.placement}

    @cached_property
    def choices(self) -> list[Choice]:
        """Why each backend, device and variant was taken or not: what `load(..., explain=True)` prints.

        Found out when first asked for: it imports every backend that is installed.
        """
        return self._explain()

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """(H, W, 3) uint8 RGB -> its embedding.

        Raises:
            ImageError: not such an image.
        """
        if "image" in _names(self.variant["encoder"]):
            boxed, resized = letterbox(image, self.manifest.input)
            outputs = self._encoder.run({"image": boxed, "resized_size": np.array(resized, np.float32)})
        else:
            images, resized = preprocess(image, self.manifest.input)
            outputs = self._encoder.run({"images": images})
        original = image.shape[0], image.shape[1]
        main = outputs.pop("image_embeddings")
        return ImageEmbedding(main, original, resized, self.manifest.model_id, outputs)

    def predict(
        self,
        embedding: ImageEmbedding,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Masks:
        """Masks for N prompts in one decoder call.

        Args:
            embedding: from `encode`.
            point_coords: (K, 2) or (N, K, 2) x, y in pixels of the original image.
            point_labels: (K,) or (N, K): 1 foreground, 0 background, -1 padding.
            boxes: (4,) or (N, 4) x0, y0, x1, y1 in pixels of the original image.
            mask_input: (1, h, w) or (N, 1, h, w) low-resolution logits of an earlier prediction.
            multimask_output: three masks for an ambiguous prompt, or one; the best-scored of the three where
                the model has no other.
            return_logits: keep the logits at the original size instead of a threshold.

        Raises:
            PromptError: a prompt that makes no sense.
        """
        first = self.manifest.first_multimask
        kept = slice(first, None) if multimask_output else slice(0, first)
        return self._predict(embedding, point_coords, point_labels, boxes, mask_input, kept, return_logits)

    def predict_all(
        self,
        embedding: ImageEmbedding,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        return_logits: bool = False,
    ) -> Masks:
        """All masks of the decoder: the single-mask output, if it has one, then the three of `predict`."""
        return self._predict(
            embedding, point_coords, point_labels, boxes, mask_input, slice(None), return_logits
        )

    def _predict(
        self,
        embedding: ImageEmbedding,
        point_coords: Any,
        point_labels: Any,
        boxes: Any,
        mask_input: Any,
        kept: slice,
        return_logits: bool,
    ) -> Masks:
        rules = self.manifest
        if embedding.model != rules.model_id:
            raise PromptError(
                "the embedding was made with another model; encode the image again with this one"
            )
        given = None if mask_input is None else self._mask_input(mask_input)
        resized = resized_size(embedding.original_size, rules.square)
        coords, labels = encode_prompts(
            point_coords,
            point_labels,
            boxes,
            embedding.original_size,
            resized,
            rules.prompt,
            0 if given is None else len(given),
        )
        n = len(coords)
        has_mask = np.full(n, given is not None, np.float32)
        if given is None:
            given = np.zeros((n, 1, *rules.mask_size), np.float32)
        outputs = self._decode(
            {
                **embedding.arrays,
                "point_coords": coords,
                "point_labels": labels,
                "mask_input": given,
                "has_mask_input": has_mask,
            }
        )
        low_res, scores = outputs["low_res_masks"], outputs["iou_predictions"]
        if kept == slice(0, 0):
            best = np.arange(n), scores.argmax(1)
            low_res, scores, kept = low_res[best][:, None], scores[best][:, None], slice(None)
        low_res, scores = low_res[:, kept], scores[:, kept]
        whole = rules.square.size
        if rules.input.resize == "stretch":
            # There is no padding to cut off, so that published predictors resize masks once.
            whole = resized = rules.mask_size
        logits = upscale(low_res, whole, resized, embedding.original_size)
        masks = logits if return_logits else logits > rules.mask_threshold
        if rules.low_res_limit is not None:
            low_res = low_res.clip(-rules.low_res_limit, rules.low_res_limit)
        return Masks(masks, scores, low_res)

    def _decode(self, inputs: Arrays) -> Arrays:
        """All prompts in one call, or one by one where the graph was exported for one prompt."""
        batch = next(t["shape"][0] for t in self.variant["decoder"]["inputs"] if t["name"] == "point_coords")
        if not isinstance(batch, int):
            return self._decoder.run(inputs)
        found = [
            self._decoder.run({k: v[i : i + 1] if k in _PER_PROMPT else v for k, v in inputs.items()})
            for i in range(len(inputs["point_coords"]))
        ]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def _mask_input(self, mask_input: Any) -> NDArray[np.float32]:
        try:
            array = np.asarray(mask_input, np.float32)
        except (TypeError, ValueError) as error:
            raise PromptError(f"mask_input should be numbers of shape (1, h, w): {error}") from error
        array = array[None] if array.ndim == 3 else array
        h, w = self.manifest.mask_size
        if array.ndim != 4 or array.shape[1:] != (1, h, w) or not np.isfinite(array).all():
            raise PromptError(
                f"mask_input has shape {array.shape}; expected finite low-resolution logits "
                f"(1, {h}, {w}) or (N, 1, {h}, {w})"
            )
        return array

    def close(self) -> None:
        """Free both sessions."""
        self._encoder.close()
        self._decoder.close()

    def __enter__(self) -> Sam:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _names(graph: dict[str, Any]) -> set[str]:
    return {tensor["name"] for tensor in graph["inputs"]}
