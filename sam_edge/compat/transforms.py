"""`ResizeLongestSide` as in `segment_anything.utils.transforms`: images and prompts to the model's input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..imaging.preprocess import InputRules, check_image, resized_size
from ..imaging.resample import resize_bilinear


class ResizeLongestSide:
    """Resizes images, points and boxes to the model's input, in pixels of its coordinate square.

        transform = ResizeLongestSide(1024)
        points = transform.apply_coords(np.array([[320, 240]]), image.shape[:2])

    Args:
        target: the model's rules, or the length of the long side in pixels.
    """

    def __init__(self, target: InputRules | int) -> None:
        if isinstance(target, int):
            target = InputRules((target, target), "longest_side", True, (0, 0, 0), (1, 1, 1), 0)
        self.rules = target
        self.target_length = max(target.size)

    def resized(self, original_size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (h, w) of an image of `original_size` (H, W) after it is resized."""
        return resized_size((int(original_size[0]), int(original_size[1])), self.rules)

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image (H, W, 3) uint8 to (h, w, 3) uint8."""
        image = check_image(image)
        return resize_bilinear(image, self.resized((image.shape[0], image.shape[1])))

    def apply_coords(self, coords: NDArray[Any], original_size: tuple[int, int]) -> NDArray[np.float64]:
        """Scale (..., 2) x, y in pixels of the original image, which is of `original_size` (H, W)."""
        height, width = self.resized(original_size)
        scale = np.array([width / original_size[1], height / original_size[0]])
        return np.asarray(coords, np.float64) * scale

    def apply_boxes(self, boxes: NDArray[Any], original_size: tuple[int, int]) -> NDArray[np.float64]:
        """Scale (N, 4) or (4,) x0, y0, x1, y1 in pixels of the original image; returns (N, 4)."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_coords_torch(self, coords: Any, original_size: tuple[int, int]) -> Any:
        """Do as `apply_coords`, for a torch tensor."""
        height, width = self.resized(original_size)
        coords = coords.float()
        return coords * coords.new_tensor([width / original_size[1], height / original_size[0]])

    def apply_boxes_torch(self, boxes: Any, original_size: tuple[int, int]) -> Any:
        """Do as `apply_boxes`, for a torch tensor."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """Return the size (h, w) of an image (oldh, oldw) whose long side becomes `long_side_length`."""
        return ResizeLongestSide(long_side_length).resized((oldh, oldw))
