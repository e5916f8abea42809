"""Refuses requests for foreign hosts and from foreign origins, and adds security headers."""

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
    """ASGI middleware: refuses foreign hosts and cross-origin posts, and adds `HEADERS` to all responses.

    Another site may have its own name resolved to this machine (DNS rebinding); its page is then same-origin,
    but the Host header still has that name. An IP address cannot be rebound.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], addresses: bool = False) -> None:
        """Wrap `app`.

        Args:
            app: the application.
            hosts: names and addresses that are allowed as Host besides those of loopback.
            addresses: allow any IP address as Host.
        """
        self._app = app
        self._hosts = _LOOPBACK | {host.casefold() for host in hosts}
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; anything but HTTP is ignored."""
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
                f"this server does not answer for {host}; open the address that `sam-edge serve` printed, or "
                "start it with that name as --host"
            )
            return JSONResponse({"error": error}, 421)
        if scope["method"] not in _SAFE and not _is_same_origin(headers, host):
            return JSONResponse({"error": "posts from pages of other origins are refused"}, 403)
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        return name is not None and (name in self._hosts or (self._addresses and _is_address(name)))


def allowed_hosts(host: str) -> tuple[list[str], bool]:
    """Return `hosts` and `addresses` of `Guard` for a server bound to `host`.

    A server bound to every address (0.0.0.0 or ::) answers for any address and for the machine's names.
    """
    if not (_is_address(host) and ipaddress.ip_address(host).is_unspecified):
        return [host], False
    name = socket.gethostname()
    return [name, f"{name}.local", socket.getfqdn()], True


def _name_of(host: str) -> str | None:
    """Return the name or address in a Host header, without its port; None if it is malformed."""
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
    """Whether a post is from the same origin or a program: browsers send at least one of these headers."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is None or origin.casefold() in (f"http://{host}".casefold(), f"https://{host}".casefold())
