"""Which peers can run a bundle's model, and as what."""

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
from tools.peers.environments import ENVIRONMENTS
from tools.peers.session import Peer

REFERENCE = "segment_anything"
# What samexporter calls the models of SAM's family that it exports.
_SAMEXPORTER_TYPES = {"vit_b": "vit_b", "vit_l": "vit_l", "vit_h": "vit_h", "mobile_sam": "mobile"}
# id -> its encoder and decoder, and whether it gives three masks to compare.
_SAMEXPORTER = {
    "samexporter": ("encoder.onnx", "decoder.onnx", True),
    "samexporter-one-mask": ("encoder.onnx", "decoder.single.onnx", False),
    "samexporter-quantized": ("encoder.quant.onnx", "decoder.quant.onnx", True),
}
_BACKENDS = {"onnx": ("onnxruntime", "sam_edge"), "openvino": ("openvino", "sam_edge_openvino")}


def check_checkpoint(bundle: Bundle, checkpoint: Path | None) -> Path:
    """The absolute path of the checkpoint that `bundle` was made from; None is the embedded one.

    Raises:
        BundleError: its input is of another size than its model's, which peers do not have.
        CheckpointError: it is another, or not there.
    """
    if bundle.manifest.resized_from is not None:
        raise BundleError(
            f"{bundle.path} has another input size than its model, and the peers have not; export it without "
            "--imgsz"
        )
    path = checkpoint or HERE / CATALOGUE[DEFAULT_MODEL].checkpoint.file
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} is not a file; give the one that {bundle.path} was made from"
        )
    if sha256_file(path) != bundle.manifest.checkpoint_sha256:
        raise CheckpointError(
            f"{bundle.path} was not made from {path}: its hash is not the manifest's; give the "
            "checkpoint with --checkpoint"
        )
    return path.absolute()


def roster(bundle: Bundle, checkpoint: Path, exports: Path) -> tuple[list[Peer], dict[str, str]]:
    """The peers for a bundle's model, the reference first; and why others are absent, by id."""
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
            absent[one] = f"samexporter exports {', '.join(_SAMEXPORTER_TYPES)} and no {name}"
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
            absent[f"sam-edge {variant.id}"] = f"{variant.format} is not compared here"
    return peers, absent


def chosen(peers: list[Peer], wanted: list[str]) -> list[Peer]:
    """Those asked for by id, a variant of sam-edge by its own; the reference always.

    Raises:
        BackendError: there is no such peer.
    """
    there = {peer.id.removeprefix("sam-edge "): peer for peer in peers}
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise BackendError(f"no peer {', '.join(unknown)} for this bundle; it has {', '.join(there)}")
    return [peer for name, peer in there.items() if not wanted or name in wanted or name == REFERENCE]


def export_with_samexporter(
    name: str, checkpoint: Path, exports: Path, environments: Path, package: Path
) -> None:
    """Run samexporter's own commands in its environment, unless `exports` is there; it is made whole.

    Raises:
        ExportError: one failed; what it said is on stderr.
    """
    if exports.is_dir():
        return
    python = ENVIRONMENTS["samexporter"].python(environments)
    parts = package / "sam_edge" / "benchmarks" / "torchvision_parts.py"
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
                [str(python), "-c", start, str(parts.absolute()), *arguments],
                cwd=partial,
                env={**os.environ, "PYTHONPATH": ""},
                stdout=sys.stderr,
            )
            if done.returncode:
                said = f"`{' '.join(arguments)}` failed, see above"
                raise ExportError(f"samexporter could not export {name}: {said}")
        partial.rename(exports)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
