"""Finds the peers that can run the model of a bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sam_edge.bundle.bundle import Bundle
from sam_edge.errors import BackendError, BundleError, CheckpointError, ExportError
from sam_edge.models.catalogue import CATALOGUE, DEFAULT_MODEL, HERE
from sam_edge.system.files import sha256_file
from tools.peers.environments import ENVIRONMENTS, torchvision_parts
from tools.peers.session import Peer

REFERENCE = "segment_anything"
# The model types of samexporter, by catalogue name.
_SAMEXPORTER_TYPES = {"vit_b": "vit_b", "vit_l": "vit_l", "vit_h": "vit_h", "mobile_sam": "mobile"}
# id -> encoder, decoder, and whether its decoder gives three masks.
_SAMEXPORTER = {
    "samexporter": ("encoder.onnx", "decoder.onnx", True),
    "samexporter-one-mask": ("encoder.onnx", "decoder.single.onnx", False),
    "samexporter-quantized": ("encoder.quant.onnx", "decoder.quant.onnx", True),
}
_BACKENDS = {"onnx": ("onnxruntime", "sam_edge"), "openvino": ("openvino", "sam_edge_openvino")}


def check_checkpoint(bundle: Bundle, checkpoint: Path | None) -> Path:
    """The absolute path of the checkpoint that `bundle` was made from; None stands for the embedded one.

    Raises:
        BundleError: its input size is not its model's own, as it is for the peers.
        CheckpointError: the checkpoint is another one, or missing.
    """
    if bundle.manifest.resized_from is not None:
        raise BundleError(
            f"the input size of {bundle.path} is not its model's own, which the peers use; export it without "
            "--imgsz"
        )
    path = checkpoint or HERE / CATALOGUE[DEFAULT_MODEL].checkpoint.file
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} is not a file; give the one that {bundle.path} was made from"
        )
    if sha256_file(path) != bundle.manifest.checkpoint_sha256:
        raise CheckpointError(
            f"{bundle.path} was not made from {path}: the sha256 differs from the manifest's; give the "
            "right file with --checkpoint"
        )
    return path.absolute()


def roster(bundle: Bundle, checkpoint: Path, exports: Path) -> tuple[list[Peer], dict[str, str]]:
    """The peers for the model of a bundle, the reference first; and why others are absent, by id."""
    name = bundle.manifest.model.name
    peers = [
        Peer(REFERENCE, "segment_anything", "segment_anything", {"name": name, "checkpoint": str(checkpoint)})
    ]
    absent = {}
    for one, (encoder, decoder, three) in _SAMEXPORTER.items():
        if name in _SAMEXPORTER_TYPES:
            model = {"encoder": str(exports / encoder), "decoder": str(exports / decoder)}
            peers.append(Peer(one, "samexporter", "samexporter", model, False, three))
        else:
            absent[one] = f"samexporter exports {', '.join(_SAMEXPORTER_TYPES)}, not {name}"
    for variant in bundle.manifest.variants:
        if variant.format in _BACKENDS:
            backend, environment = _BACKENDS[variant.format]
            model = {
                "bundle": str(bundle.path.absolute()),
                "backend": backend,
                "precision": variant.precision,
            }
            peers.append(Peer(f"sam-edge {variant.id}", "sam_edge", environment, model))
        else:
            absent[f"sam-edge {variant.id}"] = f"{variant.format} is not part of this comparison"
    return peers, absent


def chosen(peers: list[Peer], wanted: list[str]) -> list[Peer]:
    """Select peers by id, or by variant for sam-edge; all where nothing is wanted, the reference always.

    Raises:
        BackendError: there is no such peer.
    """
    known = {peer.id.removeprefix("sam-edge "): peer for peer in peers}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BackendError(f"no peer {', '.join(unknown)} for this bundle; it has {', '.join(known)}")
    return [peer for name, peer in known.items() if not wanted or name in wanted or name == REFERENCE]


def export_with_samexporter(
    name: str, checkpoint: Path, exports: Path, environments: Path, package: Path
) -> None:
    """Export with samexporter's own commands in its environment, unless the folder `exports` exists.

    The folder is complete or absent.

    Raises:
        ExportError: a command failed; its output is on stderr.
    """
    if exports.is_dir():
        return
    python = ENVIRONMENTS["samexporter"].python(environments)
    start = (
        "import runpy, sys; runpy.run_path(sys.argv[1])['load_torchvision'](); sys.argv = sys.argv[2:]; "
        "runpy.run_module(sys.argv[0], run_name='__main__')"
    )
    common = ["--checkpoint", str(checkpoint), "--model-type", _SAMEXPORTER_TYPES[name]]
    partial = exports.with_name(f"{exports.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        for module, options in (
            (
                "export_encoder",
                "--output encoder.onnx --quantize-out encoder.quant.onnx --use-preprocess",
            ),
            ("export_decoder", "--output decoder.onnx --quantize-out decoder.quant.onnx"),
            ("export_decoder", "--output decoder.single.onnx --return-single-mask"),
        ):
            arguments = [f"samexporter.{module}", *common, *options.split()]
            done = subprocess.run(
                [str(python), "-c", start, str(torchvision_parts(package)), *arguments],
                cwd=partial,
                env={**os.environ, "PYTHONPATH": ""},
                stdout=sys.stderr,
            )
            if done.returncode:
                raise ExportError(
                    f"samexporter could not export {name}: `{' '.join(arguments)}` failed, see above"
                )
        partial.rename(exports)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
