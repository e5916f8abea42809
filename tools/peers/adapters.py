"""Adapters that do the same work with each package. An adapter runs in its package's environment.

Imports at the top are those that every environment has: the standard library and NumPy.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Logits = NDArray[np.float32]


class Adapter(Protocol):
    """A loaded model of one package."""

    def encode(self, image: Image) -> None:
        """Encode an image (H, W, 3) uint8 RGB, and keep the embedding for the prompts that follow."""

    def click(self, x: float, y: float) -> NDArray[np.bool_]:
        """(M, H, W) masks of one click on the image."""

    def logits(self, prompt: dict[str, Any]) -> tuple[Logits, NDArray[np.float32] | None]:
        """The (3, H, W) logits of a prompt, and their scores where the package gives them.

        `prompt` has "points" (K, 2) with "labels" (K,), "box" (4,), or both.
        """

    def everything(self, image: Image, **options: Any) -> int:
        """How many masks `SamAutomaticMaskGenerator` finds with these arguments."""

    def versions(self) -> dict[str, str]:
        """The packages that do the work, and their versions."""


class SegmentAnything:
    """`segment_anything` in PyTorch, as published.

    A model of its registry is the package's own. Of another model, whose decoder is SAM's, the image encoder
    is the published one of MobileSAM or else sam-edge's reference, and the rest is the package's.
    """

    def __init__(self, model: dict[str, Any], threads: int) -> None:
        import torch

        from tools.published.torchvision_parts import load_torchvision

        try:
            self._torchvision = load_torchvision()
        except ModuleNotFoundError:
            self._torchvision = "not installed: stand-ins"
        from tools.published import published

        torch.set_num_threads(threads)
        package = published()
        if model["name"] in package.sam_model_registry:
            sam = package.sam_model_registry[model["name"]](checkpoint=model["checkpoint"])
        else:
            from tools.published import published_around

            sam = published_around(Path(model["checkpoint"]))
        self._predictor = package.SamPredictor(sam)
        self._generator = partial(package.SamAutomaticMaskGenerator, sam)

    def encode(self, image: Image) -> None:
        """As `Adapter.encode`."""
        self._predictor.set_image(image)

    def click(self, x: float, y: float) -> NDArray[np.bool_]:
        """As `Adapter.click`."""
        masks, _, _ = self._predictor.predict(np.array([[x, y]]), np.array([1]))
        return masks

    def logits(self, prompt: dict[str, Any]) -> tuple[Logits, NDArray[np.float32] | None]:
        """As `Adapter.logits`."""
        return _predict(self._predictor, prompt)

    def everything(self, image: Image, **options: Any) -> int:
        """As `Adapter.everything`."""
        return len(self._generator(**options).generate(image))

    def versions(self) -> dict[str, str]:
        """As `Adapter.versions`."""
        return _versions("segment-anything", "torch", "numpy") | {"torchvision": self._torchvision}


class SamExporter:
    """`samexporter`'s runtime on the files that its own commands exported; it has no everything-mode."""

    def __init__(self, model: dict[str, Any], threads: int) -> None:
        import cv2
        import onnxruntime
        from samexporter import sam_onnx

        cv2.setNumThreads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # It passes no options; without this ONNX Runtime would choose the number of threads.
        with_threads = partial(onnxruntime.InferenceSession, sess_options=options)
        with patch.object(onnxruntime, "InferenceSession", with_threads):
            self._sam = sam_onnx.SegmentAnythingONNX(model["encoder"], model["decoder"], providers="cpu")
        self._embedding: dict[str, Any] = {}

    def encode(self, image: Image) -> None:
        """As `Adapter.encode`; it takes BGR, as OpenCV reads it."""
        self._embedding = self._sam.encode(np.ascontiguousarray(image[..., ::-1]))

    def click(self, x: float, y: float) -> NDArray[np.bool_]:
        """As `Adapter.click`."""
        return self._masks([{"type": "point", "data": [x, y], "label": 1}]) > 0

    def logits(self, prompt: dict[str, Any]) -> tuple[Logits, NDArray[np.float32] | None]:
        """As `Adapter.logits`: the last three of the decoder's four masks; scores stay inside."""
        marks: list[dict[str, Any]] = []
        if prompt.get("points") is not None:
            pairs = zip(prompt["points"], prompt["labels"], strict=True)
            marks += [{"type": "point", "data": point, "label": int(label)} for point, label in pairs]
        if prompt.get("box") is not None:
            marks.append({"type": "rectangle", "data": prompt["box"]})
        return self._masks(marks)[-3:], None

    def _masks(self, marks: list[dict[str, Any]]) -> Logits:
        return np.asarray(self._sam.predict_masks(self._embedding, marks)[0], np.float32)

    def everything(self, image: Image, **options: Any) -> int:
        """Not available."""
        raise NotImplementedError("samexporter has no everything-mode")

    def versions(self) -> dict[str, str]:
        """As `Adapter.versions`."""
        return _versions("samexporter", "onnxruntime", "opencv-python", "numpy")


class SamEdge:
    """sam-edge on one variant of a bundle."""

    def __init__(self, model: dict[str, Any], threads: int) -> None:
        import sam_edge

        self._version = sam_edge.__version__
        self._sam = sam_edge.load(model["bundle"], model["backend"], "cpu", model["precision"], threads)
        self._predictor = sam_edge.SamPredictor(self._sam)
        self._generator = partial(sam_edge.SamAutomaticMaskGenerator, self._sam)

    def encode(self, image: Image) -> None:
        """As `Adapter.encode`."""
        self._predictor.set_image(image)

    def click(self, x: float, y: float) -> NDArray[np.bool_]:
        """As `Adapter.click`."""
        return self._predictor.predict(np.array([[x, y]]), np.array([1]))[0]

    def logits(self, prompt: dict[str, Any]) -> tuple[Logits, NDArray[np.float32] | None]:
        """As `Adapter.logits`."""
        return _predict(self._predictor, prompt)

    def everything(self, image: Image, **options: Any) -> int:
        """As `Adapter.everything`."""
        return len(self._generator(**options).generate(image))

    def versions(self) -> dict[str, str]:
        """As `Adapter.versions`."""
        return {"sam-edge": self._version} | _versions(self._sam.backend, "numpy")


ADAPTERS = {"segment_anything": SegmentAnything, "samexporter": SamExporter, "sam_edge": SamEdge}


def _predict(predictor: Any, prompt: dict[str, Any]) -> tuple[Logits, NDArray[np.float32]]:
    """Call `predict` of either `SamPredictor`: logits and scores."""
    names = {"point_coords": "points", "point_labels": "labels", "box": "box"}
    given = {k: np.array(prompt[v]) for k, v in names.items() if prompt.get(v) is not None}
    masks, scores, _ = predictor.predict(**given, return_logits=True)
    return np.asarray(masks, np.float32), np.asarray(scores, np.float32)


def _versions(*packages: str) -> dict[str, str]:
    return {package: version(package) for package in packages}
