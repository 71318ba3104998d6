"""A server on a unix socket, with a few handlers of the tests' own beside real routes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hyperstack.api.docker import gojson
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.routes import events, unavailable
from hyperstack.api.docker.server import ApiServer
from tests.unit.api import handlers
from tests.unit.api.handlers import Behind


@dataclass(kw_only=True)
class Api(Behind):
    """A running server, and what stands behind its handlers."""

    path: str
    server: ApiServer

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def ask(self, request: bytes, *, timeout: float = 5.0) -> bytes:
        """Send bytes, return all that comes back until the server closes."""
        reader, writer = await self.open()
        writer.write(request)
        async with asyncio.timeout(timeout):
            answer = await reader.read()
        writer.close()
        return answer

    async def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, bytes, bytes]:
        """Return status, head and body of one request."""
        extra = "".join(f"{header}\r\n" for header in headers)
        answer = await self.ask(
            f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{extra}\r\n".encode()
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body


def routes(behind: Behind) -> Router:
    """Return the tests' own routes and those that need no engine."""
    router = Router()
    handlers.add_to(router, behind)
    events.add_to(router)
    unavailable.add_to(router)
    return router


@contextlib.asynccontextmanager
async def serving(
    folder: Path, tls: ssl.SSLContext | None = None, *, tcp: bool = False
) -> AsyncIterator[Api]:
    """Run a server on a unix socket (or on loopback, where ``path`` is the port)."""
    behind = Behind()
    behind.hub.gate.open(behind.process)
    engine = cast(Any, SimpleNamespace(events=behind.bus))
    server = ApiServer(engine, routes(behind))
    loop = asyncio.get_running_loop()
    path = str(folder / "api.sock")
    if tcp:
        listening = await loop.create_server(
            lambda: server.connection(tls, over_tcp=True), "127.0.0.1", 0
        )
        path = str(listening.sockets[0].getsockname()[1])
    else:
        listening = await loop.create_unix_server(lambda: server.connection(tls), path)
    try:
        yield Api(path=path, server=server, **vars(behind))
    finally:
        listening.close()
        await server.close()
        assert server.connections == 0


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A server on a unix socket."""
    async with serving(tmp_path) as found:
        yield found


def message(body: bytes) -> str:
    """Return the sentence of an error's body."""
    found = gojson.decode(body)
    assert set(found) == {"message"}
    return str(found["message"])
