"""Checks that the manifest's schema cannot express: consistent sizes, graphs among the files, safe paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import BundleError
from .variant import CLIP_GRAPHS, GRAPHS, STAGES, Json

# More points than any prompt has.
_MAX_POINTS = 4096


def check_contents(path: Path, data: Json) -> None:
    """Check a manifest at `path` that fits the schema.

    Raises:
        BundleError: it contradicts itself, or names a path that leaves the bundle.
    """
    _check_sizes(path, data)
    root = path.parent.resolve()
    for name in dict.fromkeys(_paths(data)):
        _check_path(root, path, name)
    for variant in data["variants"]:
        stages = tuple(part for part in STAGES if part in variant)
        if stages not in ((), STAGES):
            raise BundleError(f"{path} names a {stages[0]} of {variant['id']!r} alone; export it again")
        _check_graphs(path, variant, ("encoder", "decoder", *stages))
        # The runtime reads from there how many prompts a run takes.
        for part in ("decoder", *stages[:1]):
            inputs = variant[part]["inputs"]
            if not any(tensor["name"] == "point_coords" and tensor["shape"] for tensor in inputs):
                raise BundleError(
                    f"{path}: the {part} of {variant['id']!r} takes no point_coords; export it again"
                )
        _check_target(path, variant)
    for variant in _clip_variants(data):
        _check_graphs(path, variant, CLIP_GRAPHS)


def _check_sizes(path: Path, data: Json) -> None:
    if data["mask"]["first_multimask"] >= data["mask"]["count"]:
        raise BundleError(
            f"{path} has first_multimask {data['mask']['first_multimask']} of {data['mask']['count']} masks; "
            "export it again"
        )
    height, width = data["input"]["size"]
    if data["input"]["resize"] == "longest_side" and height != width:
        raise BundleError(
            f"{path} has an input of {height} by {width}, into which images resized by their longest side do "
            "not fit; export it again"
        )


def _clip_variants(data: Json) -> list[dict[str, Any]]:
    return list(data["clip"]["variants"]) if "clip" in data else []


def _paths(data: Json) -> list[str]:
    """Every path that the manifest names."""
    names = [data["golden"]["path"]]
    for variant in data["variants"]:
        names += [file["path"] for file in variant["files"]]
        names += [variant[part]["path"] for part in GRAPHS if part in variant]
        names += [variant["context"][part] for part in ("encoder", "decoder") if "context" in variant]
    if "clip" in data:
        names += [data["clip"]["tokenizer"]["path"], data["clip"]["golden"]["path"]]
    for variant in _clip_variants(data):
        names += [file["path"] for file in variant["files"]]
        names += [variant[part]["path"] for part in CLIP_GRAPHS]
    return names


def _check_graphs(path: Path, variant: Json, graphs: tuple[str, ...]) -> None:
    """Only files with a hash may be opened; a graph may be a directory of such files."""
    files = [file["path"] for file in variant["files"]]
    for name in graphs:
        graph = variant[name]["path"]
        if not any(file == graph or file.startswith(f"{graph}/") for file in files):
            raise BundleError(
                f"{path} names {graph!r} as the {name} of {variant['id']!r}, but not among its files; "
                "export the bundle again"
            )


def _check_target(path: Path, variant: Json) -> None:
    """A decoder with absent points takes a fixed number of points, and every graph compiled
    ahead of time has a hash."""
    name = variant["id"]
    files = {file["path"] for file in variant["files"]}
    for part in ("encoder", "decoder") if "context" in variant else ():
        if variant["context"][part] not in files:
            raise BundleError(
                f"{path} names {variant['context'][part]!r} as the compiled {part} of {name!r}, but not "
                "among its files; export the bundle again"
            )
    if "absent_label" in variant:
        for tensor in variant["decoder"]["inputs"]:
            if tensor["name"] == "point_coords" and not _is_count(tensor["shape"][1:2]):
                raise BundleError(
                    f"{path}: the decoder of {name!r} has absent points, but takes no fixed number "
                    "of them; export it again"
                )


def _is_count(axis: list[Any]) -> bool:
    return len(axis) == 1 and isinstance(axis[0], int) and 1 <= axis[0] <= _MAX_POINTS


def _check_path(root: Path, manifest: Path, name: str) -> None:
    unsafe = name.startswith("/") or re.search(r"[\\:\x00]", name) is not None or ".." in name.split("/")
    try:
        if not unsafe and (root / name).resolve().is_relative_to(root):
            return
    except (OSError, RuntimeError, ValueError):
        pass
    raise BundleError(
        f"{manifest} names {name!r}, which is not a file inside the bundle; do not use a bundle from this "
        "source"
    )
