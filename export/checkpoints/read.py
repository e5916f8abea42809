"""Read a checkpoint and recognise its model by the names and shapes of its tensors.

The layouts that are read are data, in `layouts.py`. Nothing is unpickled beyond tensors and plain containers.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sam_edge.errors import CheckpointError
from sam_edge.models.catalogue import CATALOGUE, Model

from ..architectures.model import SamModel, build_model
from .layouts import LAYOUTS, Weights

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Loaded:
    """A recognised checkpoint.

    Attributes:
        model: the catalogue entry.
        weights: float32 tensors by the reference model's names.
        layout: "published" or "huggingface".
    """

    model: Model
    weights: Weights
    layout: str


def load_checkpoint(path: Path, name: str | None = None) -> Loaded:
    """Read a checkpoint and recognise its model.

        >>> loaded = load_checkpoint(Path("mobile_sam.pt"))
        >>> sam = build_reference(loaded)

    Args:
        path: a .safetensors file, or what `torch.save` wrote.
        name: the model of the catalogue that it must be; any if None.

    Raises:
        CheckpointError: the file is missing, truncated or unsafe, or matches no model.
    """
    model, weights, layout = _recognise(read_weights(path), path, name)
    return Loaded(model, {key: value.float() for key, value in weights.items()}, layout)


def build_reference(loaded: Loaded) -> SamModel:
    """Build the reference model with a checkpoint's weights, in evaluation mode without gradients."""
    with torch.device("meta"):
        sam = build_model(loaded.model)
    sam.load_state_dict(loaded.weights, assign=True)
    return sam.requires_grad_(False).eval()


def read_weights(path: Path) -> Weights:
    """Read the tensors of a file, by name, without running any code in it.

    Args:
        path: a .safetensors file, or what `torch.save` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, unsafe, or holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} is not a file; give the path of a .pth or .safetensors file"
        )
    if _is_torchscript(path):
        raise CheckpointError(
            f"checkpoint {path} is a TorchScript archive: it holds code, which sam-edge never runs; use the "
            "same weights as .safetensors, or a state dict saved by torch.save"
        )
    content: object
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors, perhaps code, which sam-edge never runs; expected "
            "a state dict saved by torch.save, or .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read; it looks truncated or damaged "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); download it again"
        ) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"checkpoint {path} holds no state dict; expected names and tensors")
    weights = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    # PyTorch's DistributedDataParallel adds this prefix to every name.
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    return weights


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


@cache
def expected_shapes(model: Model) -> Shapes:
    """Shapes of the reference model's tensors, by name."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build_model(model).state_dict().items()}


def _recognise(stored: Weights, path: Path, name: str | None) -> tuple[Model, Weights, str]:
    if name is not None and name not in CATALOGUE:
        raise CheckpointError(f"unknown model {name!r}; known: {', '.join(CATALOGUE)}")
    candidates = [CATALOGUE[name]] if name else list(CATALOGUE.values())
    # Several models have the same names and shapes: the one whose published file has this name comes first.
    candidates.sort(key=lambda model: model.checkpoint.file != path.name)
    similarity, nearest = (-1.0, -1.0), ""
    for layout in LAYOUTS:
        weights = layout.rename(stored)
        found = {key: tuple(value.shape) for key, value in weights.items()}
        for model in candidates:
            if model.family not in layout.families:
                continue
            expected = expected_shapes(model)
            if expected == found:
                return model, weights, layout.name
            # Names distinguish families, shapes the sizes within one.
            names = len(expected.keys() & found.keys()) / len(expected.keys() | found.keys())
            same = len(expected.items() & found.items()) / len(expected)
            if (names, same) > similarity:
                similarity = names, same
                nearest = f"{model.name} ({same:.0%} of its tensors agree): {differences(expected, found)}"
    raise CheckpointError(f"checkpoint {path} matches no model of the catalogue; the nearest is {nearest}")


def differences(expected: Shapes, found: Shapes) -> str:
    """Describe how many tensors are missing, unexpected or of another shape, with the first of each."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    misshapen = [
        f"{key} {found[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    return "; ".join(
        f"{len(keys)} {what}, first {keys[0]}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if keys
    )
