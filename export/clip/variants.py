"""CLIP as an optional part of a bundle: both encoders in every variant's format and precision, proven.

INT8 is the weights only: features keep to the reference's, and there is nothing to calibrate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sam_edge.backends import find_backends
from sam_edge.bundle.bundle import Bundle
from sam_edge.bundle.golden import Golden
from sam_edge.bundle.manifest import ClipRules, Manifest
from sam_edge.errors import CheckpointError, ParityError
from sam_edge.system.files import sha256_file, write_atomically
from sam_edge.tasks.clip import open_clip, preprocess, read_tokenizer
from sam_edge.verify.clip_parity import ClipGolden, read_clip_golden, run_clip_parity, write_clip_golden

from ..architectures.clip import TextEncoder
from ..context import SUFFIX, Options, file_facts, graph_facts
from ..formats import onnx
from .checkpoint import ClipLoaded, load_clip
from .tokenizer import make_tokenizer

PARTS = ("text_encoder", "image_encoder")
# Short and long, plain and odd, one cut off; what they say matters little to a comparison.
TEXTS = (
    "a photo of a cat",
    "a person",
    "a cup of coffee on a table",
    "an astronaut in an orange suit",
    "the sky",
    "grass",
    "a rocket",
    "something that is not there",
    "Ünïcode, punctuation & numbers: 3.14!",
    "a diagram",
    "the left eye of a tabby cat looking at the camera, close up, with a blurred background",
    "word " * 120,
)


@dataclass(frozen=True)
class ClipSource:
    """A CLIP read from a folder, its tokeniser's JSON, and its rules for the manifest."""

    loaded: ClipLoaded
    tokenizer: bytes

    @cached_property
    def rules(self) -> ClipRules:
        """As in the manifest."""
        config, loaded = self.loaded.model.config, self.loaded
        red, green, blue = (255 * value for value in loaded.mean)
        reds, greens, blues = (255 * value for value in loaded.std)
        return ClipRules(
            config.image_size,
            (red, green, blue),
            (reds, greens, blues),
            config.context_length,
            config.end_of_text,
            config.embed_dim,
            float(loaded.model.logit_scale.exp()),
        )


def read_clip(folder: Path) -> ClipSource:
    """The CLIP in `folder`, whole and of one piece.

    Raises:
        CheckpointError: it is not; the message says what is missing.
        BackendError: the `tokenizers` package is not installed.
    """
    loaded = load_clip(folder)
    if not all(bool(torch.isfinite(value).all()) for value in loaded.model.state_dict().values()):
        raise CheckpointError(f"{loaded.path} holds infinities or NaN; download it again")
    return ClipSource(loaded, make_tokenizer(folder, loaded.model.config))


def describe_clip(source: ClipSource, stage: Path, golden: Golden) -> dict[str, Any]:
    """Write the tokeniser and the golden features; the manifest's `clip`, without variants yet."""
    folder, loaded, rules = stage / "clip", source.loaded, source.rules
    folder.mkdir()
    write_atomically(folder / "tokenizer.json", source.tokenizer)
    write_clip_golden(folder / "golden.npz", _golden(source, golden))
    return {
        "checkpoint": {
            "file": loaded.path.name,
            "sha256": sha256_file(loaded.path),
            "bytes": loaded.path.stat().st_size,
            "layout": loaded.layout,
        },
        "parameters": sum(value.numel() for value in loaded.model.parameters()),
        "image_size": rules.image_size,
        "resize": "shortest_side_center_crop",
        "resample": "bicubic",
        "color_order": "RGB",
        "mean": list(rules.mean),
        "std": list(rules.std),
        "context_length": rules.context_length,
        "end_of_text": rules.end_of_text,
        "embed_dim": rules.embed_dim,
        "logit_scale": rules.logit_scale,
        "tokenizer": file_facts(stage, folder / "tokenizer.json"),
        "golden": file_facts(stage, folder / "golden.npz"),
        "variants": [],
    }


@dataclass(frozen=True)
class _Part:
    """One encoder: an example of its input, two rows, and the names of input, output and rows."""

    name: str
    module: nn.Module
    example: torch.Tensor
    input: str
    output: str
    axis: str


