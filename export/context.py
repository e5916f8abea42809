"""One variant of a bundle each: a format in a precision, written into its directory.

The FP32 ONNX graphs are written once and are the source of the other ONNX files and of OpenVINO's, so
that an operator has one name in both. INT8 starts from the rewritten reference (`rewrites.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sam_edge.backends import get_backend
from sam_edge.backends.onnxruntime.providers import SIMULATED_QNN
from sam_edge.bundle.manifest import STAGES
from sam_edge.errors import BackendError, SamEdgeError
from sam_edge.models.catalogue import Model
from sam_edge.runtime.prompts import ABSENT
from sam_edge.runtime.targets import HEXAGON, WEB
from sam_edge.system.files import sha256_file

from .architectures.lowering import has_cpu_lowering, lower
from .architectures.mask_decoder_cpu import has_stages
from .architectures.model import SamModel
from .formats import onnx
from .optimize.tiling import TILE_MB
from .quantize.arithmetic import ActivationStats
from .quantize.calibration import Calibration
from .quantize.search import Parity, search_nodes_to_exclude

FORMATS = ("onnx", "openvino", "coreml")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Formats whose runtime computes in BF16 when told to.
WITH_BF16 = ("openvino",)
# What --target names: CPUs on which 8-bit weights do not overflow (VNNI, AMX, Arm's dot product), or any; and
# Qualcomm's NPU and browsers, which have variants of their own.
CPUS = ("any", "vnni")
TARGETS = (*CPUS, HEXAGON, WEB)
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "coreml": ".mlpackage"}
_TOOLS = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy"),
    "openvino": ("torch", "onnx", "onnxsim", "openvino", "numpy"),
    "coreml": ("torch", "coremltools", "numpy"),
}
_PACKAGE_OF_COMPILER = "onnxruntime-qnn"
# The share of the weights that INT8 may leave in float for masks better than its gate asks for. To reach
# the gate itself, half of the products may stay.
LIGHT = 0.02


@dataclass(frozen=True)
class Options:
    """What an export is asked for.

    Attributes:
        formats: of `FORMATS`.
        precisions: of `PRECISIONS`.
        min_iou: replaces every precision's gate on the mean IoU.
        targets: of `TARGETS`: for which CPUs INT8 weights are made, and "hexagon" and "web" for that NPU's
            and for browsers' variants, alone or beside the others.
        dynamic: OpenVINO decoders with prompt and point counts as dynamic axes.
        ios: the oldest iOS of Core ML packages.
        w8a8: Core ML's INT8 with activations in INT8 too.
        compat: also write the published decoder contract, in ONNX.
        text_embeddings: decoders take text embeddings as tokens of a prompt.
        simulator: Hexagon: compile for the chip and compare in its simulator where they are here.
        chunk_mb: how large the scores of attention (ONNX), and tensors between convolutions, may be at a
            time, in megabytes.
    """

    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("fp32",)
    min_iou: float | None = None
    targets: tuple[str, ...] = ("any",)
    dynamic: bool = False
    ios: int = 17
    w8a8: bool = False
    compat: str | None = None
    text_embeddings: bool = False
    simulator: bool = True
    chunk_mb: float = TILE_MB

    def variants(self) -> list[tuple[str, str, str | None]]:
        """Format, precision and target of each variant; the target is None of those for whatever device."""
        found: list[tuple[str, str, str | None]] = []
        if set(self.targets) & set(CPUS):
            found += [
                (kind, precision, None)
                for kind in self.formats
                for precision in self.precisions
                if precision != "bf16" or kind in WITH_BF16
            ]
        for target, precisions in PRECISIONS_OF.items():
            if target in self.targets:
                found += [("onnx", one, target) for one in self.precisions if one in precisions]
        return found


# Of the targets with variants of their own. The NPU has no FP32; in browsers FP16 is for WebGPU, which likes
# the graphs of CPUs.
PRECISIONS_OF = {HEXAGON: ("fp16", "int8"), WEB: ("fp32", "int8")}


@dataclass(frozen=True)
class Written:
    """What a variant's writer has to say of it: the operators kept in higher precision, and why; and facts
    for the manifest that other variants do not have."""

    higher_precision_ops: list[str]
    remark: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Workshop:
    """What the writers of one export share; each thing is made when it is first asked for.

    `work` is a directory for intermediate files; `kept` the products that INT8 left in float in the variant
    before that came from the same encoder.
    """

    sam: SamModel
    model: Model
    options: Options
    facts: dict[str, Any]
    calibration: Calibration
    work: Path
    progress: Callable[[str], None]
    kept: dict[Path, list[str]] = field(default_factory=dict)
    rankings: dict[Path, list[str]] = field(default_factory=dict)
    observations: dict[Path, dict[str, ActivationStats]] = field(default_factory=dict)

    @property
    def _is_large(self) -> bool:
        """Whether the encoder takes seconds for a picture."""
        return self.model.parameters > 50_000_000

    @cached_property
    def encoder(self) -> Path:
        """FP32 encoder.onnx in the form for CPUs."""
        return self._traced("encoder.onnx", onnx.write_encoder, self.in_cpu_form)

    @cached_property
    def openvino_encoder(self) -> Path:
        """FP32 encoder.onnx in the form for OpenVINO."""
        if not has_cpu_lowering(self.sam):
            return self.encoder
        form = lower(self.sam, "openvino", self.options.chunk_mb)
        return self._traced("openvino-encoder.onnx", onnx.write_encoder, form)

    @cached_property
    def decoder_parts(self) -> dict[str, Path]:
        """FP32 files of the reference in the form for CPUs: "decoder" and, where scores come before masks,
        the `STAGES` of it."""
        stages = has_stages(self.in_cpu_form)
        write = partial(onnx.write_decoder, texts=self.options.text_embeddings, stages=stages)
        whole = self._traced("decoder.onnx", write, self.in_cpu_form)
        if not stages:
            return {"decoder": whole}
        parts = {part: self.work / f"{part}.onnx" for part in ("decoder", *STAGES)}
        onnx.write_part(whole, parts["scorer"], onnx.SCORER_OUTPUTS)
        onnx.write_part(whole, parts["upscaler"], onnx.UPSCALER_OUTPUTS, onnx.STAGE_VALUES)
        onnx.write_part(whole, whole, onnx.DECODER_OUTPUTS)
        return parts

    @cached_property
    def web_decoder_parts(self) -> dict[str, Path]:
        """`decoder_parts` whose upscaler takes any number of lines of image tokens."""
        parts = self.decoder_parts
        if "upscaler" not in parts:
            return parts
        return parts | {"upscaler": self._traced("line-upscaler.onnx", onnx.write_upscaler, self.in_cpu_form)}

    @cached_property
    def in_cpu_form(self) -> SamModel:
        """The reference as a function, with less to compute."""
        return lower(self.sam, "onnxruntime", self.options.chunk_mb)

    @cached_property
    def rewritten(self) -> SamModel:
        """The reference as a function, with weights that are kinder to INT8."""
        from .quantize.equalization import rewrite

        self.progress("exact rewrites")
        return rewrite(self.sam, self.calibration.images[: 4 if self._is_large else None])[0]

    @cached_property
    def rewritten_encoder(self) -> Path:
        """`encoder` of `rewritten`: the same operators under the same names."""
        rewritten = lower(self.rewritten, "onnxruntime", self.options.chunk_mb)
        return self._traced("rewritten.onnx", onnx.write_encoder, rewritten)

    @cached_property
    def rewritten_plain_encoder(self) -> Path:
        """FP32 encoder.onnx of `rewritten` as it is: OpenVINO fuses attention by itself, and in INT8 tensors
        are small."""
        if not has_cpu_lowering(self.sam):
            return self.rewritten_encoder
        return self._traced("plain-rewritten.onnx", onnx.write_encoder, self.rewritten)

    @cached_property
    def hexagon_encoder(self) -> Path:
        """FP32 encoder of the reference as the Hexagon NPU wants it."""
        from .targets.hexagon import write_encoder

        return self._traced("hexagon-encoder.onnx", write_encoder, self.sam)

    @cached_property
    def hexagon_rewritten_encoder(self) -> Path:
        """`hexagon_encoder` of `rewritten`."""
        from .targets.hexagon import write_encoder

        return self._traced("hexagon-rewritten.onnx", write_encoder, self.rewritten)

    @cached_property
    def hexagon_decoder(self) -> Path:
        """FP32 decoder of the reference as the Hexagon NPU wants it."""
        from .targets.hexagon import write_decoder

        return self._traced("hexagon-decoder.onnx", write_decoder, self.sam)

    def ranking(self, encoder: Path) -> list[str]:
        """The products of an FP32 encoder, the one that suffers most from INT8 first."""
        from .quantize.sensitivity import rank_by_sensitivity

        if encoder not in self.rankings:
            # Two pictures rank as well as all of them; one where each takes seconds.
            few = self.calibration.images[: 1 if self._is_large else 2]
            self.rankings[encoder] = rank_by_sensitivity(
                encoder, self.work, few, self.observed(encoder), self.progress
            )
        return self.rankings[encoder]

    def observed(self, encoder: Path) -> dict[str, ActivationStats]:
        """What the products of an FP32 encoder read on the calibration pictures."""
        from .quantize import onnx_int8 as int8

        if encoder not in self.observations:
            self.progress(f"ranges of {encoder.name}")
            self.observations[encoder] = int8.encoder_stats(encoder, self.calibration.images)
        return self.observations[encoder]

    def _traced(self, name: str, write: Callable[[SamModel, Model, Path], None], sam: SamModel) -> Path:
        self.progress(f"tracing {name}")
        path = self.work / name
        write(sam, self.model, path)
        return path

    def decoder_inputs(self) -> Iterator[dict[str, Any]]:
        """A click and a box on some calibration pictures, as the decoder takes them."""
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

    def part_inputs(self, part: str) -> Iterator[dict[str, Any]]:
        """Calibration inputs of the encoder, or of one of `decoder_parts`."""
        if part == "encoder":
            yield from ({"images": image} for image in self.calibration.images[:4])
        elif part == "upscaler":
            scorer = get_backend("onnxruntime").open(self.decoder_parts["scorer"], "cpu", None)
            for inputs in self.decoder_inputs():
                found = scorer.run(inputs)
                yield {name: found[name] for name in onnx.STAGE_VALUES}
            scorer.close()
        else:
            yield from self.decoder_inputs()


Measure = Callable[[], Parity]
Enough = Callable[[Parity], bool]


def write_variant(
    shop: Workshop,
    kind: str,
    precision: str,
    directory: Path,
    measure: Measure,
    enough: Enough,
    target: str | None = None,
) -> Written:
    """Write the encoder and decoder of one variant into `directory`.

    Args:
        shop: what the writers share.
        kind: the format, of `FORMATS`.
        precision: of `PRECISIONS`.
        directory: exists and is empty.
        measure: the parity of what is in `directory` now.
        enough: whether INT8's search for operators to keep in float may stop.
        target: "hexagon", "web" or None.
    """
    facts = {**shop.facts, "format": kind, "precision": precision}
    encoder, decoder = (directory / f"{part}{SUFFIX[kind]}" for part in ("encoder", "decoder"))
    write = {"onnx": _onnx, "openvino": _openvino, "coreml": _coreml}[kind]
    if target == HEXAGON:
        write, facts = _hexagon, {**facts, "target": target}
    elif target == WEB:
        write, facts = partial(_onnx, for_web=True), {**facts, "target": target}
    return write(
        shop,
        precision,
        encoder,
        decoder,
        facts,
        lambda source, quantise: _search(shop, source, quantise, measure, enough),
    )


Quantise = Callable[[Sequence[str]], None]
Search = Callable[[Path, Quantise], tuple[list[str], str]]


def _search(
    shop: Workshop, source: Path, quantise: Quantise, measure: Measure, enough: Enough
) -> tuple[list[str], str]:
    """Quantise the FP32 encoder `source`, as little in float as is enough; the names kept, and a remark."""

    def tried(kept: Sequence[str]) -> Parity:
        quantise(kept)
        parity = measure()
        shop.progress(f"INT8 with {len(kept)} products in float: mean IoU {parity['mean_iou']:.4f}")
        return parity

    kept = shop.kept.get(source, [])
    first = tried(kept)
    if enough(first):
        return kept, f"{len(kept)} products in float"
    from .quantize.sensitivity import limit_to_weight_share

    ranking = shop.ranking(source)
    light = limit_to_weight_share(source, ranking, LIGHT)
    found, best, _ = search_nodes_to_exclude(light, max(1, len(kept)), tried, enough)
    if not best["passed"]:
        heavy = ranking[: len(ranking) // 2]
        found, _, _ = search_nodes_to_exclude(heavy, 1, tried, lambda parity: bool(parity["passed"]))
    quantise(found)
    shop.kept[source] = found
    return found, f"{len(found)} products in float (mean IoU {first['mean_iou']:.4f} with {len(kept)})"


def _because(names: Sequence[str]) -> list[str]:
    return [f"{name}: INT8 here costs the most IoU" for name in names]


def _onnx(
    shop: Workshop,
    precision: str,
    encoder: Path,
    decoder: Path,
    facts: dict[str, Any],
    search: Search,
    for_web: bool = False,
) -> Written:
    facts = {**facts, "opset": onnx.OPSET}
    kept: list[str] = []
    remark = ""
    parts = shop.web_decoder_parts if for_web else shop.decoder_parts
    made = {"encoder": encoder} | {part: encoder.with_name(f"{part}.onnx") for part in parts}
    sources = made
    if precision == "fp32":
        sources = {"encoder": shop.encoder, **parts}
    elif precision == "fp16":
        from .quantize import fp16

        sources = {part: shop.work / f"fp16-{part}.onnx" for part in made}
        for part, exact in {"encoder": shop.encoder, **parts}.items():
            islands = fp16.convert(exact, sources[part], shop.part_inputs(part))
            if part not in STAGES:
                kept += [f"{part} {name}: FP32, as FP16 would overflow or lose digits" for name in islands]
    else:
        from .quantize import onnx_int8 as int8

        source, full = shop.rewritten_encoder, "vnni" in shop.options.targets
        observed = shop.observed(source)
        int8.compress_decoder(parts["decoder"], decoder)
        left, remark = search(
            source, lambda names: int8.quantize_encoder(source, encoder, observed, names, full)
        )
        kept = [
            *_because(left),
            "encoder, convolutions: activations in float, which take no longer in ONNX Runtime",
            "decoder: activations in float, masks are drawn from them",
        ]
        for part in made.keys() & set(STAGES):
            int8.compress_decoder(parts[part], made[part])
    if for_web:
        from .targets.web import write_for_web

        for part, path in sources.items():
            write_for_web(path, shop.work / f"web-{part}.onnx")
        sources = {part: shop.work / f"web-{part}.onnx" for part in made}
    for part, path in made.items():
        onnx.stamp(sources[part], path, {**facts, "graph": part}, decoder if part in STAGES else None)
    if shop.options.compat:
        from .contracts.segment_anything import write_published_decoder

        write_published_decoder(decoder, decoder.with_stem("decoder-segment-anything"), shop.model)
    return Written(kept, remark)


def _hexagon(
    shop: Workshop, precision: str, encoder: Path, decoder: Path, facts: dict[str, Any], search: Search
) -> Written:
    from .targets import hexagon

    facts = {**facts, "opset": onnx.OPSET}
    kept: list[str] = []
    remark = ""
    if precision == "fp16":
        hexagon.to_fp16(shop.hexagon_encoder, encoder)
        hexagon.to_fp16(shop.hexagon_decoder, decoder)
    else:
        images, source = shop.calibration.images, shop.hexagon_rewritten_encoder
        prompts = hexagon.decoder_inputs(shop.sam, shop.model, images[:8])
        points = hexagon.to_int8(shop.hexagon_decoder, decoder, prompts)

        def quantise(names: Sequence[str]) -> None:
            hexagon.to_int8(source, encoder, [{"images": image} for image in images], names)

        left, remark = search(source, quantise)
        kept = ["activations: 16 bits", *_because(left)]
        kept.append(f"decoder, {len(points)} nodes before the first attention: FP16, as points need digits")
    for path, part in ((encoder, "encoder"), (decoder, "decoder")):
        onnx.stamp(path, path, {**facts, "graph": part})
    if not (shop.options.simulator and hexagon.can_compile()):
        return Written(kept, remark)
    shop.progress("Qualcomm's compiler")
    compiled = {}
    for path, part in ((encoder, "encoder"), (decoder, "decoder")):
        context = path.with_name(f"{part}.context.onnx")
        hexagon.write_context(path, context)
        compiled[part] = f"{path.parent.name}/{context.name}"
    tool = f"{_PACKAGE_OF_COMPILER} {version(_PACKAGE_OF_COMPILER)}"
    return Written(kept, remark, {"context": {**compiled, **SIMULATED_QNN, "tool": tool}})


def _openvino(
    shop: Workshop, precision: str, encoder: Path, decoder: Path, facts: dict[str, Any], search: Search
) -> Written:
    from .formats import openvino

    static = not shop.options.dynamic
    encoder_facts = {**facts, "graph": "encoder"}
    kept = []
    if precision != "int8":
        kept += openvino.write(shop.openvino_encoder, encoder, encoder_facts, precision, static)
    if precision == "bf16":
        precision = "fp16"
        facts = {**facts, "precision": precision}
        kept.append("decoder: as in fp16, masks are drawn from its digits")
    for part, exact in shop.decoder_parts.items():
        path, part_facts = encoder.with_name(f"{part}.xml"), {**facts, "graph": part}
        # Stages are for many prompts.
        fixed = static and part not in STAGES
        if precision == "int8":
            kept += openvino.write_decoder_int8(exact, path, part_facts, fixed)
        else:
            kept += openvino.write(exact, path, part_facts, precision, fixed)
        if part in STAGES:
            openvino.share_weights(path, decoder)
    kept = list(dict.fromkeys(kept))
    if precision != "int8":
        return Written(kept)
    source, full = shop.rewritten_plain_encoder, "vnni" in shop.options.targets
    observed = shop.observed(source)
    kept += ["attention scores, softmax and values", "LayerNorm", "GELU"]

    def quantise(names: Sequence[str]) -> None:
        openvino.write_encoder_int8(source, encoder, encoder_facts, observed, names, full)

    left, remark = search(source, quantise)
    return Written([*_because(left), *kept], remark)


def _coreml(
    shop: Workshop, precision: str, encoder: Path, decoder: Path, facts: dict[str, Any], search: Search
) -> Written:
    from .formats import coreml

    ios = shop.options.ios
    encoder_facts, decoder_facts = ({**facts, "graph": part} for part in ("encoder", "decoder"))
    sam, model = shop.sam, shop.model
    if precision == "int8":
        sam = shop.rewritten
    if precision == "int8" and shop.options.w8a8:
        images = shop.calibration.images
        kept = coreml.write_encoder_w8a8(sam, model, encoder, encoder_facts, ios, images)
    else:
        kept = coreml.write_encoder(sam, model, encoder, encoder_facts, precision, ios)
    return Written(kept + coreml.write_decoder(sam, model, decoder, decoder_facts, precision, ios))


def check_converters(options: Options) -> None:
    """Raise `BackendError` unless what `options` asks for can be converted with what is installed."""
    needed = [("openvino", "openvino"), ("coreml", "coremltools")]
    needed = [(f"--format {kind}", package) for kind, package in needed if kind in options.formats]
    for what, package in needed:
        if find_spec(package) is None:
            raise BackendError(
                f"{what} needs {package}, which is not installed; pip install 'sam-edge[export]'"
            )
    if "bf16" in options.precisions:
        from sam_edge.backends.openvino import NO_BF16, has_bf16

        if not has_bf16():
            raise BackendError(
                f"--precision bf16 is proven by computing in it, and {NO_BF16}; leave bf16 out of --precision"
            )


def check_text_embeddings(options: Options) -> None:
    """Raise `SamEdgeError` for a format, or another option, that has no decoder with text embeddings."""
    if not options.text_embeddings:
        return
    if "coreml" in options.formats:
        raise SamEdgeError("--text-embeddings has no Core ML form; leave coreml out of --format")
    if "openvino" in options.formats and not options.dynamic:
        raise SamEdgeError(
            "--text-embeddings needs --dynamic for OpenVINO: its decoders take a fixed number of tokens else"
        )
    if options.compat:
        raise SamEdgeError(f"--compat {options.compat} has no text embeddings; leave one of the two out")
    if HEXAGON in options.targets:
        raise SamEdgeError(f"--text-embeddings has no form for {HEXAGON}; leave one of the two out")


def file_facts(root: Path, path: Path) -> dict[str, Any]:
    """A file of the bundle at `root`, as manifests list it."""
    return {
        "path": path.relative_to(root).as_posix(),
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
    }


def graph_facts(kind: str, directory: Path, part: str, root: Path) -> dict[str, Any]:
    """A written graph's path within `root`, its inputs and its outputs."""
    module = importlib.import_module(f".formats.{kind}", __package__)
    path = directory / f"{part}{SUFFIX[kind]}"
    inputs, outputs = module.tensors(path)
    return {"path": path.relative_to(root).as_posix(), "inputs": inputs, "outputs": outputs}


def describe(
    kind: str, directory: Path, root: Path, options: Options, target: str | None = None, fixed: bool = False
) -> dict[str, Any]:
    """The facts of a written variant that follow from its format, target and files; `fixed` says whether the
    model itself takes a fixed number of points."""
    special: dict[str, Any] = {} if target is None else {"target": target}
    if target == HEXAGON and not fixed:
        special["absent_label"] = ABSENT
    return {
        **special,
        "opset": onnx.OPSET if kind == "onnx" else None,
        "deployment_target": f"iOS{options.ios}" if kind == "coreml" else None,
        "encoder": graph_facts(kind, directory, "encoder", root),
        "decoder": graph_facts(kind, directory, "decoder", root),
        **{
            part: graph_facts(kind, directory, part, root)
            for part in STAGES
            if (directory / f"{part}{SUFFIX[kind]}").exists()
        },
        "tools": {tool: version(tool) for tool in _TOOLS[kind]},
    }
