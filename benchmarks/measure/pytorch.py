"""Makes the PyTorch reference a backend, so that it is measured like every other row.

It needs the `export` extra. Besides FP32 it runs in the two ways in which PyTorch is faster: in bfloat16,
which helps on processors with instructions for it, and with `torch.compile`, which needs a C++ compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam_edge.backends import Backend, Session
from sam_edge.bundle.bundle import Bundle
from sam_edge.bundle.variant import Graph, Tensor, Variant
from sam_edge.errors import BackendError, DeviceError
from sam_edge.export.architectures.model import SamModel
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.checkpoints.resize import resize
from sam_edge.models.catalogue import Model
from sam_edge.types import Arrays

_PROMPT = ("point_coords", "point_labels", "mask_input", "has_mask_input")


def variant_of(bundle: Bundle, name: str) -> Variant:
    """Make a variant like those of a manifest, with the inputs of the published graphs and without files."""
    images = Tensor("images", "float32", (1, 3, *bundle.manifest.input.size))
    # Any number of prompts at once.
    names = ("image_embeddings", *_PROMPT)
    prompt = [Tensor(one, "float32", ("num_prompts",)) for one in names]
    first = bundle.manifest.variants[0].decoder.inputs
    extra = [one for one in first if one.name not in names]
    return Variant(
        id=name,
        format="pytorch",
        precision="fp32",
        encoder=Graph("encoder", (images,), ()),
        decoder=Graph("decoder", (*prompt, *extra), ()),
    )


class PyTorch(Backend):
    """The reference model of a checkpoint.

    Args:
        kind: how it runs: "pytorch-fp32", "pytorch-bf16" or "pytorch-fp32-compile".
        checkpoint: the file.
        size: the side of the encoder's input.
    """

    name = "pytorch"
    formats = ("pytorch",)

    def __init__(self, kind: str, checkpoint: Path, size: int) -> None:
        self.kind, self.checkpoint, self.size = kind, checkpoint, size
        self._loaded: tuple[SamModel, Model] | None = None

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Open the encoder or the decoder, as the name of `path` says, on "cpu" or "gpu" (CUDA)."""
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "gpu" and not torch.cuda.is_available():
            raise DeviceError("PyTorch finds no CUDA GPU; install a CUDA build of torch, or use --device cpu")
        where = torch.device("cuda" if device == "gpu" else "cpu")
        if self._loaded is None:
            loaded = resize(load_checkpoint(self.checkpoint), self.size)
            self._loaded = build_reference(loaded).to(where), loaded.model
        sam, model = self._loaded
        compiled: Callable[[Any], Any] = torch.compile if self.kind.endswith("compile") else lambda work: work
        if path.name == "encoder":
            run = _encoder(compiled(sam.encode), model)
        else:
            run = _decoder(compiled(sam.decode), model)
        return Session(self._guarded(run, where), "gpu" if device == "gpu" else "cpu")

    def _guarded(self, run: Callable[..., dict[str, Any]], where: torch.device) -> Callable[[Arrays], Arrays]:
        def guarded(inputs: Arrays) -> Arrays:
            given = {name: torch.from_numpy(np.ascontiguousarray(a)).to(where) for name, a in inputs.items()}
            half = torch.autocast(where.type, torch.bfloat16, enabled="bf16" in self.kind)
            try:
                with torch.inference_mode(), half:
                    return {name: value.float().cpu().numpy() for name, value in run(given).items()}
            except Exception as error:  # the compiler, memory, CUDA: each raises its own
                lines = [line for line in str(error).splitlines() if line.strip()]
                raise BackendError(f"PyTorch cannot run {self.kind}: {' '.join(lines[:2])[:300]}") from error

        return guarded


def _encoder(encode: Callable[..., Any], model: Model) -> Callable[..., dict[str, Any]]:
    def run(given: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(model.embedding_names, encode(given["images"]), strict=True))

    return run


def _decoder(decode: Callable[..., Any], model: Model) -> Callable[..., dict[str, Any]]:
    def run(given: dict[str, Any]) -> dict[str, Any]:
        extra = [given[name] for name in model.embedding_names[1:]]
        low_res, scores = decode(given["image_embeddings"], *(given[name] for name in _PROMPT), *extra)
        return {"low_res_masks": low_res, "iou_predictions": scores}

    return run
