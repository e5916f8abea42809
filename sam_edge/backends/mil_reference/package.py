"""Read a Core ML package (`.mlpackage`): specification, tensors, metadata."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

from ...errors import BackendError
from ...system.install import install_command
from ...system.output import suppress_output

_WEIGHTS = "@model_path/weights/weight.bin"


def import_coremltools() -> ModuleType:
    """Import coremltools without its warnings.

    Raises:
        BackendError: not installed.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with suppress_output():
        try:
            import coremltools
        except ImportError as error:
            raise BackendError(f"coremltools is not installed; {install_command('coreml')}") from error
    return coremltools


def read_spec(path: Path) -> Any:
    """Read the package's protobuf specification.

    Raises:
        BackendError: not a package, or a damaged one.
    """
    ct = import_coremltools()
    if not path.is_dir():
        raise BackendError(f"{path} is not a Core ML package; expected a directory ending in .mlpackage")
    _check_items(path)
    try:
        with suppress_output():
            spec = ct.models.utils.load_spec(str(path))
    except Exception as error:  # protobuf, JSON and the package reader each raise their own
        raise BackendError(
            f"{path} cannot be read as a Core ML package ({one_line(error)}); copy or export it again"
        ) from error
    if spec.WhichOneof("Type") != "mlProgram":
        raise BackendError(f"{path} holds a {spec.WhichOneof('Type')}; expected an mlProgram")
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            _check_weights(path, block)
    return spec


def _check_items(path: Path) -> None:
    """Raise `BackendError` if Manifest.json lists a file outside the package: coremltools would read it."""
    root = path.resolve()
    try:
        entries = json.loads((path / "Manifest.json").read_text())["itemInfoEntries"].values()
        paths = [str(entry["path"]) for entry in entries]
        outside = [one for one in paths if not (root / "Data" / one).resolve().is_relative_to(root)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise BackendError(
            f"{path}/Manifest.json cannot be read ({one_line(error)}); copy the bundle or export it again"
        ) from error
    if outside:
        raise BackendError(f"{path}/Manifest.json names {outside[0]!r}, which is outside the package")


def _check_weights(path: Path, block: Any) -> None:
    """Raise `BackendError` if a constant is read from any file but the package's own weights."""
    for operation in block.operations:
        for value in operation.attributes.values():
            if value.WhichOneof("value") == "blobFileValue" and value.blobFileValue.fileName != _WEIGHTS:
                raise BackendError(
                    f"{path} reads weights from {value.blobFileValue.fileName!r}; expected {_WEIGHTS}"
                )
        for inner in operation.blocks:
            _check_weights(path, inner)


def read_facts(path: Path) -> dict[str, Any]:
    """Return the metadata that sam-edge wrote into the package; empty if another tool made it."""
    text = read_spec(path).description.metadata.userDefined.get("sam_edge", "{}")
    metadata: dict[str, Any] = json.loads(text)
    return metadata


def tensors(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Describe a package's inputs and outputs: name, dtype and shape, flexible axes by name.

    Images are (1, S, S, 3) uint8 RGB.
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
    """Return the sizes that the description of an array input allows, for each axis."""
    array = feature.type.multiArrayType
    flexibility = array.WhichOneof("ShapeFlexibility")
    if flexibility == "enumeratedShapes":
        shapes = [tuple(one.shape) for one in array.enumeratedShapes.shapes]
        return [tuple(sorted(set(sizes))) for sizes in zip(*shapes, strict=True)]
    if flexibility == "shapeRange":
        return [range(r.lowerBound, r.upperBound + 1) for r in array.shapeRange.sizeRanges]
    return [(size,) for size in array.shape]


def one_line(error: Exception) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
