"""checkpoint -> reference -> two graphs -> parity -> bundle: the whole export, in order."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sam_edge
from sam_edge.bundle.build import MaskRules, manifest_json
from sam_edge.bundle.bundle import Bundle
from sam_edge.bundle.golden import Golden, write_golden
from sam_edge.bundle.manifest import (
    CheckpointInfo,
    Manifest,
    ModelInfo,
    PromptRules,
    ResizedFrom,
    describe_resize_accuracy,
    model_facts,
    write_manifest,
)
from sam_edge.bundle.publish import staged
from sam_edge.bundle.variant import Variant
from sam_edge.errors import CheckpointError, ExportError, ParityError, SamEdgeError
from sam_edge.imaging.preprocess import InputRules
from sam_edge.models.catalogue import CATALOGUE, ENCODER_GMACS, HERE, Model
from sam_edge.runtime.loading import load_variant
from sam_edge.runtime.targets import HEXAGON
from sam_edge.system.files import sha256_file
from sam_edge.verify.parity import GATES, OVERFLOWN, run_parity

from .checkpoints.read import Loaded, build_reference, load_checkpoint
from .checkpoints.resize import resize, resized_from
from .clip.variants import ClipSource, ClipWorkshop, add_variant, describe_clip, read_clip
from .context import (
    Options,
    Workshop,
    check_converters,
    check_text_embeddings,
    describe,
    file_facts,
    write_variant,
)
from .contracts.segment_anything import check_contract
from .golden import at_median, make_golden
from .optimize.fuse import fuse
from .quantize.calibration import Calibration, packaged_calibration, read_calibration
from .quantize.search import Parity


class Progress:
    """What an export tells its caller; the default says nothing."""

    def begin(self, step: str) -> None:
        """A step starts."""

    def end(self, step: str, seconds: float, detail: str) -> None:
        """A step is done."""

    def warn(self, message: str) -> None:
        """Something the user should know of."""


@contextmanager
def _step(progress: Progress, name: str) -> Iterator[list[str]]:
    progress.begin(name)
    start = time.perf_counter()
    detail: list[str] = []
    yield detail
    progress.end(name, time.perf_counter() - start, ", ".join(detail))


def find_checkpoint(name: str, checkpoint: Path | None) -> Path:
    """The checkpoint given, or the embedded one of `name`.

    Raises:
        CheckpointError: the model's weights are not embedded and none were given.
    """
    if checkpoint is not None:
        return checkpoint
    entry = CATALOGUE[name].checkpoint
    if entry.source == "embedded":
        return HERE / entry.file
    how = f"fetch it with `sam-edge download {name}`" if entry.url else f"get it from {entry.source}"
    raise CheckpointError(
        f"{name} needs its checkpoint, {entry.file}; {how} and give it as --checkpoint FILE"
    )


def export_bundle(
    out: Path,
    checkpoint: Path,
    name: str | None = None,
    options: Options | None = None,
    calib: Path | None = None,
    progress: Progress | None = None,
    clip: Path | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """Export `checkpoint` to a bundle at `out`; returns the manifest.

    Args:
        out: the bundle's directory; an old bundle there is replaced at the end.
        checkpoint: .pth or .safetensors.
        name: insist on this model of the catalogue.
        options: formats, precisions and the rest; ONNX FP32 if not given.
        calib: a folder of pictures to calibrate INT8 with; the packaged photographs if not given.
        progress: told of each step.
        clip: a folder with a published CLIP, to find masks by a text.
        size: the side of the encoder's input in pixels, instead of the model's own.

    Raises:
        SamEdgeError, CheckpointError, OutputError, CalibrationError, BackendError: nothing was started.
        ExportError, ParityError: nothing was published.
    """
    progress, options = progress or Progress(), options or Options()
    check_converters(options)
    check_text_embeddings(options)
    with staged(out) as stage:
        with _step(progress, "read checkpoint") as detail:
            loaded = load_checkpoint(checkpoint, name)
            detail.append(f"{loaded.model.name}, {loaded.layout} layout")
            own = loaded
            if size is not None:
                loaded = resize(loaded, size)
            sam = build_reference(loaded)
        if options.compat:
            check_contract(loaded.model)
        source = None if clip is None else _read_clip(clip, progress)
        data = _describe(loaded, own.model, checkpoint)
        if options.text_embeddings:
            data["prompt"]["text_embeddings"] = True
        _warn_of_hexagon(options, progress)
        calibration = _calibration(options, calib, Manifest(data).input, progress)
        with _step(progress, "golden data from the reference") as detail:
            golden = make_golden(sam, loaded.model, progress.begin)
            write_golden(stage / "golden.npz", golden)
            detail.append(f"{len(golden.prompts)} prompts on {len(golden.images)} images")
            if at_median(golden, loaded.model):
                detail.append("untrained? masks are empty or full, so compared at the median logit")
        if loaded.model != own.model:
            with _step(progress, "masks at the model's own size") as detail:
                data["resized_from"] = resized_from(own, loaded, sam, progress.begin)
                detail.append(describe_resize_accuracy(ResizedFrom.from_json(data["resized_from"])))
        data["golden"] = file_facts(stage, stage / "golden.npz")
        data["variants"] = []
        work = stage / "work"
        work.mkdir()
        shop = Workshop(
            fuse(sam), loaded.model, options, model_facts(data), calibration, work, progress.begin
        )
        for one in options.variants():
            data["variants"].append(_variant(shop, one, stage, data, golden, progress))
        if source is not None:
            data["clip"] = _clip(source, options, stage, data, golden, work, progress)
        shutil.rmtree(work)
        write_manifest(stage, data)
    return data


def _warn_of_hexagon(options: Options, progress: Progress) -> None:
    if HEXAGON not in options.targets or not options.simulator:
        return
    from .targets.hexagon import can_compile

    if not can_compile():
        progress.warn(
            "Qualcomm's compiler is not here, so the Hexagon variants get no context binary and are compared "
            "on the CPU; pip install 'sam-edge[qnn]' on x86-64 Linux or Windows on Arm has it"
        )


def _calibration(options: Options, folder: Path | None, rules: InputRules, progress: Progress) -> Calibration:
    """The user's pictures, or the packaged ones with a warning where they shape INT8."""
    if folder is None:
        calibration = packaged_calibration(rules)
        if "int8" in options.precisions:
            progress.warn(
                f"INT8 is calibrated on the {len(calibration.images)} packaged pictures; give --calib DIR "
                "with some dozens like those the model will see"
            )
        return calibration
    calibration = read_calibration(folder, rules, progress.begin)
    if calibration.skipped:
        progress.warn(f"--calib {folder}: {calibration.skipped} files cannot be read as pictures, skipped")
    return calibration


