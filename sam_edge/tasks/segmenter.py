"""The interface between a loaded model and what is built on it: refinement, texts, everything-mode, parity.

`Sam` implements it. Its methods with an underscore are not public API: they may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import Manifest
from ..imaging.postprocess import Upscaling
from ..types import ImageEmbedding, Masks, Prompts
from .clip import Clip

# Which of the decoder's masks: the three for ambiguous prompts, the one for others, or all of them.
MaskOutput = Literal["multimask", "single", "all"]


class Candidate(NamedTuple):
    """A mask of one click: indices of the point and of the mask, score, low-resolution logits (h, w)."""

    point: int
    mask: int
    score: float
    low_res_logits: NDArray[np.float32]


class Segmenter(Protocol):
    """A loaded model: images to embeddings, prompts to masks."""

    @property
    def manifest(self) -> Manifest:
        """The model's inputs and outputs."""

    @property
    def clip(self) -> Clip:
        """The bundle's CLIP; raises `BundleError` where there is none."""

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an image (H, W, 3) uint8 RGB."""

    def _check_prompts(self, prompts: Prompts, original_size: tuple[int, int]) -> None:
        """Raise `PromptError` unless `prompts` are valid for an image of `original_size` (H, W)."""

    def _segment(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        output: MaskOutput = "multimask",
        return_logits: bool = False,
    ) -> Masks:
        """Return masks for N prompts at the original image's size."""

    def _candidates(
        self, embedding: ImageEmbedding, points: NDArray[Any], threshold: float
    ) -> Iterator[Candidate]:
        """Yield the masks of clicks (N, 2) whose scores are above `threshold`; 0 or less for all masks."""

    def _upscaling(self, original_size: tuple[int, int]) -> Upscaling:
        """Return how low-resolution logits are resized to an image of `original_size` (H, W)."""
