"""Whether two bundles hold the same graphs, to the bit, whatever their manifests and metadata say.

    python -m tools.same_graphs BUNDLE OTHER

Compares every graph of the first bundle that the second has, a line each, and names those that only one of
them has. ONNX: the model without `metadata_props`, and external data. OpenVINO: the .xml without `rt_info`,
and the .bin. Core ML: the model's description without its user's metadata, and every other file. Exits with 1
where any differs or is missing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from tools.shared.commands import tool_parser

PARTS = ("encoder", "decoder", "scorer", "upscaler", "text_encoder", "image_encoder")


def _onnx(path: Path) -> bytes:
    import onnx

    proto = onnx.load(path, load_external_data=False)
    del proto.metadata_props[:]
    data = [path.parent / f"{path.name}.data"]
    return proto.SerializeToString(deterministic=True) + b"".join(_read(one) for one in data)


def _openvino(path: Path) -> bytes:
    root = ElementTree.parse(path).getroot()
    for info in root.findall("rt_info"):
        root.remove(info)
    weights = path.with_suffix(".bin")
    return ElementTree.tostring(root) + _read(weights)


def _coreml(path: Path) -> bytes:
    from coremltools.proto import Model_pb2

    (spec,) = path.rglob("*.mlmodel")
    model = Model_pb2.Model()
    model.ParseFromString(spec.read_bytes())
    model.description.metadata.ClearField("userDefined")
    found = model.SerializeToString(deterministic=True)
    for file in sorted(path.rglob("*")):
        # The identifiers of the package's items are drawn anew each time.
        if file.is_file() and file != spec and file.name != "Manifest.json":
            found += file.relative_to(path).as_posix().encode() + file.read_bytes()
    return found


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


CONTENT: dict[str, Callable[[Path], bytes]] = {".onnx": _onnx, ".xml": _openvino, ".mlpackage": _coreml}


def graphs(bundle: Path) -> dict[str, Path]:
    """The graphs of a bundle, of its CLIP and of published contracts, by their paths in it."""
    data = json.loads((bundle / "manifest.json").read_text("utf-8"))
    variants = [*data["variants"], *data.get("clip", {}).get("variants", ())]
    names = [variant[part]["path"] for variant in variants for part in PARTS if part in variant]
    names += [
        file["path"]
        for variant in variants
        for file in variant["files"]
        if file["path"].endswith(".onnx") and ".context." not in file["path"]
    ]
    return {name: bundle / name for name in dict.fromkeys(names)}


def digest(path: Path) -> str:
    """SHA-256 of a graph's content."""
    return hashlib.sha256(CONTENT[path.suffix](path)).hexdigest()


def compare(first: Path, second: Path) -> bool:
    """Print a line for each graph; returns whether all are the same."""
    ours, theirs = graphs(first), graphs(second)
    same = True
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ours or name not in theirs:
            verdict = f"only in {first if name in ours else second}"
        else:
            verdict = "same" if digest(ours[name]) == digest(theirs[name]) else "DIFFERENT"
        same = same and verdict == "same"
        print(f"{name:48} {verdict}", flush=True)
    return same


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two bundles; 1 where a graph differs."""
    parser = tool_parser("same_graphs", __doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("other", type=Path)
    args = parser.parse_args(argv)
    for bundle in (args.bundle, args.other):
        if not (bundle / "manifest.json").is_file():
            parser.error(f"{bundle} is not a bundle; expected a folder with a manifest.json")
    return 0 if compare(args.bundle, args.other) else 1


if __name__ == "__main__":
    sys.exit(main())