def _variant(
    shop: Workshop,
    which: tuple[str, str, str | None],
    stage: Path,
    data: dict[str, Any],
    golden: Golden,
    progress: Progress,
) -> dict[str, Any]:
    """Write one variant, measure it, and return its entry in the manifest.

    Raises:
        ExportError: the conversion failed.
        ParityError: the variant is below its gate.
    """
    kind, precision, target = which
    options, name = shop.options, "-".join(part for part in which if part is not None)
    directory = stage / name
    directory.mkdir()
    bundle = Bundle(stage, Manifest(data))
    fixed = shop.model.prompt.num_points is not None
    gate = _gate(precision, target) if options.min_iou is None else options.min_iou

    def measure(device: str = "auto") -> Parity:
        # The staged files, through the runtime that users run.
        entry = {
            "id": name,
            "format": kind,
            "precision": precision,
            **describe(kind, directory, stage, options, target, fixed),
        }
        with load_variant(bundle, Variant.from_json(entry), device=device) as exported:
            report = run_parity(exported, golden, precision, gate).to_json()
            return {**report, "device": exported.device}

    # INT8's search aims half way from the gate to agreement, since other pictures will be worse; with a gate
    # of 0 nobody asks for masks, and there is nothing to search for.
    goal = (1 + gate) / 2 if gate else 0

    def enough(parity: Parity) -> bool:
        return bool(parity["passed"] and parity["mean_iou"] >= goal)

    with _step(progress, name) as detail:
        try:
            written = write_variant(shop, kind, precision, directory, measure, enough, target)
        except (SamEdgeError, OSError):
            raise
        except Exception as error:
            raise ExportError(f"exporting {name} failed: {' '.join(str(error).split())}") from error
        files = [file_facts(stage, path) for path in sorted(directory.rglob("*")) if path.is_file()]
        detail.append(f"{sum(file['bytes'] for file in files) / 1e6:.1f} MB")
        if written.remark:
            detail.append(written.remark)
    with _step(progress, f"{name} parity") as detail:
        # On the chip's simulator where it is here: its FP16 is not a CPU's.
        parity = measure("npu" if "context" in written.facts else "auto")
        detail.append(
            f"mean IoU {parity['mean_iou']:.5f}, min {parity['min_iou']:.5f}, "
            f"boundary {parity['boundary_iou']:.5f}"
        )
        if parity["device"] != "cpu":
            detail.append(f"on {parity['device']}")
    if max(parity["embedding_relative_error"], parity["max_score_difference"]) >= OVERFLOWN:
        raise ParityError(
            f"{name} overflows: its embeddings or scores hold infinities or NaN; leave {precision} out for "
            f"{kind}; nothing was published"
        )
    if not parity["passed"]:
        names = [op.partition(":")[0] for op in written.higher_precision_ops]
        kept = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise ParityError(
            f"{name} does not make the reference's masks: the best mean IoU reached is "
            f"{parity['mean_iou']:.4f}, minimum {parity['min_iou']:.4f}, boundary "
            f"{parity['boundary_iou']:.4f}; the gate is {parity['gate']['mean_iou']} and "
            f"{parity['gate']['min_iou']} (--min-iou changes it); kept in "
            f"higher precision: {kept or 'nothing'}; nothing was published"
        )
    return {
        "id": name,
        "format": kind,
        "precision": precision,
        "files": files,
        "higher_precision_ops": written.higher_precision_ops,
        "calibration_sha256": shop.calibration.sha256 if precision == "int8" else None,
        "parity": parity,
        **written.facts,
        **describe(kind, directory, stage, options, target, fixed),
    }


