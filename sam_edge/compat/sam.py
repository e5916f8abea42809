"""`Sam` with what scripts for `segment_anything` read and call: torch's `to`, `forward`, names of parts."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, Self

from ..runtime.graphs import OpenGraphs
from ..runtime.opener import GraphOpener
from ..runtime.sam import Sam
from .predictor import predict_batch

# PyTorch's names of devices.
_TORCH_DEVICES = {"cuda": "gpu", "mps": "gpu"}


class TorchSam(Sam):
    """A `Sam` with the published model's interface: what `sam_model_registry[...]` returns.

    sam = sam_model_registry["default"](checkpoint="bundle").to("cuda")
    answers = sam(batched_input, multimask_output=True)
    """

    image_format = "RGB"

    def __init__(self, opener: GraphOpener) -> None:
        super().__init__(opener)
        self._moving = threading.Lock()

    @property
    def mask_threshold(self) -> float:
        """Logits above this belong to the mask."""
        return self.manifest.mask_threshold

    @property
    def image_encoder(self) -> SimpleNamespace:
        """`img_size`: the long side of the encoder's input in pixels."""
        return SimpleNamespace(img_size=max(self.manifest.coordinate_space.size))

    def to(self, device: Any) -> Self:
        """Move to another device and return itself, as torch's modules do; settings and cache stay the same.

        Calls that run meanwhile in other threads end on the device where they began.

        Args:
            device: "cpu", "gpu", "npu", torch's "cuda" or "mps", with or without ":0", a torch.device, or a
                device's name from `sam-edge devices`.

        Raises:
            DeviceError: no such device; nothing was moved.
        """
        name = str(device)
        kind = _TORCH_DEVICES.get(name.partition(":")[0], name)
        with self._moving:
            if kind != self.device:
                self._replace_graphs(OpenGraphs(self._graphs.opener.on(kind)))
        return self

    def __call__(self, batched_input: list[dict[str, Any]], multimask_output: bool) -> list[dict[str, Any]]:
        """Segment images that are resized already, as the published `Sam.forward`; see `predict_batch`."""
        return predict_batch(self, batched_input, multimask_output)
