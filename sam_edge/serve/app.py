"""The ASGI application: the site's files, and embeddings of uploaded images."""

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
from ..imaging.io import ImageTooLargeError, check_header, decode_image
from ..runtime.embedding_cache import EmbeddingCache
from ..runtime.sam import Sam
from .encode_queue import ClientGoneError, EncodeQueue, QueueFullError
from .site import Limits, SiteFile, bundle_files, config, page_files, sample_files

# Requests at a time: one image is encoded and the others wait.
QUEUE_CAPACITY = 9
UPLOAD_SECONDS = 60.0


@dataclass
class Server:
    """State that the routes share.

    Attributes:
        bundle: the bundle.
        files: every file that may be sent, by URL.
        config: the content of config.json.
        sam: encodes images; None where the server encodes none.
        limits: on images.
        queue: of images to encode.
        upload_seconds: how long an upload may take.
        cache: of embeddings.
        verified: files whose hash is right, with what shows that they have not changed since.
        verify_lock: held while `verified` is used.
    """

    bundle: Bundle
    files: dict[str, SiteFile]
    config: dict[str, Any]
    sam: Sam | None
    limits: Limits
    queue: EncodeQueue
    upload_seconds: float = UPLOAD_SECONDS
    cache: EmbeddingCache = field(default_factory=EmbeddingCache)
    verified: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    verify_lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, file: SiteFile) -> None:
        """Raise `IntegrityError` unless a bundle's file is as exported; hashed again only if changed."""
        if file.listed is None:
            return
        if not file.path.resolve().is_relative_to(self.bundle.path.resolve()):
            raise IntegrityError(f"{file.path} is a link to a file outside the bundle; copy the file itself")
        with self.verify_lock:
            try:
                identity = _identity(file.path)
            except OSError:
                identity = ()
            if not identity or self.verified.get(file.path) != identity:
                self.bundle.check_file(file.listed)
                self.verified[file.path] = identity

    def encode(self, sam: Sam, body: bytes) -> bytes:
        """Encode an image file: its bytes -> the embedding as safetensors. Raises as `decode_image`."""
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
    *,
    limits: Limits | None = None,
    queue_capacity: int = QUEUE_CAPACITY,
    upload_seconds: float = UPLOAD_SECONDS,
) -> Starlette:
    """Create the application, without its `Guard`; its `state.server` is a `Server`.

    Args:
        bundle: what is served.
        sam: encodes images; None if `encode` is "page".
        encode: where the page lets images be encoded: "both", "server" or "page".
        variants: the manifest's entries of the variants that the page may run.
        page: the folder of the built page.
        limits: on images; None for the defaults.
        queue_capacity: images that are uploaded, wait or are encoded at a time.
        upload_seconds: how long an upload may take.

    Raises:
        ServeError: the page is not built.
    """
    limits = limits or Limits()
    files = page_files(page) | sample_files() | bundle_files(bundle)
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
    app.state.server = Server(
        bundle=bundle,
        files=files,
        config=config(bundle, encode, variants, limits),
        sam=sam,
        limits=limits,
        queue=EncodeQueue(queue_capacity),
        upload_seconds=upload_seconds,
    )
    return app


async def _config(request: Request) -> Response:
    return JSONResponse(_server(request).config, headers={"Cache-Control": "no-cache"})


async def _manifest(request: Request) -> Response:
    """The manifest as it was when the bundle was opened; files exported since then do not match it."""
    data = _server(request).bundle.manifest.data
    return JSONResponse(data, headers={"Cache-Control": "no-cache"})


def _file(request: Request) -> Response:
    """One of the site's files. Paths are looked up in a table, so that none leads to another file."""
    server = _server(request)
    name = request.path_params["path"] or "index.html"
    file = server.files.get(name)
    if file is None:
        raise HTTPException(404, f"{name} is not a file of this site")
    server.check(file)
    caching = "no-cache"
    if file.listed is None:
        try:
            tag = "-".join(f"{number:x}" for number in _identity(file.path))
        except OSError:
            raise HTTPException(404, f"{name} was removed") from None
    else:
        tag = file.listed.sha256
        asked = request.query_params.get("sha256")
        if asked not in (None, tag):
            raise HTTPException(
                404, f"{name} does not have the sha256 that was requested; load the page again"
            )
        if asked is not None:
            caching = "max-age=31536000, immutable"
    headers = {"ETag": f'"{tag}"', "Cache-Control": caching}
    known = request.headers.get("if-none-match", "")
    if headers["ETag"] in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(status_code=304, headers=headers)
    return FileResponse(file.path, headers=headers, media_type=file.media_type)


class _Embeddings(HTTPEndpoint):
    async def post(self, request: Request) -> Response:
        """An image file's bytes in, its embedding as safetensors out."""
        server = _server(request)
        if server.sam is None:
            raise HTTPException(404, "this server encodes no images; it was started with --encode page")
        kind = request.headers.get("content-type", _BYTES).partition(";")[0].strip().lower()
        if kind != _BYTES and not kind.startswith("image/"):
            raise HTTPException(
                415, f"the file's type is {kind or 'missing'}; expected an image, such as image/jpeg"
            )
        try:
            with server.queue.slot():
                body = await _read_body(request, server.limits.max_body_bytes, server.upload_seconds)
                await run_in_threadpool(check_header, body, server.limits.max_image_pixels)
                work = partial(server.encode, server.sam, body)
                embedding = await server.queue.run(work, _wait_for_disconnect(request))
        except QueueFullError as full:
            raise HTTPException(
                503, "too many images are waiting to be encoded", {"Retry-After": str(full.retry_after)}
            ) from None
        except asyncio.CancelledError:
            raise HTTPException(503, "the server was stopped") from None
        except (ClientDisconnect, ClientGoneError):
            return Response(status_code=499)  # nobody reads it
        return Response(embedding, media_type=_BYTES, headers={"Cache-Control": "no-store"})


_BYTES = "application/octet-stream"


async def _read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Read the body, up to `limit` bytes; raises `HTTPException`, or `ImageError` if it is empty."""
    too_large = HTTPException(413, f"the file is larger than the limit of {limit} bytes; make it smaller")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise HTTPException(408, f"the upload took more than {seconds:g} seconds") from None
    if size == 0:
        raise ImageError("the file is empty; expected an image")
    return b"".join(chunks)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


def _identity(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is changed or replaced."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _image_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 413 if isinstance(error, ImageTooLargeError) else 400)


async def _other_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 500)


async def _unknown_error(_: Request, error: Exception) -> Response:
    """Answer an unexpected error; Starlette raises it again, to be printed by the server."""
    return JSONResponse({"error": "internal error; see the server's terminal"}, 500)
