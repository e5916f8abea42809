"""CLIP as an optional part of a bundle: both encoders in every variant's format and precision, verified.

INT8 is the weights only: features keep to the reference's, and there is nothing to calibrate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sam_edge.axes import PRECISIONS
from sam_edge.backends import find_backends
from sam_edge.bundle.bundle import Bundle
from sam_edge.bundle.golden import Golden
from sam_edge.bundle.manifest import ClipRules, Manifest
from sam_edge.errors import CheckpointError, ParityError
from sam_edge.system.files import sha256_file, write_atomically
from sam_edge.tasks.clip import open_clip, preprocess, read_tokenizer
from sam_edge.verify.clip_parity import ClipGolden, read_clip_golden, run_clip_parity, write_clip_golden

from ..architectures.clip import TextEncoder
from ..context.entries import file_entries, file_entry
from ..context.job import ModuleJob
from ..context.options import Options
from ..formats import FORMATS
from ..graphs import onnx
from .checkpoint import ClipLoaded, load_clip
from .tokenizer import make_tokenizer

PARTS = ("text_encoder", "image_encoder")
# Short and long, ASCII and Unicode, one beyond the context length; their meaning matters little.
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
    """A CLIP read from a folder, with its tokenizer's JSON."""

    loaded: ClipLoaded
    tokenizer: bytes

    @cached_property
    def rules(self) -> ClipRules:
        """Its preprocessing and sizes, as the manifest records them."""
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
    """Read the CLIP in a folder, with its tokenizer.

    Raises:
        CheckpointError: a file is missing or damaged, or the files do not belong together.
        BackendError: the `tokenizers` package is not installed.
    """
    loaded = load_clip(folder)
    if not all(bool(torch.isfinite(value).all()) for value in loaded.model.state_dict().values()):
        raise CheckpointError(f"{loaded.path} holds infinities or NaN; download it again")
    return ClipSource(loaded, make_tokenizer(folder, loaded.model.config))


def describe_clip(source: ClipSource, stage: Path, golden: Golden) -> dict[str, Any]:
    """Write the tokenizer and the golden features, and return the manifest's `clip` without variants."""
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
        "tokenizer": file_entry(stage, folder / "tokenizer.json"),
        "golden": file_entry(stage, folder / "golden.npz"),
        "variants": [],
    }


@dataclass(frozen=True)
class _Part:
    """One encoder: an example input of two rows, and the names of its input, output and dynamic axis."""

    name: str
    module: nn.Module
    example: torch.Tensor
    input: str
    output: str
    axis: str


