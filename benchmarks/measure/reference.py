"""Runs the PyTorch reference on a user's own images, once (needs the `export` extra)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sam_edge.bundle.bundle import Bundle
from sam_edge.bundle.golden import read_golden, write_golden
from sam_edge.bundle.manifest import Manifest
from sam_edge.errors import CheckpointError, IntegrityError
from sam_edge.system.files import sha256_file


def check_reference(bundle: Bundle, checkpoint: Path) -> str:
    """Check that the bundle was made from this checkpoint; its sha256.

    Raises:
        CheckpointError: it was not, or there is no such file.
    """
    if not checkpoint.is_file():
        raise CheckpointError(
            f"there is no checkpoint {checkpoint}; --reference takes the file that was exported"
        )
    expected, found = bundle.manifest.checkpoint_sha256, sha256_file(checkpoint)
    if found != expected:
        raise CheckpointError(
            f"{checkpoint} is not the checkpoint that {bundle.path} was made from: its sha256 is {found}, "
            f"expected {expected} ({bundle.manifest.model.checkpoint.file})"
        )
    return found


def reference_golden(
    checkpoint: Path,
    manifest: Manifest,
    images: Sequence[NDArray[np.uint8]],
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Make golden data of a user's images, at a bundle's input size; those of an earlier run are reused.

    Args:
        checkpoint: the reference's weights.
        manifest: of the bundle.
        images: (H, W, 3) uint8 RGB each.
        folder: where the file is kept.
        say: told of each step.

    Raises:
        ParityError: every mask of the reference is empty or covers its whole image.
    """
    key = hashlib.sha256(manifest.model_id.encode())
    for image in images:
        key.update(f"{image.shape}".encode())
        key.update(np.ascontiguousarray(image).data)
    path = folder / f"reference-{key.hexdigest()[:16]}.npz"
    if path.is_file():
        try:
            read_golden(path)
            return path
        except IntegrityError:
            path.unlink()
    from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
    from sam_edge.export.checkpoints.resize import resize
    from sam_edge.export.reference.golden import make_golden

    loaded = resize(load_checkpoint(checkpoint), manifest.input.size[0])
    write_golden(path, make_golden(build_reference(loaded), loaded.model, say, images))
    return path
