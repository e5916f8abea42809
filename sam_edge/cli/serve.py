"""`sam-edge serve`: a page to try a bundle in a browser, from here or as files for any host."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import sys
import warnings
import webbrowser
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ..bundle.bundle import Bundle, open_bundle
from ..bundle.variant import Variant
from ..errors import ServeError
from ..serve import site
from .options import add_load, load_sam

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PORT = 8000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("bundle", type=Path, help="a directory made by `sam-edge export`")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on (127.0.0.1: this machine only; 0.0.0.0: whoever reaches it)",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"0 takes a free one ({PORT})")
    parser.add_argument(
        "--encode",
        choices=site.ENCODE,
        default="both",
        help="where pictures are encoded: here, in the page, or as one chooses there (both)",
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="DIR",
        default=site.find_page(),
        help="a page built elsewhere: web/dist, say",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write the page as static files instead, for any host"
    )
    add_load(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted, or write the static files; prints the page's URL, or what was written."""
    bundle = open_bundle(args.bundle)
    variants = site.page_variants(bundle, args.precision)
    if args.export is not None:
        return _export(args, bundle, variants)
    return _serve(args, bundle, variants)


def _export(args: argparse.Namespace, bundle: Bundle, variants: list[Variant]) -> int:
    from ..serve.static import HEADERS_FILE, export_site

    if args.encode == "server":
        raise ServeError("static files encode nothing on a server; leave --encode server or --export out")
    size = export_site(bundle, variants, args.export, args.page)
    names = ", ".join(variant.id for variant in variants)
    print(f"{args.export}: the page with {names}, {size / 1e6:.1f} MB")
    print(
        f"  give it the headers of {HEADERS_FILE}, which some hosts read by themselves: without its "
        "Cross-Origin-Opener-Policy and\n  Cross-Origin-Embedder-Policy, or without HTTPS, the page works on "
        "one thread"
    )
    return 0


def _serve(args: argparse.Namespace, bundle: Bundle, variants: list[Variant]) -> int:
    import uvicorn  # noqa: F401 before anything is begun

    from ..serve.app import make_app
    from ..serve.guard import Guard, hosts_of

    site.page_files(args.page)
    # Pillow's remarks on odd metadata are no business of the user's.
    warnings.filterwarnings("ignore", module="PIL")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(args.host, args.port))
        sam = None if args.encode == "page" else stack.enter_context(load_sam(args))
        app = make_app(bundle, sam, args.encode, variants, args.page)
        url = url_of(listener)
        print(url, flush=True)
        if sam is not None:
            print(f"encodes with {sam.variant.id} ({sam.backend}, {sam.device})", file=sys.stderr)
        if not _is_loopback(listener):
            print("whoever reaches this machine can use the page; Ctrl-C ends it", file=sys.stderr)
        if args.open:
            webbrowser.open(url)
        _run_until_interrupted(Guard(app, *hosts_of(args.host)), listener)
        try:
            app.state.server.encodes.close()
        except KeyboardInterrupt:
            os._exit(130)  # again: the encode that runs cannot be stopped otherwise
    return 0


def _run_until_interrupted(app: ASGIApp, listener: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # What it would say of requests that it ends is no news to whoever ended it.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            super().handle_exit(sig, frame)

    settings = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(settings).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ServeError: it cannot be had; says why.
    """
    if not 0 <= port <= 65535:
        raise ServeError(f"--port is {port}; expected 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ServeError(f"--host {host} is no address of this machine ({error})") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would take a port that is in use
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ServeError(
            f"cannot listen on {host}, port {port} ({error.strerror}); give another --port (0: a free one) "
            "or --host"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The page's URL on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _is_loopback(listener: socket.socket) -> bool:
    host = listener.getsockname()[0]
    return bool(host == "::1" or host.startswith("127."))
