"""The site's files by URL: the page's own, the bundle's, the sample photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sam_edge.models.photos import HERE as PHOTO_FOLDER
from sam_edge.models.photos import PHOTOS

from ..axes import PRECISIONS
from ..bundle.bundle import Bundle
from ..bundle.variant import File, Variant
from ..errors import BundleError, ServeError

# `make web` builds the page here in a source tree; otherwise it is a package of its own.
_BUILT, _PACKAGE = Path(__file__).with_name("page"), "sam_edge_page"
# Where images may be encoded.
ENCODE = ("both", "server", "page")

# Cross-origin isolation, without which WebAssembly has one thread; only the page's own scripts may run.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# By suffix; the system's tables may lack some, or be wrong.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True)
class Limits:
    """Limits on an uploaded image.

    Attributes:
        max_body_bytes: size of the file.
        max_image_pixels: height times width; 80 million pixels need about 1 GB while they are encoded.
    """

    max_body_bytes: int = 64 * 2**20
    max_image_pixels: int = 80_000_000


@dataclass(frozen=True)
class SiteFile:
    """A file of the site; `listed` is its entry in the bundle's manifest, if it has one."""

    path: Path
    listed: File | None = None

    @property
    def media_type(self) -> str:
        """The file's MIME type."""
        return _MEDIA_TYPES.get(self.path.suffix.lower(), "application/octet-stream")


def find_page() -> Path:
    """Return the folder of the built page: in this source tree, else of the package sam-edge-page.

    If neither exists, the folder where `make web` would build it.
    """
    package = find_spec(_PACKAGE)
    folders = [] if package is None else list(package.submodule_search_locations or [])
    return _BUILT if (_BUILT / "index.html").is_file() or not folders else Path(folders[0])


def page_files(page: Path) -> dict[str, SiteFile]:
    """Return the built page's files by URL, without symbolic links that leave its folder.

    Raises:
        ServeError: the page is not built.
    """
    if not (page / "index.html").is_file():
        raise ServeError(
            f"the page is not built: {page} has no index.html; run `make web` in a source tree (requires "
            "Node.js 20.19+ or 22.12+), or install sam-edge-page, which is built from web/"
        )
    root = page.resolve()
    return {
        path.relative_to(page).as_posix(): SiteFile(path)
        for path in sorted(page.rglob("*"))
        if path.is_file() and path.resolve().is_relative_to(root)
    }


def bundle_files(bundle: Bundle) -> dict[str, SiteFile]:
    """Return every file that the manifest lists, by URL."""
    return {f"bundle/{file.path}": SiteFile(bundle.path / file.path, file) for file in _listed(bundle)}


def sample_files() -> dict[str, SiteFile]:
    """Return the packaged photographs by URL."""
    return {f"samples/{name}": SiteFile(PHOTO_FOLDER / name) for name in PHOTOS}


def page_variants(bundle: Bundle, precision: str = "auto") -> list[Variant]:
    """Return the ONNX variants that the page may run, the most exact first, those for browsers preferred.

    Raises:
        BundleError: the bundle has none.
    """
    precisions = PRECISIONS.names() if precision == "auto" else (precision,)
    found = [
        variant
        for one in precisions
        for for_browsers in (True, False)
        for variant in bundle.manifest.variants
        if (variant.format, variant.precision, variant.accelerator) == ("onnx", one, None)
        and (variant.browser is not None) == for_browsers
    ]
    if not found:
        there = ", ".join(variant.id for variant in bundle.manifest.variants)
        of = "" if precision == "auto" else f" of precision {precision}"
        raise BundleError(
            f"{bundle.path} has no ONNX variant{of}, which the page requires; it has {there}: export it "
            "again with --format onnx"
        )
    return found


def files_to_run(variant: Variant) -> list[File]:
    """Return the manifest's entries of the files of a variant's graphs."""
    graphs = {graph.path for graph in variant.graphs.values()}
    return [file for file in variant.files if file.path in graphs]


def config(
    bundle: Bundle, encode: str, variants: list[Variant], limits: Limits | None = None
) -> dict[str, Any]:
    """Return the content of config.json, which the page reads first; `encode` is one of `ENCODE`."""
    return {
        "encode": encode,
        "variants": [variant.id for variant in variants],
        **asdict(limits or Limits()),
        "samples": [{"name": Path(name).stem, "path": f"samples/{name}"} for name in PHOTOS],
        "model_id": bundle.manifest.model_id,
    }


def _listed(bundle: Bundle) -> Iterator[File]:
    manifest = bundle.manifest
    yield manifest.golden
    for variant in manifest.variants:
        yield from variant.files
    if manifest.clip is not None:
        yield from manifest.clip.files
