"""The ASGI application: the site's files, and embeddings of pictures."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.numpy import save
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..bundle.bundle import Bundle
from ..bundle.variant import Variant
from ..errors import ImageError, IntegrityError, SamEdgeError
from ..imaging.io import PixelsError, check_header, decode_image
from ..runtime.embedding_cache import EmbeddingCache
from ..runtime.sam import Sam
from .encodes import Encodes, FullError, GoneError
from .site import Limits, SiteFile, bundle_files, config, page_files, sample_files

# One picture is encoded and the others wait.
PLACES = 9
BODY_SECONDS = 60.0


@dataclass
class Server:
    """What the routes share. Without `sam` no picture is encoded here."""

    bundle: Bundle
    files: dict[str, SiteFile]
    config: dict[str, Any]
    sam: Sam | None
    limits: Limits
    encodes: Encodes
    body_seconds: float = BODY_SECONDS
    cache: EmbeddingCache = field(default_factory=EmbeddingCache)
    # Files whose hash is right, by what tells that they were not changed since.
    checked: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    checking: threading.Lock = field(default_factory=threading.Lock)

    def check(self, file: SiteFile) -> None:
        """Raise `IntegrityError` unless a file of the bundle is the one exported; it is read once."""
        if file.listed is None:
            return
        if not file.path.resolve().is_relative_to(self.bundle.path.resolve()):
            raise IntegrityError(f"{file.path} is a link to a file outside the bundle; copy the file itself")
        with self.checking:
            try:
                known = _identity(file.path)
            except OSError:
                known = ()
            if not known or self.checked.get(file.path) != known:
                self.bundle.check_file(file.listed)
                self.checked[file.path] = known

    def encode(self, sam: Sam, body: bytes) -> bytes:
        """A picture's bytes -> its embedding as safetensors; errors as those of `decode_image`."""
        found = self.cache.encode(sam, decode_image(body, self.limits.max_image_pixels))
        height, width = found.original_size
        facts = {"original_height": str(height), "original_width": str(width), "model_id": found.model}
        return save(dict(found.arrays), facts)


def make_app(
    bundle: Bundle,
    sam: Sam | None,
    encode: str,
    variants: list[Variant],
    page: Path,
    limits: Limits | None = None,
    places: int = PLACES,
    body_seconds: float = BODY_SECONDS,
) -> Starlette:
    """The application, without its `Guard`; its `state.server` is a `Server`.

    Args:
        bundle: what is served.
        sam: encodes pictures; None where `encode` is "page".
        encode: "both", "server" or "page": what the page is told.
        variants: those that the page may run.
        page: the folder of the built page.
        limits: of pictures.
        places: how many pictures are sent, wait or are encoded at a time.
        body_seconds: how long a picture may take to arrive.

    Raises:
        ServeError: the page is not built.
    """
    limits = limits or Limits()
    files = page_files(page) | sample_files() | bundle_files(bundle)
    told = config(bundle, encode, variants, limits)
    app = Starlette(
        routes=[
            Route("/config.json", _config),
            Route("/bundle/manifest.json", _manifest),
            Route("/embeddings", _Embeddings),
            Route("/{path:path}", _file),
        ],
        exception_handlers={
            HTTPException: _http_error,
            ImageError: _image_error,
            SamEdgeError: _other_error,
            Exception: _unknown_error,
        },
    )
    app.state.server = Server(bundle, files, told, sam, limits, Encodes(places), body_seconds)
    return app


async def _config(request: Request) -> Response:
    return JSONResponse(_server(request).config, headers={"Cache-Control": "no-cache"})


async def _manifest(request: Request) -> Response:
    """As it was when the bundle was opened: files that were exported again since do not fit it."""
    data = _server(request).bundle.manifest.data
    return JSONResponse(data, headers={"Cache-Control": "no-cache"})


def _file(request: Request) -> Response:
    """One of the site's files. There are no others, whatever a path looks like: it is looked up whole."""
    server = _server(request)
    name = request.path_params["path"] or "index.html"
    file = server.files.get(name)
    if file is None:
        raise HTTPException(404, f"there is no {name} here")
    server.check(file)
    caching = "no-cache"
    if file.listed is None:
        try:
            tag = "-".join(f"{number:x}" for number in _identity(file.path))
        except OSError:
            raise HTTPException(404, f"{name} is no longer there") from None
    else:
        tag = file.listed.sha256
        asked = request.query_params.get("sha256")
        if asked not in (None, tag):
            raise HTTPException(404, f"{name} has another sha256 than the one asked for; load the page again")
        if asked is not None:
            caching = "max-age=31536000, immutable"
    headers = {"ETag": f'"{tag}"', "Cache-Control": caching}
    known = request.headers.get("if-none-match", "")
    if headers["ETag"] in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(status_code=304, headers=headers)
    return FileResponse(file.path, headers=headers, media_type=file.media_type)


class _Embeddings(HTTPEndpoint):
    async def post(self, request: Request) -> Response:
        """A picture's bytes in, its embedding as safetensors out."""
        server = _server(request)
        if server.sam is None:
            raise HTTPException(404, "this server encodes no pictures; it was started with --encode page")
        kind = request.headers.get("content-type", _BYTES).partition(";")[0].strip().lower()
        if kind != _BYTES and not kind.startswith("image/"):
            raise HTTPException(
                415, f"the file is {kind or 'of no type'}; expected a picture, image/jpeg say"
            )
        try:
            with server.encodes.place():
                body = await _body(request, server.limits.max_body_bytes, server.body_seconds)
                await run_in_threadpool(check_header, body, server.limits.max_image_pixels)
                work = partial(server.encode, server.sam, body)
                found = await server.encodes.run(work, _until_gone(request))
        except FullError as full:
            raise HTTPException(
                503, "too many pictures wait to be encoded", {"Retry-After": str(full.retry_after)}
            ) from None
        except asyncio.CancelledError:
            raise HTTPException(503, "the server was stopped") from None
        except (ClientDisconnect, GoneError):
            return Response(status_code=499)  # nobody reads it
        return Response(found, media_type=_BYTES, headers={"Cache-Control": "no-store"})


_BYTES = "application/octet-stream"


async def _body(request: Request, most: int, seconds: float) -> bytes:
    too_large = HTTPException(413, f"the file has more than the {most} bytes that are taken; make it smaller")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise HTTPException(408, f"the file did not arrive within {seconds:g} seconds") from None
    if size == 0:
        raise ImageError("the file is empty; expected a picture")
    return b"".join(chunks)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _identity(path: Path) -> tuple[int, ...]:
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _image_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 413 if isinstance(error, PixelsError) else 400)


async def _other_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 500)


async def _unknown_error(_: Request, error: Exception) -> Response:
    """The error itself goes on to the server's log."""
    return JSONResponse({"error": "the server failed; its terminal says why"}, 500)
