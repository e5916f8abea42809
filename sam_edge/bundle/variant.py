"""The entries of a manifest as values: variants, their graphs, tensors, files and measured parity.

Each reads its JSON with `from_json` and writes it with `to_json`; `manifest.schema.json` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# The graphs of a variant, and of a bundle's CLIP, by their keys in the manifest.
STAGES = ("scorer", "upscaler")
GRAPHS = ("encoder", "decoder", *STAGES)
CLIP_GRAPHS = ("text_encoder", "image_encoder")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class File:
    """A file of the bundle: its path inside the bundle, SHA-256 (hexadecimal) and size in bytes."""

    path: str
    sha256: str
    bytes: int

    @classmethod
    def from_json(cls, data: Json) -> File:
        """Read a manifest's `file`."""
        return cls(data["path"], data["sha256"], int(data["bytes"]))

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {"path": self.path, "sha256": self.sha256, "bytes": self.bytes}


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        name: as the graph has it.
        dtype: NumPy's name of the type, such as "float32".
        shape: an integer for each fixed axis, a name such as "num_prompts" for each axis of any length.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @classmethod
    def from_json(cls, data: Json) -> Tensor:
        """Read a manifest's `tensor`."""
        return cls(data["name"], data["dtype"], tuple(data["shape"]))

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Graph:
    """A graph that a backend opens: its path inside the bundle (a file or a folder), inputs and outputs."""

    path: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def input(self, name: str) -> Tensor | None:
        """The input of that name; None if the graph has no such input."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def output(self, name: str) -> Tensor | None:
        """The output of that name; None if the graph has no such output."""
        return next((tensor for tensor in self.outputs if tensor.name == name), None)

    @classmethod
    def from_json(cls, data: Json) -> Graph:
        """Read a manifest's `graph`."""
        inputs, outputs = (tuple(map(Tensor.from_json, data[side])) for side in ("inputs", "outputs"))
        return cls(data["path"], inputs, outputs)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        inputs, outputs = ([tensor.to_json() for tensor in side] for side in (self.inputs, self.outputs))
        return {"path": self.path, "inputs": inputs, "outputs": outputs}


