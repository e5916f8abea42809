"""Golden data: photographs, prompts, and the reference model's embeddings, masks and scores for them.

The reference has its own preprocessing (Pillow) and upscaling (PyTorch), so that parity covers the whole path
from image to mask and not only the graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sam_edge.bundle.golden import Golden, GoldenPrompt, sample_embedding
from sam_edge.errors import ParityError
from sam_edge.models.catalogue import Model
from sam_edge.models.photos import PHOTOS, read_photo

from ..architectures.model import SamModel

GOLDEN_LONG_SIDE = 448
# Share of the image; agreement on smaller or larger reference masks says little.
MIN_AREA, MAX_AREA = 0.002, 0.95


@dataclass(frozen=True)
class ReferenceImage:
    """An image, (H, W, 3) uint8 RGB, and its embeddings."""

    image: NDArray[np.uint8]
    embeddings: tuple[Tensor, ...]


class Reference:
    """The reference model with the published predictor's preprocessing and postprocessing.

    >>> reference = Reference(sam, CATALOGUE["mobile_sam"])
    >>> low_res, logits, scores = reference.decode(reference.encode(image), coords, labels)
    """

    def __init__(self, sam: SamModel, model: Model) -> None:
        self.sam, self.model = sam, model

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> ReferenceImage:
        """Embed an image, (H, W, 3) uint8 RGB."""
        side, rules = self.model.image_size, self.model.preprocess
        resized = self._resized_shape(image, side)
        if rules.antialias:
            pil_image = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR)
            x = torch.from_numpy(np.array(pil_image, np.float32)).permute(2, 0, 1)
        else:
            x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
            x = F.interpolate(x[None], resized, mode="bilinear", align_corners=False)[0]
        mean, std = torch.tensor(rules.mean), torch.tensor(rules.std)
        x = (x - mean[:, None, None]) / std[:, None, None]
        x = F.pad(x, (0, side - resized[1], 0, side - resized[0]), value=rules.pad_value)
        return ReferenceImage(image, self.sam.encode(x[None]))

    def _resized_shape(self, image: NDArray[np.uint8], side: int) -> tuple[int, int]:
        """Height and width of the image resized to fit a square of `side` pixels."""
        if self.model.preprocess.resize != "longest_side":
            return side, side
        height, width = image.shape[:2]
        scale = side / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    @torch.inference_mode()
    def decode(
        self,
        encoded: ReferenceImage,
        coords: NDArray[np.float32],
        labels: NDArray[np.float32],
        mask_input: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Decode one prompt.

        Args:
            encoded: the image.
            coords: (K, 2) x, y in pixels of the original image.
            labels: (K,): 1 foreground, 0 background, 2 and 3 box corners.
            mask_input: (1, h, w) low-resolution logits of an earlier mask.

        Returns:
            Low-resolution logits (M, h, w), logits at the image's size (M, H, W) and scores (M,), float32.
        """
        height, width = encoded.image.shape[:2]
        rules, side = self.model.prompt, self.model.coordinate_size
        resized = self._resized_shape(encoded.image, side)
        scale = np.array([resized[1] / width, resized[0] / height], np.float32)
        points, codes = coords * scale, labels
        padding = int(2 not in labels or rules.padding_point == "always")
        if rules.num_points is not None:
            padding = rules.num_points - len(labels)
        points = np.concatenate([points, np.zeros((padding, 2), np.float32)])
        codes = np.concatenate([codes, np.full(padding, -1, np.float32)])
        low_side = 4 * self.model.embedding_side
        mask = torch.zeros(1, 1, low_side, low_side)
        if mask_input is not None:
            mask = torch.from_numpy(mask_input)[None]
        low, scores = self.sam.decode(
            encoded.embeddings[0],
            torch.from_numpy(points)[None].float(),
            torch.from_numpy(codes)[None].float(),
            mask,
            torch.tensor([float(mask_input is not None)]),
            *encoded.embeddings[1:],
        )
        full = low
        if self.model.preprocess.resize == "longest_side":
            full = F.interpolate(low, (side, side), mode="bilinear", align_corners=False)
            full = full[..., : resized[0], : resized[1]]
        full = F.interpolate(full, (height, width), mode="bilinear", align_corners=False)
        if self.model.low_res_limit is not None:
            low = low.clamp(-self.model.low_res_limit, self.model.low_res_limit)
        return low[0].numpy(), full[0].numpy(), scores[0].numpy()


