"""Read a Core ML package (`.mlpackage`): its specification, its tensors, its weights' place."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import BackendError
from ...system.quiet import quiet

EXTRA = "pip install 'sam-edge[coreml]'"
_WEIGHTS = "@model_path/weights/weight.bin"


def import_coremltools() -> ModuleType:
    """coremltools, imported without its warnings.

    Raises:
        BackendError: not installed.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with quiet():
        try:
            import coremltools
        except ImportError as error:
            raise BackendError(f"coremltools is not installed; {EXTRA}") from error
    return coremltools


def read_spec(path: Path) -> Any:
    """The package's protobuf specification.

    Raises:
        BackendError: not a package, or a damaged one.
    """
    ct = import_coremltools()
    if not path.is_dir():
        raise BackendError(f"{path} is not a Core ML package; expected a directory ending in .mlpackage")
    _check_items(path)
    try:
        with quiet():
            spec = ct.models.utils.load_spec(str(path))
    except Exception as error:  # protobuf, JSON and the package reader each raise their own
        raise BackendError(
            f"{path} cannot be read as a Core ML package ({line(error)}); copy or export it again"
        ) from error
    if spec.WhichOneof("Type") != "mlProgram":
        raise BackendError(f"{path} holds a {spec.WhichOneof('Type')}; expected an mlProgram")
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            _check_weights(path, block)
    return spec


def _check_items(path: Path) -> None:
    """Before coremltools follows the package's own list of its parts wherever it leads."""
    root = path.resolve()
    try:
        entries = json.loads((path / "Manifest.json").read_text())["itemInfoEntries"].values()
        places = [str(entry["path"]) for entry in entries]
        outside = [one for one in places if not (root / "Data" / one).resolve().is_relative_to(root)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise BackendError(
            f"{path}/Manifest.json cannot be read ({line(error)}); copy the bundle or export it again"
        ) from error
    if outside:
        raise BackendError(f"{path}/Manifest.json names {outside[0]!r}, which is outside the package")


def _check_weights(path: Path, block: Any) -> None:
    for operation in block.operations:
        for value in operation.attributes.values():
            if value.WhichOneof("value") == "blobFileValue" and value.blobFileValue.fileName != _WEIGHTS:
                raise BackendError(
                    f"{path} takes weights from {value.blobFileValue.fileName!r}; expected {_WEIGHTS}"
                )
        for inner in operation.blocks:
            _check_weights(path, inner)


def read_facts(path: Path) -> dict[str, Any]:
    """What the exporter wrote into the package's metadata; empty if another tool made it."""
    text = read_spec(path).description.metadata.userDefined.get("sam_edge", "{}")
    found: dict[str, Any] = json.loads(text)
    return found


def tensors(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs of a written package: name, dtype and shape, a flexible axis by name.

    A picture is a (1, S, S, 3) uint8 array, RGB.
    """
    description = read_spec(path).description
    return [_tensor(f) for f in description.input], [_tensor(f) for f in description.output]


def _tensor(feature: Any) -> dict[str, Any]:
    if feature.type.WhichOneof("Type") == "imageType":
        image = feature.type.imageType
        return {"name": feature.name, "dtype": "uint8", "shape": [1, image.height, image.width, 3]}
    array = feature.type.multiArrayType
    names = {65568: "float32", 65552: "float16", 131104: "int32", 65600: "float64"}
    shape: list[int | str] = list(array.shape)
    for axis, sizes in enumerate(allowed_sizes(feature)):
        if len(sizes) > 1:
            shape[axis] = "num_points"
    return {"name": feature.name, "dtype": names[array.dataType], "shape": shape}


def allowed_sizes(feature: Any) -> list[range | tuple[int, ...]]:
    """For each axis of an array feature, the sizes that its description allows."""
    array = feature.type.multiArrayType
    flexibility = array.WhichOneof("ShapeFlexibility")
    if flexibility == "enumeratedShapes":
        shapes = [tuple(one.shape) for one in array.enumeratedShapes.shapes]
        return [tuple(sorted(set(sizes))) for sizes in zip(*shapes, strict=True)]
    if flexibility == "shapeRange":
        return [range(r.lowerBound, r.upperBound + 1) for r in array.shapeRange.sizeRanges]
    return [(size,) for size in array.shape]


def line(error: Exception) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
