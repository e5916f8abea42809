"""`sam-edge serve`: serve a page to try a bundle in a browser, or write it as static files."""

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
        help="the address to listen on; 0.0.0.0 to be reachable from other machines (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"the port; 0 for any free one (default: {PORT})"
    )
    parser.add_argument(
        "--encode",
        choices=site.ENCODE,
        default="both",
        help="where images are encoded: on the server, in the page, or as chosen in the page (default: both)",
    )
    parser.add_argument(
        "--page",
        type=Path,
        metavar="DIR",
        help="the built page, such as web/dist (default: the installed one)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write static files for any host, and serve nothing"
    )
    add_load(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted and print the page's URL; or write static files and print what was written."""
    page = args.page or site.find_page()
    bundle = open_bundle(args.bundle)
    variants = site.page_variants(bundle, args.precision)
    if args.export is not None:
        return _export(args, bundle, variants, page)
    return _serve(args, bundle, variants, page)


def _export(args: argparse.Namespace, bundle: Bundle, variants: list[Variant], page: Path) -> int:
    from ..serve.static import HEADERS_FILE, export_site

    if args.encode == "server":
        raise ServeError(
            "static files have no server to encode images; leave out --encode server or --export"
        )
    size = export_site(bundle, variants, args.export, page)
    names = ", ".join(variant.id for variant in variants)
    print(f"{args.export}: the page with {names}, {size / 1e6:.1f} MB")
    print(
        f"  serve it over HTTPS with the headers in {HEADERS_FILE}, which some hosts read by themselves; "
        "without\n  Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy the page runs on one thread"
    )
    return 0


def _serve(args: argparse.Namespace, bundle: Bundle, variants: list[Variant], page: Path) -> int:
    import uvicorn  # noqa: F401 fails early if it is not installed

    from ..serve.app import make_app
    from ..serve.guard import Guard, allowed_hosts

    site.page_files(page)
    # Pillow warns of odd metadata, which does not affect the pixels.
    warnings.filterwarnings("ignore", module="PIL")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(args.host, args.port))
        sam = None if args.encode == "page" else stack.enter_context(load_sam(args))
        app = make_app(bundle, sam, args.encode, variants, page)
        url = url_of(listener)
        print(url, flush=True)
        if sam is not None:
            print(f"encodes with {sam.variant.id} ({sam.backend}, {sam.device})", file=sys.stderr)
        if not _is_loopback(listener):
            print("other machines can reach this page; Ctrl-C stops the server", file=sys.stderr)
        if args.open:
            webbrowser.open(url)
        _run_until_interrupted(Guard(app, *allowed_hosts(args.host)), listener)
        try:
            app.state.server.queue.close()
        except KeyboardInterrupt:
            os._exit(130)  # a second Ctrl-C: an encode in progress cannot be stopped otherwise
    return 0


def _run_until_interrupted(app: ASGIApp, listener: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # Its errors about requests that it cuts off are expected.
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
    """Return a socket that listens on that address.

    Raises:
        ServeError: the address or the port cannot be used.
    """
    if not 0 <= port <= 65535:
        raise ServeError(f"--port is {port}; expected 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ServeError(f"--host {host} is not an address of this machine ({error})") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows this would share a port that is in use
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
    """Return the page's URL on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _is_loopback(listener: socket.socket) -> bool:
    host = listener.getsockname()[0]
    return bool(host == "::1" or host.startswith("127."))
