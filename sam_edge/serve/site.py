"""Which files a page needs, by their URLs: the page's own, the bundle's, the sample photographs."""

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
from ..bundle.manifest import STAGES
from ..errors import BundleError, ServeError

# What `make web` builds in a source tree; else the package of it.
_BUILT, _PACKAGE = Path(__file__).with_name("page"), "sam_edge_page"
ENCODE = ("both", "server", "page")

# Cross-origin isolation, without which wasm has one thread, and no scripts but the page's own.
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
# By the last part of a file's name; the system's own tables may lack some, or be wrong.
_TYPES = {
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
    """How large a picture may be that is sent to be encoded.

    Attributes:
        max_body_bytes: of its file.
        max_image_pixels: height times width; decoded, 80 million and their copies take about 1 GB.
    """

    max_body_bytes: int = 64 * 2**20
    max_image_pixels: int = 80_000_000


@dataclass(frozen=True)
class SiteFile:
    """A file that may be sent; `listed` is its entry in the bundle's manifest, if it has one."""

    path: Path
    listed: dict[str, Any] | None = None

    @property
    def media_type(self) -> str:
        """Its MIME type."""
        return _TYPES.get(self.path.suffix.lower(), "application/octet-stream")


def find_page() -> Path:
    """The folder of the built page: of this source tree, or of the package sam-edge-page; the first where
    there is neither."""
    package = find_spec(_PACKAGE)
    folders = [] if package is None else list(package.submodule_search_locations or [])
    return _BUILT if (_BUILT / "index.html").is_file() or not folders else Path(folders[0])


def page_files(page: Path) -> dict[str, SiteFile]:
    """The built page's files by URL; symbolic links that leave its folder are left out.

    Raises:
        ServeError: there is no page.
    """
    if not (page / "index.html").is_file():
        raise ServeError(
            f"the page is not built: {page} has no index.html; run `make web` in a source tree (which takes "
            "Node.js 20.19), or install sam-edge-page, which is made of web/"
        )
    root = page.resolve()
    return {
        path.relative_to(page).as_posix(): SiteFile(path)
        for path in sorted(page.rglob("*"))
        if path.is_file() and path.resolve().is_relative_to(root)
    }


def bundle_files(bundle: Bundle) -> dict[str, SiteFile]:
    """Every file that the manifest lists, by URL."""
    return {f"bundle/{file['path']}": SiteFile(bundle.path / file["path"], file) for file in _listed(bundle)}


def sample_files() -> dict[str, SiteFile]:
    """The packaged photographs by URL."""
    return {f"samples/{name}": SiteFile(PHOTO_FOLDER / name) for name in PHOTOS}


def page_variants(bundle: Bundle, precision: str = "auto") -> list[dict[str, Any]]:
    """The variants that the page may run, the most exact first, and of these one made for browsers.

    Raises:
        BundleError: there is none.
    """
    precisions = PRECISIONS.names() if precision == "auto" else (precision,)
    found = [
        variant
        for one in precisions
        for for_browsers in (True, False)
        for variant in bundle.manifest.variants
        if (variant["format"], variant["precision"]) == ("onnx", one)
        and "accelerator" not in variant
        and ("browser" in variant) == for_browsers
    ]
    if not found:
        there = ", ".join(variant["id"] for variant in bundle.manifest.variants)
        of = "" if precision == "auto" else f" of precision {precision}"
        raise BundleError(
            f"{bundle.path} has no ONNX variant{of}, which is what the page runs; it has {there}: export it "
            "again with --format onnx"
        )
    return found


def files_to_run(variant: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's entries of the files that make up a variant's graphs."""
    graphs = {variant[part]["path"] for part in ("encoder", "decoder", *STAGES) if part in variant}
    return [file for file in variant["files"] if file["path"] in graphs]


def config(
    bundle: Bundle, encode: str, variants: list[dict[str, Any]], limits: Limits | None = None
) -> dict[str, Any]:
    """What the page asks for first: `config.json`. `encode` is of `ENCODE`."""
    return {
        "encode": encode,
        "variants": [variant["id"] for variant in variants],
        **asdict(limits or Limits()),
        "samples": [{"name": Path(name).stem, "path": f"samples/{name}"} for name in PHOTOS],
        "model_id": bundle.manifest.model_id,
    }


def _listed(bundle: Bundle) -> Iterator[dict[str, Any]]:
    data = bundle.manifest.data
    yield data["golden"]
    for variant in data["variants"]:
        yield from variant["files"]
    if "clip" in data:
        yield data["clip"]["tokenizer"]
        yield data["clip"]["golden"]
        for variant in data["clip"]["variants"]:
            yield from variant["files"]