def golden_images(model: Model) -> list[NDArray[np.uint8]]:
    """Load the packaged photographs, downsized to keep bundles small; fewer for slow models."""
    count = 4 if model.parameters < 100_000_000 else 2
    images = []
    for photo in PHOTOS[:count]:
        image = Image.fromarray(read_photo(photo))
        image.thumbnail((GOLDEN_LONG_SIDE, GOLDEN_LONG_SIDE))
        images.append(np.asarray(image))
    return images


def make_golden(
    sam: SamModel,
    model: Model,
    progress: Callable[[str], None] = lambda _: None,
    images: Sequence[NDArray[np.uint8]] | None = None,
) -> Golden:
    """Run the reference model on images with clicks, boxes, both together, and mask prompts.

    Prompts are chosen such that the reference's mask is neither empty nor the whole image. Where a model with
    random weights has no such prompt, masks are thresholded at the median of their logits instead.

    Args:
        sam: the reference model.
        model: its catalogue entry.
        progress: called with each step.
        images: (H, W, 3) uint8 RGB each; the packaged photographs if None.

    Raises:
        ParityError: the reference's logits are constant or not finite.
    """
    reference = Reference(sam, model)
    images = golden_images(model) if images is None else list(images)
    encoded = []
    for index, image in enumerate(images):
        progress(f"reference on image {index + 1} of {len(images)}")
        encoded.append(reference.encode(image))
    prompts: list[GoldenPrompt] = []
    for threshold in (model.mask_threshold, None):
        if not prompts:
            prompts = [p for i, one in enumerate(encoded) for p in _prompts(reference, one, i, threshold)]
    if not prompts:
        raise ParityError(
            "the reference model's masks are constant, so that nothing can be compared; is the checkpoint "
            "complete?"
        )
    embeddings = [
        {
            name: sample_embedding(tensor.numpy())
            for name, tensor in zip(model.embedding_names, one.embeddings, strict=True)
        }
        for one in encoded
    ]
    return Golden(images, embeddings, prompts)


def at_median(golden: Golden, model: Model) -> bool:
    """Whether masks are thresholded at the median logit, because the model looks untrained."""
    return any(prompt.threshold != model.mask_threshold for prompt in golden.prompts)


def as_points(
    points: NDArray[np.float32] | None, labels: NDArray[np.float32] | None, box: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Convert points (K, 2), labels (K,) and a box (4,) x0, y0, x1, y1 to coordinates and labels of points.

    The box becomes its two corners with the labels 2 and 3.
    """
    coords = np.zeros((0, 2), np.float32) if points is None else points
    codes = np.zeros(0, np.float32) if labels is None else labels
    if box is not None:
        coords = np.concatenate([coords, box.reshape(2, 2)])
        codes = np.concatenate([codes, np.array([2, 3], np.float32)])
    return coords, codes


def _prompts(
    reference: Reference, encoded: ReferenceImage, index: int, threshold: float | None
) -> list[GoldenPrompt]:
    """Find prompts whose reference mask is neither empty nor the whole image.

    Args:
        reference: the model.
        encoded: the image.
        index: its index in the golden data.
        threshold: of the logits; their median if None.
    """
    height, width = encoded.image.shape[:2]
    prompts: list[GoldenPrompt] = []

    def add(
        points: NDArray[np.float32] | None,
        labels: NDArray[np.float32] | None,
        box: NDArray[np.float32] | None,
        mask_input: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """Add a prompt if its mask is suitable; return the best mask as low-resolution logits and pixels."""
        coords, codes = as_points(points, labels, box)
        low, logits, scores = reference.decode(encoded, coords, codes, mask_input)
        first = reference.model.first_multimask
        best = first + int(scores[first:].argmax())
        level = float(np.median(logits[best])) if threshold is None else threshold
        masks = logits > level
        if not MIN_AREA < masks[best].mean() < MAX_AREA:
            return None
        prompts.append(GoldenPrompt(index, points, labels, box, mask_input, masks, scores, level))
        return low[None, best], masks[best]

    one = np.ones(1, np.float32)
    for y, x in ((0.5, 0.5), (0.35, 0.35), (0.65, 0.6), (0.3, 0.7), (0.75, 0.3), (0.15, 0.5)):
        point = np.array([[int(x * width), int(y * height)]], np.float32)
        added = add(point, one, None)
        if added is None:
            continue
        low, mask = added
        rows, columns = np.nonzero(mask)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
        add(None, None, box)
        add(point, one, box)
        add(np.concatenate([point, np.array([[5, 5]], np.float32)]), np.array([1, 0], np.float32), None)
        if reference.model.prompt.mask_prompt:
            add(point, one, None, low)
        if len(prompts) >= 5:
            break
    return prompts