@dataclass(frozen=True)
class Context:
    """Graphs compiled ahead of time for a chip, one EPContext node each.

    Attributes:
        encoder, decoder: paths inside the bundle.
        soc_model, htp_arch: the chip, as its compiler names it.
        tool: the compiler and its version.
    """

    encoder: str
    decoder: str
    soc_model: str
    htp_arch: str
    tool: str

    @classmethod
    def from_json(cls, data: Json) -> Context:
        """Read a manifest's `context`."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return asdict(self)


@dataclass(frozen=True)
class ParityReport:
    """How far a variant's masks agree with the PyTorch reference's, on the golden data.

    Attributes:
        mean_iou, p5_iou, min_iou: mean, 5th percentile and minimum over prompts of the IoU with the mask that
            the reference picks.
        boundary_iou: mean boundary IoU (Cheng et al. 2021) of the same masks.
        all_masks_mean_iou, all_masks_min_iou: over all masks of the decoder.
        max_score_difference: largest difference of a predicted IoU.
        embedding_relative_error: largest relative L2 error of an embedding.
        num_prompts: how many prompts were compared.
        gate: the `mean_iou` and `min_iou` that are required.
        passed: whether they were reached.
        device: where the variant ran; None if not recorded.
    """

    mean_iou: float
    p5_iou: float
    min_iou: float
    boundary_iou: float
    all_masks_mean_iou: float
    all_masks_min_iou: float
    max_score_difference: float
    embedding_relative_error: float
    num_prompts: int
    gate: dict[str, float]
    passed: bool
    device: str | None = None

    @classmethod
    def from_json(cls, data: Json) -> ParityReport:
        """Read a manifest's `parity`."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ClipParityReport:
    """How far a CLIP's features agree with the PyTorch reference's, on the golden data.

    Attributes:
        min_text_cosine, min_image_cosine: smallest cosine similarity of a feature with the reference's.
        max_score_difference: largest difference of a text's similarity to an image.
        num_texts, num_images: how many were compared.
        gate: the cosine similarity that is required.
        passed: whether it was reached.
        device: where CLIP ran; None if not recorded.
    """

    min_text_cosine: float
    min_image_cosine: float
    max_score_difference: float
    num_texts: int
    num_images: int
    gate: float
    passed: bool
    device: str | None = None

    @classmethod
    def from_json(cls, data: Json) -> ClipParityReport:
        """Read a manifest's `clip_parity`."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Variant:
    """One export of the model: a format and a precision, and what machine it was made for.

    Attributes:
        id: such as "onnx-int8".
        format: such as "onnx".
        precision: such as "int8".
        encoder: image to embeddings.
        decoder: embeddings and prompts to low-resolution masks and scores.
        scorer: the part of the decoder that makes scores, without masks; None where the decoder is whole.
        upscaler: the part of the decoder that makes masks of the scorer's outputs; None as `scorer`.
        files: every file of the variant.
        opset: the ONNX opset; None for other formats.
        deployment_target: the oldest system that runs it; None for other formats than Core ML.
        higher_precision_ops: what stayed in a higher precision, and why.
        calibration_sha256: of the calibration images; None where none were used.
        tools: version of each converter by name.
        parity: as measured by the export; None while it is not measured yet.
        instruction_set: the CPU instructions that the graphs were made for, such as "vnni"; None for any CPU.
        accelerator: the chip that the graphs were made for, such as "hexagon"; None for any device.
        browser: "web" where the graphs were made for browsers, else None.
        requires: what a CPU must have to give these masks, such as "x86: avx512_vnni or avx_vnni"; see
            `sam_edge.axes.Requirement`.
        absent_label: the label of points that fill up a decoder with a fixed number of points; None where
            there is none.
        context: graphs compiled ahead of time; None where there are none.
    """

    id: str
    format: str
    precision: str
    encoder: Graph
    decoder: Graph
    scorer: Graph | None = None
    upscaler: Graph | None = None
    files: tuple[File, ...] = ()
    opset: int | None = None
    deployment_target: str | None = None
    higher_precision_ops: tuple[str, ...] = ()
    calibration_sha256: str | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    parity: ParityReport | None = None
    instruction_set: str | None = None
    accelerator: str | None = None
    browser: str | None = None
    requires: tuple[str, ...] = ()
    absent_label: int | None = None
    context: Context | None = None

    @property
    def graphs(self) -> dict[str, Graph]:
        """Its graphs by name: "encoder" and "decoder", and "scorer" and "upscaler" where it has both."""
        found = {name: getattr(self, name) for name in GRAPHS}
        return {name: graph for name, graph in found.items() if graph is not None}

    @property
    def target(self) -> str | None:
        """The accelerator or browser that it was made for; None for one of the ordinary variants."""
        return self.accelerator or self.browser

    @property
    def bytes(self) -> int:
        """Size of all its files together."""
        return sum(file.bytes for file in self.files)

    @classmethod
    def from_json(cls, data: Json) -> Variant:
        """Read a manifest's `variant`; what an unfinished export has not written yet may be missing."""
        graphs = {name: Graph.from_json(data[name]) for name in GRAPHS if name in data}
        return cls(
            id=data["id"],
            format=data["format"],
            precision=data["precision"],
            **graphs,
            files=tuple(map(File.from_json, data.get("files", ()))),
            opset=data.get("opset"),
            deployment_target=data.get("deployment_target"),
            higher_precision_ops=tuple(data.get("higher_precision_ops", ())),
            calibration_sha256=data.get("calibration_sha256"),
            tools=dict(data.get("tools", {})),
            parity=ParityReport.from_json(data["parity"]) if "parity" in data else None,
            instruction_set=data.get("instruction_set"),
            accelerator=data.get("accelerator"),
            browser=data.get("browser"),
            requires=tuple(data.get("requires", ())),
            absent_label=data.get("absent_label"),
            context=Context.from_json(data["context"]) if "context" in data else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        optional: dict[str, Any] = {
            "parity": None if self.parity is None else self.parity.to_json(),
            "instruction_set": self.instruction_set,
            "accelerator": self.accelerator,
            "browser": self.browser,
            "requires": list(self.requires) or None,
            "absent_label": self.absent_label,
            "context": None if self.context is None else self.context.to_json(),
        }
        return {
            "id": self.id,
            "format": self.format,
            "precision": self.precision,
            "opset": self.opset,
            "deployment_target": self.deployment_target,
            "files": [file.to_json() for file in self.files],
            **{name: graph.to_json() for name, graph in self.graphs.items()},
            "higher_precision_ops": list(self.higher_precision_ops),
            "calibration_sha256": self.calibration_sha256,
            "tools": dict(self.tools),
            **{name: value for name, value in optional.items() if value is not None},
        }


@dataclass(frozen=True)
class ClipVariant:
    """CLIP's graphs for one variant of the bundle.

    Attributes:
        id: that variant's.
        text_encoder: token numbers to features.
        image_encoder: images to features.
        files: every file of these graphs.
        higher_precision_ops: what stayed in a higher precision, and why.
        parity: as measured by the export; None while it is not measured yet.
    """

    id: str
    text_encoder: Graph
    image_encoder: Graph
    files: tuple[File, ...] = ()
    higher_precision_ops: tuple[str, ...] = ()
    parity: ClipParityReport | None = None

    @property
    def graphs(self) -> dict[str, Graph]:
        """Both graphs by name."""
        return {"text_encoder": self.text_encoder, "image_encoder": self.image_encoder}

    @property
    def bytes(self) -> int:
        """Size of all its files together."""
        return sum(file.bytes for file in self.files)

    @classmethod
    def from_json(cls, data: Json) -> ClipVariant:
        """Read a manifest's `clip_variant`; what an unfinished export has not written yet may be missing."""
        return cls(
            id=data["id"],
            text_encoder=Graph.from_json(data["text_encoder"]),
            image_encoder=Graph.from_json(data["image_encoder"]),
            files=tuple(map(File.from_json, data.get("files", ()))),
            higher_precision_ops=tuple(data.get("higher_precision_ops", ())),
            parity=ClipParityReport.from_json(data["parity"]) if "parity" in data else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {
            "id": self.id,
            "files": [file.to_json() for file in self.files],
            **{name: graph.to_json() for name, graph in self.graphs.items()},
            "higher_precision_ops": list(self.higher_precision_ops),
            **({} if self.parity is None else {"parity": self.parity.to_json()}),
        }