def _gate(precision: str, target: str | None) -> float:
    """The mean IoU that a variant must reach."""
    if target != HEXAGON:
        return GATES[precision][0]
    from .targets.hexagon import GATES as OF_HEXAGON

    return OF_HEXAGON[precision]


def _read_clip(folder: Path, progress: Progress) -> ClipSource:
    with _step(progress, "read CLIP") as detail:
        source = read_clip(folder)
        detail.append(f"{source.loaded.path.name}, {source.loaded.layout} layout")
    if source.loaded.remark:
        progress.warn(f"--clip {folder}: {source.loaded.remark}")
    return source


def _clip(
    source: ClipSource,
    options: Options,
    stage: Path,
    data: dict[str, Any],
    golden: Golden,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """The manifest's `clip`: CLIP for every variant of the bundle.

    Raises:
        ExportError: a conversion failed.
        ParityError: a variant's features are not the reference's.
    """
    with _step(progress, "CLIP's golden data"):
        described = describe_clip(source, stage, golden)
    shop = ClipWorkshop(source, options, golden.images, work, progress.begin)
    facts = {key: value for key, value in described.items() if key != "variants"}
    facts = {
        "schema_version": data["schema_version"],
        "sam_edge_version": data["sam_edge_version"],
        "clip": facts,
    }
    for variant in data["variants"]:
        name = variant["id"]
        with _step(progress, f"CLIP {name}") as detail:
            try:
                entry = add_variant(shop, variant, stage, {**data, "clip": described}, facts)
            except (SamEdgeError, OSError):
                raise
            except Exception as error:
                reason = " ".join(str(error).split())
                raise ExportError(f"exporting CLIP as {name} failed: {reason}") from error
            described["variants"].append(entry)
            parity = entry["parity"]
            detail.append(f"{sum(file['bytes'] for file in entry['files']) / 1e6:.1f} MB")
            detail.append(
                f"least cosine {parity['min_text_cosine']:.5f} texts, {parity['min_image_cosine']:.5f} images"
            )
    return described


def _encoder_gmacs(model: Model, own: Model) -> float | None:
    if model != own:
        from .macs import encoder_gmacs

        return encoder_gmacs(model)
    return ENCODER_GMACS.get(model.name)


def _describe(loaded: Loaded, own: Model, checkpoint: Path) -> dict[str, Any]:
    """Build the manifest without golden data and variants."""
    model: Model = loaded.model
    rules = model.preprocess
    source = CheckpointInfo(
        checkpoint.name, sha256_file(checkpoint), checkpoint.stat().st_size, loaded.layout
    )
    return manifest_json(
        sam_edge_version=sam_edge.__version__,
        model=ModelInfo(
            model.family,
            model.name,
            model.parameters,
            source,
            model.checkpoint.license,
            _encoder_gmacs(model, own),
        ),
        image_input=InputRules(
            (model.image_size, model.image_size),
            rules.resize,
            rules.antialias,
            rules.mean,
            rules.std,
            rules.pad_value,
        ),
        prompt=PromptRules(
            (model.coordinate_size, model.coordinate_size),
            model.prompt.padding_point,
            model.prompt.num_points,
            model.prompt.mask_prompt,
        ),
        mask=MaskRules(
            size=(4 * model.embedding_side, 4 * model.embedding_side),
            threshold=model.mask_threshold,
            count=model.mask_count,
            first_multimask=model.first_multimask,
            scores=model.scores,
            low_res_limit=model.low_res_limit,
            pred_iou_thresh=model.pred_iou_thresh,
            stability_score_thresh=model.stability_score_thresh,
        ),
    )
