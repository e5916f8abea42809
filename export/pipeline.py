"""The whole export, in order: checkpoint -> reference -> graphs -> parity -> bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import sam_edge
from sam_edge.axes import PRECISIONS
from sam_edge.bundle.build import MaskRules, manifest_json
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
from sam_edge.errors import CheckpointError, ExportError, SamEdgeError
from sam_edge.imaging.preprocess import InputRules
from sam_edge.models.catalogue import CATALOGUE, ENCODER_GMACS, HERE, Model
from sam_edge.system.files import sha256_file

from .architectures.model import SamModel
from .checkpoints.read import Loaded, build_reference, load_checkpoint
from .checkpoints.resize import resize, resized_from
from .clip.variants import ClipExport, ClipSource, add_variant, describe_clip, read_clip
from .context.entries import file_entry
from .context.export_context import ExportContext
from .formats import FORMATS
from .optimize.fuse import fuse
from .options import Options, check, check_models, plans
from .progress import Progress, step
from .quantize.calibration import Calibration, packaged_calibration, read_calibration
from .reference.golden import at_median, make_golden
from .targets import TARGETS
from .variant import VariantExport


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
    *,
    calib: Path | None = None,
    progress: Progress | None = None,
    clip: Path | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """Export `checkpoint` to a bundle at `out`; returns the manifest.

        >>> export_bundle(Path("bundle"), Path("mobile_sam.pt"), options=Options(formats=("onnx", "coreml")))

    Args:
        out: the bundle's directory; an old bundle there is replaced at the end.
        checkpoint: .pth or .safetensors.
        name: insist on this model of the catalogue.
        options: formats, precisions and the rest; ONNX FP32 if not given.
        calib: a folder of images to calibrate INT8 with; the packaged photographs if not given.
        progress: told of each step.
        clip: a folder with a published CLIP, to find masks by a text.
        size: the side of the encoder's input in pixels, instead of the model's own.

    Raises:
        SamEdgeError, CheckpointError, OutputError, CalibrationError, BackendError: nothing was started.
        ExportError, ParityError: nothing was published.
    """
    progress, options = progress or Progress(), options or Options()
    check(options, clip is not None)
    for format in options.formats:
        FORMATS.get(format).check_machine(options)
    with staged(out) as stage:
        own, loaded, sam = _read(checkpoint, name, size, progress)
        for check_model in check_models(options):
            check_model(loaded.model)
        source = None if clip is None else _read_clip(clip, progress)
        data = _describe(loaded, own.model, checkpoint)
        if options.text_embeddings:
            data["prompt"]["text_embeddings"] = True
        for target in options.targets:
            for warning in TARGETS.get(target).warnings(options):
                progress.warn(warning)
        calibration = _calibration(options, calib, Manifest(data).input, progress)
        golden = _golden(loaded, sam, stage, progress)
        if loaded.model != own.model:
            data["resized_from"] = _compare_sizes(own, loaded, sam, progress)
        data |= {"golden": file_entry(stage, stage / "golden.npz"), "variants": []}
        (work := stage / "work").mkdir()
        context = ExportContext(
            fuse(sam), loaded.model, options, model_facts(data), calibration, work, progress.begin
        )
        exports = [VariantExport(context, plan, stage, Manifest(data), golden) for plan in plans(options)]
        data["variants"] = [one.export(progress) for one in exports]
        if source is not None:
            data["clip"] = _clip(source, context, stage, data, golden, progress)
        shutil.rmtree(work)
        write_manifest(stage, data)
    return data


def _read(
    checkpoint: Path, name: str | None, size: int | None, progress: Progress
) -> tuple[Loaded, Loaded, SamModel]:
    """The checkpoint as it is, at the input size that was asked for, and the reference of the latter."""
    with step(progress, "read checkpoint") as detail:
        own = load_checkpoint(checkpoint, name)
        detail.append(f"{own.model.name}, {own.layout} layout")
        loaded = own if size is None else resize(own, size)
        return own, loaded, build_reference(loaded)


def _compare_sizes(own: Loaded, loaded: Loaded, sam: SamModel, progress: Progress) -> dict[str, Any]:
    """The manifest's `resized_from`: how far masks agree with those at the model's own size."""
    with step(progress, "masks at the model's own size") as detail:
        found = resized_from(own, loaded, sam, progress.begin)
        detail.append(describe_resize_accuracy(ResizedFrom.from_json(found)))
        return found


def _golden(loaded: Loaded, sam: SamModel, stage: Path, progress: Progress) -> Golden:
    with step(progress, "golden data from the reference") as detail:
        golden = make_golden(sam, loaded.model, progress.begin)
        write_golden(stage / "golden.npz", golden)
        detail.append(f"{len(golden.prompts)} prompts on {len(golden.images)} images")
        if at_median(golden, loaded.model):
            detail.append("untrained? masks are empty or full, so compared at the median logit")
    return golden


def _calibration(options: Options, folder: Path | None, rules: InputRules, progress: Progress) -> Calibration:
    """The user's images, or the packaged ones with a warning where they shape INT8."""
    if folder is None:
        calibration = packaged_calibration(rules)
        if any(PRECISIONS.get(one).calibrated for one in options.precisions):
            progress.warn(
                f"INT8 is calibrated on {len(calibration.images)} views of the packaged photographs, some of "
                "which parity is measured on; give --calib DIR with some dozens like those the model will see"
            )
        return calibration
    calibration = read_calibration(folder, rules, progress.begin)
    if calibration.skipped:
        progress.warn(f"--calib {folder}: {calibration.skipped} files cannot be read as images, skipped")
    return calibration


def _read_clip(folder: Path, progress: Progress) -> ClipSource:
    with step(progress, "read CLIP") as detail:
        source = read_clip(folder)
        detail.append(f"{source.loaded.path.name}, {source.loaded.layout} layout")
    if source.loaded.remark:
        progress.warn(f"--clip {folder}: {source.loaded.remark}")
    return source


def _clip(
    source: ClipSource,
    context: ExportContext,
    stage: Path,
    data: dict[str, Any],
    golden: Golden,
    progress: Progress,
) -> dict[str, Any]:
    """The manifest's `clip`: CLIP for every variant of the bundle.

    Raises:
        ExportError: a conversion failed.
        ParityError: a variant's features are not the reference's.
    """
    with step(progress, "CLIP's golden data"):
        described = describe_clip(source, stage, golden)
    export = ClipExport(source, context.options, golden.images, context.work, progress.begin)
    facts = {key: value for key, value in described.items() if key != "variants"}
    facts = {
        "schema_version": data["schema_version"],
        "sam_edge_version": data["sam_edge_version"],
        "clip": facts,
    }
    for variant in data["variants"]:
        name = variant["id"]
        with step(progress, f"CLIP {name}") as detail:
            try:
                entry = add_variant(export, variant, stage, {**data, "clip": described}, facts)
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