class ClipExport:
    """Writes CLIP in the format and precision of each variant; its FP32 ONNX graphs are traced once."""

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
        self._graphs: dict[str, Path] = {}

    @cached_property
    def parts(self) -> list[_Part]:
        """The reference's two encoders."""
        model, config = self.source.loaded.model, self.source.loaded.model.config
        ids = torch.full((2, config.context_length), config.end_of_text, dtype=torch.int32)
        images = torch.zeros(2, 3, config.image_size, config.image_size)
        return [
            _Part("text_encoder", TextEncoder(model), ids, "input_ids", "text_features", "num_texts"),
            _Part("image_encoder", model.visual, images, "images", "image_features", "num_images"),
        ]

    def graph(self, part: _Part) -> Path:
        """Trace an encoder to an FP32 ONNX file, once."""
        if part.name not in self._graphs:
            self.progress(f"tracing CLIP's {part.name}")
            path = self.work / f"clip-{part.name}.onnx"
            onnx.write_batched(part.module, part.example, part.input, part.output, part.axis, path)
            self._graphs[part.name] = path
        return self._graphs[part.name]

    def samples(self, part: str) -> list[dict[str, NDArray[Any]]]:
        """Inputs of an encoder to measure ranges on."""
        if part == "image_encoder":
            return [{"images": preprocess(image, self.source.rules)} for image in self.images]
        return [{"input_ids": ids[None]} for ids in tokens(self.source)]

    def write(self, format: str, precision: str, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """Write both encoders into `folder`, and return what stayed in higher precision and why."""
        writer = FORMATS.get(format)
        kept: list[str] = []
        for part in self.parts:
            job = ModuleJob(
                part.name,
                part.module,
                part.example,
                part.input,
                part.output,
                self.options,
                precision,
                folder / f"{part.name}{writer.suffix}",
                {**facts, "format": format, "precision": precision, "graph": part.name},
                self.work,
                partial(self.graph, part),
                partial(self.samples, part.name),
            )
            kept += writer.write_module(job)
        kept = list(dict.fromkeys(kept))
        return [*kept, _IN_FLOAT] if PRECISIONS.get(precision).calibrated else kept


_IN_FLOAT = "activations of CLIP: only its weights are INT8, which keeps the ranking of masks"


def add_variant(
    export: ClipExport, variant: dict[str, Any], stage: Path, data: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """Write CLIP for one of the bundle's variants, measure its parity, and return its manifest entry.

    Raises:
        ExportError: the conversion failed.
        ParityError: its features differ from the reference's by more than the gate allows.
    """
    name, format, precision = variant["id"], variant["format"], variant["precision"]
    folder = stage / "clip" / name
    folder.mkdir()
    kept = export.write(format, precision, folder, facts)
    entry = {
        "id": name,
        "files": file_entries(stage, folder),
        **{part: FORMATS.get(format).graph_entry(folder, part, stage) for part in PARTS},
        "higher_precision_ops": kept,
    }
    trial = {**data, "clip": {**data["clip"], "variants": [entry]}}
    reader = next(one for one in find_backends() if format in one.formats)
    exported = open_clip(
        Bundle(stage, Manifest(trial)),
        name,
        lambda found, part: reader.open(stage / found.graphs[part].path, "auto", None),
    )
    try:
        golden = read_clip_golden(stage / "clip/golden.npz")
        parity = run_clip_parity(exported, golden, export.images, precision).to_json()
        parity["device"] = exported.device
    finally:
        exported.close()
    if not parity["passed"]:
        raise ParityError(
            f"CLIP in {name} does not make the reference's features: the least cosine similarity is "
            f"{parity['min_text_cosine']:.4f} for texts and {parity['min_image_cosine']:.4f} for images, the "
            f"gate {parity['gate']}; leave {precision} out for {format}, or --clip; nothing was published"
        )
    return {**entry, "parity": parity}


def tokens(source: ClipSource) -> NDArray[np.int32]:
    """Token ids of `TEXTS`, (T, context_length) int32."""
    tokenizer = read_tokenizer(source.tokenizer, source.rules.context_length)
    ids = np.zeros((len(TEXTS), source.rules.context_length), np.int32)
    for row, text in zip(ids, TEXTS, strict=True):
        numbers = tokenizer.encode(text).ids
        row[: len(numbers)] = numbers
    return ids


@torch.inference_mode()
def _golden(source: ClipSource, golden: Golden) -> ClipGolden:
    """Compute the reference's features, with the published preprocessing by Pillow."""
    model, ids = source.loaded.model, tokens(source)
    images = torch.cat([_preprocess_as_published(image, source) for image in golden.images])
    return ClipGolden(
        ids, model.encode_text(torch.from_numpy(ids)).numpy(), model.encode_image(images).numpy()
    )


def _preprocess_as_published(image: NDArray[np.uint8], source: ClipSource) -> torch.Tensor:
    """Apply OpenAI's transform (Resize bicubic, CenterCrop, ToTensor, Normalize) -> (1, 3, S, S)."""
    side, (height, width) = source.rules.image_size, image.shape[:2]
    short = min(height, width)
    size = int(side * width / short), int(side * height / short)
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    cropped = np.array(resized.crop((left, top, left + side, top + side)), np.float32) / 255
    mean, std = torch.tensor(source.loaded.mean), torch.tensor(source.loaded.std)
    x = torch.from_numpy(cropped).permute(2, 0, 1)
    return ((x - mean[:, None, None]) / std[:, None, None])[None]
