"""State shared by the variants of one export: reference, traced graphs, calibration, measurements.

The FP32 ONNX graphs are traced once and are the source of the other ONNX files and of OpenVINO's, so that an
operator has one name in both. INT8 starts from the equalized reference (`quantize.equalization`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam_edge.backends import get_backend
from sam_edge.models.catalogue import Model

from ..architectures.model import SamModel
from ..graphs.onnx import STAGE_VALUES
from ..quantize import onnx_int8
from ..quantize.arithmetic import ActivationStats
from ..quantize.calibration import Calibration
from ..quantize.sensitivity import rank_by_sensitivity
from .lowerings import ONNXRUNTIME, Lowering, Tracing
from .options import Options

# Models with more parameters take seconds for an image.
LARGE_PARAMETERS = 50_000_000


@dataclass
class ExportContext:
    """State shared by the variants of one export; every property is computed on first use.

    Attributes:
        sam: the reference, fused.
        model: its catalogue entry.
        options: what was asked for.
        facts: of the model, for the metadata of every file.
        calibration: images for INT8.
        work: a directory for intermediate files.
        progress: told of each step.
        kept: the operators that INT8 left in float in the variant before, by the encoder that it came from.
    """

    sam: SamModel
    model: Model
    options: Options
    facts: dict[str, Any]
    calibration: Calibration
    work: Path
    progress: Callable[[str], None]
    kept: dict[Path, list[str]] = field(default_factory=dict)
    _rankings: dict[Path, list[str]] = field(default_factory=dict)
    _observations: dict[Path, dict[str, ActivationStats]] = field(default_factory=dict)
    _lowered: dict[tuple[str, bool], SamModel] = field(default_factory=dict)
    _graphs: dict[tuple[str, str, bool], Path] = field(default_factory=dict)

    @property
    def is_large(self) -> bool:
        """Whether the encoder takes seconds for an image."""
        return self.model.parameters > LARGE_PARAMETERS

    @cached_property
    def equalized(self) -> SamModel:
        """The reference as a function, with weights that are kinder to INT8."""
        from ..quantize.equalization import rewrite

        self.progress("exact rewrites")
        return rewrite(self.sam, self.calibration.images[: 4 if self.is_large else None])[0]

    def lowered(self, lowering: Lowering = ONNXRUNTIME, equalized: bool = False) -> SamModel:
        """The reference, or `equalized`, lowered for a kind of runtime."""
        key = lowering.prepared_as or lowering.name, equalized
        if key not in self._lowered:
            sam = self.equalized if equalized else self.sam
            self._lowered[key] = lowering.prepare(sam, self.options)
        return self._lowered[key]

    def graph(self, part: str, lowering: Lowering = ONNXRUNTIME, equalized: bool = False) -> Path:
        """The FP32 ONNX file of a part.

        Args:
            part: "encoder", or one of `decoder_parts`.
            lowering: how it is written.
            equalized: whether of the equalized reference.
        """
        lowering = lowering.for_model(self.sam)
        key = part, lowering.name, equalized
        if key not in self._graphs:
            sam = self.lowered(lowering, equalized)
            path = self.work / f"{'-'.join(key[:2])}{'-equalized' if equalized else ''}.onnx"
            self.progress(f"tracing {path.name}")
            another = partial(self.graph, lowering=lowering, equalized=equalized)
            lowering.write(sam, part, path, Tracing(self.model, self.options, another))
            self._graphs[key] = path
        return self._graphs[key]

    def decoder_parts(self, lowering: Lowering = ONNXRUNTIME) -> dict[str, Path]:
        """FP32 ONNX files of the reference's decoder: "decoder" and, where scores come before masks, the
        `STAGES` of it."""
        return {part: self.graph(part, lowering) for part in lowering.parts(self.lowered(lowering))}

    def ranking(self, encoder: Path) -> list[str]:
        """The quantizable operators of an FP32 encoder, the one that suffers most from INT8 first."""
        if encoder not in self._rankings:
            # Two images rank as well as all of them; one where each takes seconds.
            few = self.calibration.images[: 1 if self.is_large else 2]
            self._rankings[encoder] = rank_by_sensitivity(
                encoder, self.work, few, self.observed(encoder), self.progress
            )
        return self._rankings[encoder]

    def observed(self, encoder: Path) -> dict[str, ActivationStats]:
        """The ranges of what the quantizable operators of an FP32 encoder read on the calibration images."""
        if encoder not in self._observations:
            self.progress(f"ranges of {encoder.name}")
            self._observations[encoder] = onnx_int8.encoder_stats(encoder, self.calibration.images)
        return self._observations[encoder]

    def part_inputs(self, part: str) -> Iterator[dict[str, Any]]:
        """Calibration inputs of the encoder, or of one of `decoder_parts`."""
        if part == "encoder":
            yield from ({"images": image} for image in self.calibration.images[:4])
        elif part == "upscaler":
            scorer = get_backend("onnxruntime").open(self.graph("scorer"), "cpu", None)
            for inputs in self._decoder_inputs():
                found = scorer.run(inputs)
                yield {name: found[name] for name in STAGE_VALUES}
            scorer.close()
        else:
            yield from self._decoder_inputs()

    def _decoder_inputs(self) -> Iterator[dict[str, Any]]:
        """A click and a box on some calibration images, as the decoder takes them."""
        side, low = self.model.coordinate_size, 4 * self.model.embedding_side
        prompts = (([[side / 2, side / 2], [0, 0]], [1, -1]), ([[side / 4] * 2, [side / 1.5] * 2], [2, 3]))
        dim = self.model.decoder.dim
        # Of a length like that of a point's token.
        token = np.full((1, 1, dim), 1 / np.sqrt(2), np.float32)
        texts = {"text_embeddings": token} if self.options.text_embeddings else {}
        for image in self.calibration.images[:2]:
            with torch.inference_mode():
                found = [tensor.numpy() for tensor in self.sam.encode(torch.from_numpy(image))]
            for coords, labels in prompts:
                missing = (self.model.prompt.num_points or 2) - 2
                yield {
                    **dict(zip(self.model.embedding_names, found, strict=True)),
                    "point_coords": np.array([[*coords, *[[0, 0]] * missing]], np.float32),
                    "point_labels": np.array([[*labels, *[-1] * missing]], np.float32),
                    "mask_input": np.zeros((1, 1, low, low), np.float32),
                    "has_mask_input": np.zeros(1, np.float32),
                    **texts,
                }
