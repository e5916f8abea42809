"""Golden data: photographs, prompts and what the reference makes of them.

The reference does its own preprocessing (Pillow) and upscaling (PyTorch), so that parity covers the
whole way from the image to the mask and not only the graphs.
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
# A reference mask this small or this large says little about agreement.
MIN_AREA, MAX_AREA = 0.002, 0.95


@dataclass(frozen=True)
class ReferenceImage:
    """One image as the reference sees it."""

    image: NDArray[np.uint8]
    embeddings: tuple[Tensor, ...]


class Reference:
    """The published predictor's flow around the reference model, for one model."""

    def __init__(self, sam: SamModel, model: Model) -> None:
        self.sam, self.model = sam, model

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> ReferenceImage:
        """(H, W, 3) uint8 RGB -> its embeddings."""
        side, rules = self.model.image_size, self.model.preprocess
        resized = self._resized(image, side)
        if rules.antialias:
            picture = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR)
            x = torch.from_numpy(np.array(picture, np.float32)).permute(2, 0, 1)
        else:
            x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
            x = F.interpolate(x[None], resized, mode="bilinear", align_corners=False)[0]
        mean, std = torch.tensor(rules.mean), torch.tensor(rules.std)
        x = (x - mean[:, None, None]) / std[:, None, None]
        x = F.pad(x, (0, side - resized[1], 0, side - resized[0]), value=rules.pad_value)
        return ReferenceImage(image, self.sam.encode(x[None]))

    def _resized(self, image: NDArray[np.uint8], side: int) -> tuple[int, int]:
        """(h, w) of the image in a square of `side`."""
        if self.model.preprocess.resize != "longest_side":
            return side, side
        height, width = image.shape[:2]
        scale = side / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    @torch.inference_mode()
    def decode(
        self,
        seen: ReferenceImage,
        coords: NDArray[np.float32],
        labels: NDArray[np.float32],
        mask_input: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """One prompt, in pixels of the original image, box corners included as labels 2 and 3.

        Returns low-resolution logits (M, h, w), logits (M, H, W) at the image's size and scores (M,).
        """
        height, width = seen.image.shape[:2]
        rules, side = self.model.prompt, self.model.coordinate_size
        resized = self._resized(seen.image, side)
        scale = np.array([resized[1] / width, resized[0] / height], np.float32)
        points, codes = coords * scale, labels
        padding = int(2 not in labels or rules.padding_point == "always")
        if rules.num_points is not None:
            padding = rules.num_points - len(labels)
        points = np.concatenate([points, np.zeros((padding, 2), np.float32)])
        codes = np.concatenate([codes, np.full(padding, -1, np.float32)])
        low_side = 4 * self.model.embedding_side
        given = torch.zeros(1, 1, low_side, low_side)
        if mask_input is not None:
            given = torch.from_numpy(mask_input)[None]
        low, scores = self.sam.decode(
            seen.embeddings[0],
            torch.from_numpy(points)[None].float(),
            torch.from_numpy(codes)[None].float(),
            given,
            torch.tensor([float(mask_input is not None)]),
            *seen.embeddings[1:],
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
    """The sample photographs, small enough to travel with every bundle; fewer for slow models."""
    count = 4 if model.parameters < 100_000_000 else 2
    images = []
    for photo in PHOTOS[:count]:
        picture = Image.fromarray(read_photo(photo))
        picture.thumbnail((GOLDEN_LONG_SIDE, GOLDEN_LONG_SIDE))
        images.append(np.asarray(picture))
    return images


def make_golden(
    sam: SamModel,
    model: Model,
    progress: Callable[[str], None] = lambda _: None,
    images: Sequence[NDArray[np.uint8]] | None = None,
) -> Golden:
    """Run the reference on every image with clicks, boxes, both together and mask prompts.

    Without images, on the packaged photographs. The prompts are chosen so that the reference's mask is
    neither empty nor everything. A model with random weights may have none such; its masks are then taken at
    the median of its logits.

    Raises:
        ParityError: the reference's logits are the same everywhere, or not finite.
    """
    reference = Reference(sam, model)
    images = golden_images(model) if images is None else list(images)
    seen = []
    for index, image in enumerate(images):
        progress(f"reference on image {index + 1} of {len(images)}")
        seen.append(reference.encode(image))
    prompts: list[GoldenPrompt] = []
    for threshold in (model.mask_threshold, None):
        if not prompts:
            prompts = [p for i, one in enumerate(seen) for p in _prompts(reference, one, i, threshold)]
    if not prompts:
        raise ParityError(
            "the reference model's masks are the same everywhere, so nothing can be compared; is the "
            "checkpoint whole?"
        )
    embeddings = [
        {
            name: sample_embedding(tensor.numpy())
            for name, tensor in zip(model.embedding_names, one.embeddings, strict=True)
        }
        for one in seen
    ]
    return Golden(images, embeddings, prompts)


def at_median(golden: Golden, model: Model) -> bool:
    """Whether the masks are compared at the median logit, because the model looks untrained."""
    return any(prompt.threshold != model.mask_threshold for prompt in golden.prompts)


def as_points(
    points: NDArray[np.float32] | None, labels: NDArray[np.float32] | None, box: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (K, 2), labels (K,) and box (4,) as `Reference.decode` takes them: the corners are points."""
    coords = np.zeros((0, 2), np.float32) if points is None else points
    codes = np.zeros(0, np.float32) if labels is None else labels
    if box is not None:
        coords = np.concatenate([coords, box.reshape(2, 2)])
        codes = np.concatenate([codes, np.array([2, 3], np.float32)])
    return coords, codes


def _prompts(
    reference: Reference, seen: ReferenceImage, index: int, threshold: float | None
) -> list[GoldenPrompt]:
    """Prompts whose reference mask is neither empty nor everything; `threshold` None: the median."""
    height, width = seen.image.shape[:2]
    found: list[GoldenPrompt] = []

    def keep(
        points: NDArray[np.float32] | None,
        labels: NDArray[np.float32] | None,
        box: NDArray[np.float32] | None,
        mask_input: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        coords, codes = as_points(points, labels, box)
        low, logits, scores = reference.decode(seen, coords, codes, mask_input)
        first = reference.model.first_multimask
        best = first + int(scores[first:].argmax())
        level = float(np.median(logits[best])) if threshold is None else threshold
        masks = logits > level
        if not MIN_AREA < masks[best].mean() < MAX_AREA:
            return None
        found.append(GoldenPrompt(index, points, labels, box, mask_input, masks, scores, level))
        return low[None, best], masks[best]

    one = np.ones(1, np.float32)
    for y, x in ((0.5, 0.5), (0.35, 0.35), (0.65, 0.6), (0.3, 0.7), (0.75, 0.3), (0.15, 0.5)):
        point = np.array([[int(x * width), int(y * height)]], np.float32)
        made = keep(point, one, None)
        if made is None:
            continue
        low, mask = made
        rows, columns = np.nonzero(mask)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
        keep(None, None, box)
        keep(point, one, box)
        keep(np.concatenate([point, np.array([[5, 5]], np.float32)]), np.array([1, 0], np.float32), None)
        if reference.model.prompt.mask_prompt:
            keep(point, one, None, low)
        if len(found) >= 5:
            break
    return found