class ClipWorkshop:
    """Writes a CLIP's variants; the FP32 ONNX graphs are traced once."""

    def __init__(
        self,
        source: ClipSource,
        options: Options,
        images: list[NDArray[np.uint8]],
        work: Path,
        progress: Callable[[str], None],
    ) -> None:
        self.source, self.options, self.images = source, options, images
        self.work, self.progress = work, progress

    @cached_property
    def parts(self) -> list[_Part]:
        """The reference's encoders."""
        model, config = self.source.loaded.model, self.source.loaded.model.config
        ids = torch.full((2, config.context_length), config.end_of_text, dtype=torch.int32)
        images = torch.zeros(2, 3, config.image_size, config.image_size)
        return [
            _Part("text_encoder", TextEncoder(model), ids, "input_ids", "text_features", "num_texts"),
            _Part("image_encoder", model.visual, images, "images", "image_features", "num_images"),
        ]

    @cached_property
    def graphs(self) -> dict[str, Path]:
        """FP32 ONNX files of the reference by part."""
        found = {}
        for part in self.parts:
            self.progress(f"tracing CLIP's {part.name}")
            found[part.name] = self.work / f"clip-{part.name}.onnx"
            onnx.write_batched(
                part.module, part.example, part.input, part.output, part.axis, found[part.name]
            )
        return found

    def examples(self, part: str) -> list[dict[str, NDArray[Any]]]:
        """Some inputs of a part, to measure ranges on."""
        if part == "image_encoder":
            return [{"images": preprocess(image, self.source.rules)} for image in self.images]
        return [{"input_ids": ids[None]} for ids in tokens(self.source)]

    def write(self, kind: str, precision: str, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """Both encoders into `folder`, for "bf16" as for "fp16"; returns what stayed in higher precision, and
        why."""
        precision = "fp16" if precision == "bf16" else precision
        write = {"onnx": self._onnx, "openvino": self._openvino, "coreml": self._coreml}[kind]
        kept: list[str] = []
        for part in self.parts:
            described = {**facts, "format": kind, "precision": precision, "graph": part.name}
            kept += write(part, precision, folder / f"{part.name}{SUFFIX[kind]}", described)
        return list(dict.fromkeys(kept))

    def _onnx(self, part: _Part, precision: str, target: Path, facts: Mapping[str, Any]) -> list[str]:
        kept: list[str] = []
        made = graph = self.graphs[part.name]
        if precision == "fp16":
            from ..quantize import fp16

            made = self.work / f"clip-fp16-{part.name}.onnx"
            names = fp16.convert(graph, made, self.examples(part.name))
            kept = [f"{part.name} {name}: FP32, as FP16 would overflow or lose digits" for name in names]
        elif precision == "int8":
            from ..quantize import onnx_int8 as int8

            made = self.work / f"clip-int8-{part.name}.onnx"
            int8.compress_decoder(graph, made)
            kept = [_IN_FLOAT]
        onnx.stamp(made, target, {**facts, "opset": onnx.OPSET})
        return kept

    def _openvino(self, part: _Part, precision: str, target: Path, facts: Mapping[str, Any]) -> list[str]:
        from ..formats import openvino

        # One text or image a call, --dynamic or not: NPUs want that, and a CPU gains little from more.
        if precision == "int8":
            openvino.write_decoder_int8(self.graphs[part.name], target, facts)
            return [_IN_FLOAT]
        return openvino.write(self.graphs[part.name], target, facts, precision)

    def _coreml(self, part: _Part, precision: str, target: Path, facts: Mapping[str, Any]) -> list[str]:
        from ..formats import coreml

        one, ios = part.example[:1], self.options.ios
        kept = coreml.write_module(part.module, one, part.input, part.output, target, facts, precision, ios)
        return [*kept, _IN_FLOAT] if precision == "int8" else kept


_IN_FLOAT = "activations of CLIP: only its weights are INT8, which keeps the ranking of masks"


def add_variant(
    shop: ClipWorkshop, variant: dict[str, Any], stage: Path, data: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write CLIP for one of the bundle's variants and measure it; its entry in the manifest's `clip`.

    Raises:
        ExportError: the conversion failed.
        ParityError: its features are not the reference's.
    """
    name, kind, precision = variant["id"], variant["format"], variant["precision"]
    folder = stage / "clip" / name
    folder.mkdir()
    kept = shop.write(kind, precision, folder, facts)
    files = [file_facts(stage, path) for path in sorted(folder.rglob("*")) if path.is_file()]
    entry = {
        "id": name,
        "files": files,
        **{part: graph_facts(kind, folder, part, stage) for part in PARTS},
        "higher_precision_ops": kept,
    }
    trial = {**data, "clip": {**data["clip"], "variants": [entry]}}
    reader = next(one for one in find_backends() if kind in one.formats)
    exported = open_clip(
        Bundle(stage, Manifest(trial)),
        name,
        lambda found, part: reader.open(stage / found.graphs[part].path, "auto", None),
    )
    try:
        golden = read_clip_golden(stage / "clip/golden.npz")
        parity = run_clip_parity(exported, golden, shop.images, precision).to_json()
        parity["device"] = exported.device
    finally:
        exported.close()
    if not parity["passed"]:
        raise ParityError(
            f"CLIP in {name} does not make the reference's features: the least cosine similarity is "
            f"{parity['min_text_cosine']:.4f} for texts and {parity['min_image_cosine']:.4f} for images, the "
            f"gate {parity['gate']}; leave {precision} out for {kind}, or --clip; nothing was published"
        )
    return {**entry, "parity": parity}


def tokens(source: ClipSource) -> NDArray[np.int32]:
    """`TEXTS` as the reference takes them, (T, context_length)."""
    tokenizer = read_tokenizer(source.tokenizer, source.rules.context_length)
    ids = np.zeros((len(TEXTS), source.rules.context_length), np.int32)
    for row, text in zip(ids, TEXTS, strict=True):
        numbers = tokenizer.encode(text).ids
        row[: len(numbers)] = numbers
    return ids


@torch.inference_mode()
def _golden(source: ClipSource, golden: Golden) -> ClipGolden:
    """The reference's features, its images resized by Pillow, as published."""
    model, ids = source.loaded.model, tokens(source)
    images = torch.cat([_published(image, source) for image in golden.images])
    return ClipGolden(
        ids, model.encode_text(torch.from_numpy(ids)).numpy(), model.encode_image(images).numpy()
    )


def _published(image: NDArray[np.uint8], source: ClipSource) -> torch.Tensor:
    """OpenAI's transform: Resize (bicubic), CenterCrop, ToTensor, Normalize."""
    side, (height, width) = source.rules.image_size, image.shape[:2]
    short = min(height, width)
    size = int(side * width / short), int(side * height / short)
    picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    cropped = np.array(picture.crop((left, top, left + side, top + side)), np.float32) / 255
    mean, std = torch.tensor(source.loaded.mean), torch.tensor(source.loaded.std)
    x = torch.from_numpy(cropped).permute(2, 0, 1)
    return ((x - mean[:, None, None]) / std[:, None, None])[None]
