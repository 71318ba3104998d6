"""A registry that a test teaches to misbehave; it serves images from memory."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from tests.integration.registry.artefacts import Built
from tests.integration.registry.servers import Server, serving

Trick = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True)
class Shelf:
    """What the registry has. A *trick* answers for the path that ends like its key."""

    server: Server
    tricks: dict[str, Trick] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.server.host

    def put(self, built: Built, tag: str = "v1") -> None:
        self.blobs.update(built.blobs)
        for name in (tag, built.digest):
            self.manifests[name] = (built.manifest, built.media_type)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rsplit("/", 1)[-1]
        data, kind = self.blobs.get(name, b""), "application/octet-stream"
        if "/manifests/" in request.path and name in self.manifests:
            data, kind = self.manifests[name]
        for ending, trick in self.tricks.items():
            if request.path.endswith(ending):
                return await trick(request, data)
        if request.path == "/v2/":
            return web.Response()
        if not data:
            return web.Response(status=404)
        return ranged(request, data, kind)


def ranged(request: web.Request, data: bytes, kind: str = "") -> web.Response:
    """Answer with the range that was asked for."""
    headers = {"Content-Type": kind or "application/octet-stream"}
    wanted = request.http_range
    if wanted.start is None:
        return web.Response(body=data, headers=headers)
    headers["Content-Range"] = f"bytes {wanted.start}-{len(data) - 1}/{len(data)}"
    return web.Response(status=206, body=data[wanted.start :], headers=headers)


async def cut(request: web.Request, data: bytes, length: int, said: int) -> web.StreamResponse:
    """Promise *said* bytes, send the first *length* of *data* and hang up."""
    response = web.StreamResponse(headers={"Content-Length": str(said)})
    await response.prepare(request)
    await response.write(data[:length])
    assert request.transport is not None
    request.transport.close()
    return response


@contextlib.asynccontextmanager
async def hostile(context: ssl.SSLContext | None = None) -> AsyncIterator[Shelf]:
    """Serve a shelf on loopback."""
    shelf: list[Shelf] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        return await shelf[0].answer(request)

    async with serving(answer, context) as server:
        shelf.append(Shelf(server=server))
        yield shelf[0]
