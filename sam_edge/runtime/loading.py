"""Load a bundle on disk as a `Sam`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..backends import find_backends
from ..bundle.bundle import Bundle, open_bundle
from ..bundle.variant import Variant
from ..errors import BackendError
from ..types import Device, Precision
from .choice import Chosen, Request, choose, explain_choice, used_device
from .opener import BundleOpener
from .sam import Sam
from .targets import check_machine

CACHE_VARIABLE = "SAM_EDGE_CACHE"


def load(
    path: str | Path,
    backend: str = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    *,
    check_integrity: bool = True,
    explain: bool = False,
    cache_dir: str | Path | None = None,
) -> Sam:
    """Load a bundle made by `sam-edge export`.

    Args:
        path: the bundle's directory.
        backend: "auto" or a name from `sam-edge devices`.
        device: "cpu", "gpu", "npu", "auto" (a CPU), or a device's name from `sam-edge devices`, for type
            checkers `DeviceName("GPU.0")`; never another device than asked for.
        precision: "fp32", "fp16", "bf16", "int8", or "auto" for the most exact one in the bundle; variants
            whose requirements this CPU does not meet are passed over where there are others.
        threads: threads within one operator; None leaves it to the backend.
        check_integrity: compare every file with its SHA-256 before it is read. ONNX Runtime does not read
            graphs that it has in `cache_dir`, in an entry of that SHA-256.
        explain: print to stderr why each backend, device and variant was chosen or not, a line each;
            `Sam.choices` has the same.
        cache_dir: a directory where backends keep what they compiled, so that the next process starts sooner;
            None for the environment's SAM_EDGE_CACHE, or, without it, for no such directory.

    Raises:
        BundleError, IntegrityError: not a bundle, or not as exported; with a cache, everything-mode may raise
            it, too.
        BackendError, DeviceError: the runtime is not installed, or the device is not available, or the CPU
            lacks what the variant requires to give the masks that it was exported with.
        OutputError: `cache_dir` is not a directory and cannot be made one.

    Example:
        sam = sam_edge.load("bundle", device="cpu", precision="int8")
        masks = sam.predict(sam.encode(image), boxes=[[10, 20, 80, 60]]).best()
    """
    request = Request(backend, device, precision)
    return Sam(
        find_opener(
            path, request, threads, check_integrity=check_integrity, explain=explain, cache_dir=cache_dir
        )
    )


def find_opener(
    path: str | Path,
    request: Request,
    threads: int | None = None,
    *,
    check_integrity: bool = True,
    explain: bool = False,
    cache_dir: str | Path | None = None,
) -> BundleOpener:
    """Choose a backend and a variant of a bundle; arguments and errors as in `load`."""
    bundle = open_bundle(path)
    if explain:
        for choice in explain_choice(bundle, request):
            print(choice, file=sys.stderr)
    chosen = choose(bundle, request)
    if chosen.variant.requires:
        check_machine(bundle, chosen.variant, used_device(chosen.backend, request.device))
    if cache_dir is None:
        cache_dir = os.environ.get(CACHE_VARIABLE) or None
    return BundleOpener(
        bundle, chosen, request, threads, check_integrity, None if cache_dir is None else Path(cache_dir)
    )


def load_variant(
    bundle: Bundle,
    variant: Variant,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    cache_dir: str | Path | None = None,
) -> Sam:
    """Load this very variant, its files unchecked; arguments and errors as in `load`.

    Without `cache_dir` there is no cache, whatever the environment says.

    Raises:
        BackendError: also where the backend does not read the variant's format.
    """
    reader = next((b for b in find_backends(backend) if variant.format in b.formats), None)
    if reader is None:
        raise BackendError(
            f"{backend} does not read {variant.id}; leave the choice of backend, or load another"
        )
    cache = None if cache_dir is None else Path(cache_dir)
    request = Request(backend, device)
    return Sam(BundleOpener(bundle, Chosen(reader, variant), request, threads, False, cache))
