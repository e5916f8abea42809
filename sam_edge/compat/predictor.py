"""`SamPredictor` as in `segment_anything`: set an image once, then predict masks for one prompt at a time."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, PromptError
from ..runtime.sam import Sam
from ..tasks.segmenter import MaskOutput
from ..types import Boxes, ImageEmbedding, MaskInput, PointCoords, PointLabels, Prompts
from .transforms import ResizeLongestSide

Floats = NDArray[np.float32]


class SamPredictor:
    """The published predictor's interface over a loaded bundle.

        predictor = SamPredictor(sam_edge.load("bundle"))
        predictor.set_image(image)
        masks, scores, logits = predictor.predict(np.array([[320, 240]]), np.array([1]))

    Prompts may lie outside the image, as with the published predictor; `Sam.predict` refuses them.

    Args:
        sam_model: from `sam_edge.load` or `sam_model_registry`.

    Attributes:
        original_size: (H, W) of the image that was set, in pixels; None without an image.
        input_size: (H, W) of the image inside the encoder's input; None without an image.
    """

    _embedding: ImageEmbedding | None
    _image: NDArray[np.uint8] | None
    original_size: tuple[int, int] | None
    input_size: tuple[int, int] | None
    is_image_set: bool

    def __init__(self, sam_model: Sam) -> None:
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.manifest.coordinate_space)
        self.reset_image()

    @property
    def device(self) -> str:
        """Where the arrays of `predict_torch` are: always "cpu", whatever runs the model."""
        return "cpu"

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image for the predictions that follow.

        Args:
            image: (H, W, 3) uint8.
            image_format: its colour order, "RGB" or "BGR".

        Raises:
            ImageError: not such an image.
        """
        if image_format not in ("RGB", "BGR"):
            raise ImageError(f"unknown image_format {image_format!r}; expected RGB or BGR")
        rgb = np.ascontiguousarray(image[..., ::-1]) if image_format == "BGR" else image
        self.set_embedding(self.model.encode(rgb))
        self._image = rgb

    def set_embedding(self, embedding: ImageEmbedding) -> None:
        """Predict on an image that was encoded before."""
        self._embedding, self._image = embedding, None
        self.original_size, self.input_size = embedding.original_size, embedding.resized_size
        self.is_image_set = True

    def set_torch_image(self, transformed_image: Any, original_image_size: tuple[int, int]) -> None:
        """Encode an image that `transform` has resized already.

        Args:
            transformed_image: (1, 3, h, w) RGB from 0 to 255, an array or a torch tensor.
            original_image_size: (H, W) in pixels before it was resized.

        Raises:
            ImageError: of another shape than `transform` makes of `original_image_size`.
        """
        height, width = (int(side) for side in original_image_size)
        self.set_embedding(self.model._encode_resized(_array(transformed_image), (height, width)))

    def predict(
        self,
        point_coords: PointCoords | None = None,
        point_labels: PointLabels | None = None,
        box: Boxes | None = None,
        mask_input: MaskInput | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        *,
        refine: bool = False,
        min_region_area: float = 0,
    ) -> tuple[NDArray[Any], Floats, Floats]:
        """Predict masks for one prompt on the image that was set.

        Args:
            point_coords: (K, 2) x, y in pixels.
            point_labels: (K,) 1 foreground, 0 background.
            box: (4,) x0, y0, x1, y1 in pixels.
            mask_input: (1, h, w) low-resolution logits of an earlier prediction.
            multimask_output: three masks, or one.
            return_logits: return logits instead of masks.
            refine: return the best-scored mask only, C = 1, refined by a second pass on the crop around it,
                for one more encoding; see `sam_edge.tasks.refine`.
            min_region_area: holes and islands of masks with fewer pixels are filled and removed.

        Returns:
            masks (C, H, W) bool, or float32 logits; scores (C,), the predicted IoU of each; low-resolution
            logits (C, h, w).

        Raises:
            PromptError: no image was set, or an invalid prompt; or `refine` is asked for and only an
                embedding was set.
        """
        if refine and self._embedding is not None and self._image is None:
            raise PromptError(
                "refine=True needs the image, not its embedding alone; give it to .set_image(...)"
            )
        if point_coords is not None and point_labels is None:
            raise PromptError("point_coords were given without point_labels; give both")
        prompts = Prompts(point_coords, point_labels, box, mask_input, inside=False)
        found = self.model._segment(self._current(), prompts, _output(multimask_output), return_logits)
        if refine and self._image is not None:
            found = self.model.refine(self._image, found.only_best(), point_coords, point_labels, box)
        if min_region_area:
            found = found.cleaned(min_region_area)
        return found.masks[0], found.scores[0], found.low_res_logits[0]

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Predict masks for N prompts whose coordinates `transform` has brought to the model's input.

        Args:
            point_coords: (N, K, 2) x, y, or None; an array or a torch tensor, as all others.
            point_labels: (N, K) 1 foreground, 0 background, or None.
            boxes: (N, 4) x0, y0, x1, y1, or None.
            mask_input: (N, 1, h, w) low-resolution logits, or None.
            multimask_output: three masks for each prompt, or one.
            return_logits: return logits instead of masks.

        Returns:
            masks (N, C, H, W), scores (N, C) and low-resolution logits (N, C, h, w): torch tensors where the
            prompts are.

        Raises:
            PromptError: no image was set, or an invalid prompt.
        """
        embedding = self._current()
        height, width = self.transform.resized(embedding.original_size)
        scale = np.array([embedding.original_size[1] / width, embedding.original_size[0] / height])
        points = None if point_coords is None else _array(point_coords) * scale
        corners = None if boxes is None else _array(boxes).reshape(-1, 4) * np.tile(scale, 2)
        labels = None if point_labels is None else _array(point_labels)
        mask = None if mask_input is None else _array(mask_input)
        prompts = Prompts(points, labels, corners, mask, inside=False)
        found = self.model._segment(embedding, prompts, _output(multimask_output), return_logits)
        like = next((x for x in (point_coords, boxes, mask_input) if x is not None), None)
        return _like(like, found.masks), _like(like, found.scores), _like(like, found.low_res_logits)

    def get_image_embedding(self) -> Floats:
        """Return the embedding of the image that was set, (1, C, h, w) float32.

        Raises:
            PromptError: no image was set.
        """
        return self._current().image_embeddings

    @property
    def features(self) -> Floats | None:
        """The embedding of the image that was set, (1, C, h, w) float32; None without an image."""
        return None if self._embedding is None else self._embedding.image_embeddings

    def reset_image(self) -> None:
        """Drop the image."""
        self._embedding = self._image = None
        self.original_size = self.input_size = None
        self.is_image_set = False

    def _current(self) -> ImageEmbedding:
        if self._embedding is None:
            raise PromptError("an image must be set with .set_image(...) before mask prediction")
        return self._embedding


def predict_batch(
    sam: Sam, batched_input: list[dict[str, Any]], multimask_output: bool
) -> list[dict[str, Any]]:
    """Segment images that are resized already, each with its own prompts, as the published `Sam.forward`.

    Args:
        sam: the model.
        batched_input: a record for each image, with `image` (3, h, w) RGB from 0 to 255, `original_size`
            (H, W), and any of `point_coords` (N, K, 2), `point_labels` (N, K), `boxes` (N, 4) and
            `mask_inputs` (N, 1, h, w), in pixels of the resized image.
        multimask_output: three masks for each prompt, or one.

    Returns:
        a record for each image: `masks` (N, C, H, W), `iou_predictions` (N, C) and `low_res_logits`
        (N, C, h, w).
    """
    predictor = SamPredictor(sam)
    answers = []
    for record in batched_input:
        predictor.set_torch_image(_array(record["image"])[None], record["original_size"])
        found = predictor.predict_torch(
            record.get("point_coords"),
            record.get("point_labels"),
            record.get("boxes"),
            record.get("mask_inputs"),
            multimask_output,
        )
        answers.append(dict(zip(("masks", "iou_predictions", "low_res_logits"), found, strict=True)))
    return answers


def _output(multimask_output: bool) -> MaskOutput:
    return "multimask" if multimask_output else "single"


def _array(value: Any) -> NDArray[Any]:
    """Return an array, or a torch tensor as one."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _like(given: Any, array: NDArray[Any]) -> Any:
    """Return `array`, as a torch tensor if `given` is one."""
    torch = sys.modules.get("torch")
    return torch.from_numpy(array) if torch is not None and isinstance(given, torch.Tensor) else array
