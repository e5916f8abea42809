"""Requests to an ASGI application without a server, and an encoder that waits until it is released."""

import asyncio
import json
import threading
from dataclasses import dataclass
from urllib.parse import quote

from sam_edge.testing import mock_sam
from tests.support import PATIENCE

OURS = ("host", "127.0.0.1:8000")


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


async def asked(app, method, path, headers=(), body=b"", query="", gone=None, chunk=1 << 16):
    """One request. `path` is as the server decoded it: no client has made it harmless. The client leaves when
    the event `gone` is set; a body that is None never arrives."""
    sent = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in dict([OURS, *headers]).items()
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": sent,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    never = asyncio.Event()
    parts = [] if body is None else [body[i : i + chunk] for i in range(0, len(body), chunk)] or [b""]

    async def receive():
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        await (gone or never).wait()
        return {"type": "http.disconnect"}

    messages = []

    async def send(message):
        messages.append(message)

    await app(scope, receive, send)
    start = messages[0]
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(m.get("body", b"") for m in messages[1:]))


def ask(app, method, path, *args, **more):
    return asyncio.run(asked(app, method, path, *args, **more))


def post(app, body, kind="image/jpeg", headers=(), **more):
    return ask(app, "POST", "/embeddings", [("content-type", kind), *headers], body, **more)


class HeldSam:
    """Encodes nothing until it is let go."""

    def __init__(self):
        self._sam = mock_sam(64)
        self.manifest, self.variant = self._sam.manifest, self._sam.variant
        self.began = []
        self.go = threading.Event()

    def encode(self, image):
        self.began.append(image.shape[:2])
        assert self.go.wait(PATIENCE)
        return self._sam.encode(image)
