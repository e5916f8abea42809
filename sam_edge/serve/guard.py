"""Who may ask, and what every response says to the browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .site import HEADERS

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: refuses other hosts' names and other origins' posts, and adds `HEADERS` to all.

    A page of another site may have its name resolved to this machine (DNS rebinding), and is then of the same
    origin; its name gives it away. An address is no name: it cannot be resolved to something else.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], addresses: bool = False) -> None:
        """`hosts`: names and addresses that a request may be for, beside those of loopback; `addresses`: any
        address is allowed."""
        self._app = app
        self._hosts = _LOOPBACK | {host.casefold() for host in hosts}
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says; anything but HTTP is ignored."""
        if scope["type"] != "http":
            return
        app = self._refusal(scope) or self._app

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            error = (
                f"this server is not {host}; open it by the address that `sam-edge serve` printed, or start "
                "it with that name as --host"
            )
            return JSONResponse({"error": error}, 421)
        if scope["method"] not in _SAFE and not _is_same_origin(headers, host):
            return JSONResponse({"error": "pages of other origins may not post here"}, 403)
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        return name is not None and (name in self._hosts or (self._addresses and _is_address(name)))


def hosts_of(host: str) -> tuple[list[str], bool]:
    """What `Guard` allows beside loopback where the server is bound to `host`: names, and whether addresses.

    Bound to every address of the machine (0.0.0.0 or ::), it goes by each of them, and by the machine's name.
    """
    if not (_is_address(host) and ipaddress.ip_address(host).is_unspecified):
        return [host], False
    own = socket.gethostname()
    return [own, f"{own}.local", socket.getfqdn()], True


def _name_of(host: str) -> str | None:
    """The name or address in a Host header, without its port; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 raises where it is no number
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_same_origin(headers: Headers, host: str) -> bool:
    """Browsers send one of these headers with a post, or both; programs send none."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is None or origin.casefold() in (f"http://{host}".casefold(), f"https://{host}".casefold())
