"""A server on a unix socket, with a few handlers of the tests' own beside real routes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hyperstack.api.docker import gojson, stdcopy
from hyperstack.api.docker.hijack import pump
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.routes import events, unavailable
from hyperstack.api.docker.server import ApiServer
from hyperstack.api.docker.websocket import WebSocket, accept
from hyperstack.engine.session import Hub
from hyperstack.errors import Conflict, NotModified
from hyperstack.events import EventBus
from hyperstack.model import StreamKind

BOTH = frozenset({StreamKind.STDOUT, StreamKind.STDERR})


class Process:
    """The far end of a session's stdin: keeps what arrives."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.data += data

    async def eof(self) -> None:
        self.ended.set()


@dataclass
class Api:
    """A running server and what its handlers have seen."""

    path: str
    server: ApiServer
    bus: EventBus
    hub: Hub
    process: Process
    seen: list[str] = field(default_factory=list)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def ask(self, request: bytes, *, timeout: float = 5.0) -> bytes:
        """Send bytes, close the sending side, return all that comes back."""
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


def routes(api: dict[str, Api]) -> Router:
    """Return the tests' own routes and those that need no engine."""
    router = Router()

    async def hello(request: Request, engine: Any) -> None:
        await request.answer_json(
            {"version": list(request.version), "query": request.query.all("q")}
        )

    async def echo(request: Request, engine: Any) -> None:
        await request.answer(200, await request.read(), "application/octet-stream")

    async def take(request: Request, engine: Any) -> None:
        await request.answer_json(await request.json(needed=True))

    async def ignore(request: Request, engine: Any) -> None:
        await request.answer(404, b"{}")

    async def refuse(request: Request, engine: Any) -> None:
        raise Conflict("it is in use")

    async def unchanged(request: Request, engine: Any) -> None:
        raise NotModified("as it was")

    async def broken(request: Request, engine: Any) -> None:
        raise RuntimeError("a secret detail")

    async def cut(request: Request, engine: Any) -> None:
        stream = await request.start()
        await stream.write(b"half")
        raise Conflict("failed on the way")

    async def flood(request: Request, engine: Any) -> None:
        stream = await request.start()
        api["api"].seen.append("flood")
        try:
            while True:
                await stream.write(b"x" * 65536)
        finally:
            api["api"].seen.append("flood ended")

    async def forever(request: Request, engine: Any) -> None:
        await request.start()
        api["api"].seen.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            api["api"].seen.append("ended")

    async def change(request: Request, engine: Any) -> None:
        api["api"].seen.append("began")
        await asyncio.sleep(0.2)
        api["api"].seen.append("done")
        await request.answer(204)

    async def attach(request: Request, engine: Any) -> None:
        here = api["api"]
        tty = request.query.flag("tty")
        session = here.hub.attach(
            tty=tty, kinds=BOTH, stdin=True, end_input=not request.query.flag("keep")
        )
        wire = await request.hijack(stdcopy.media_type(framed=not tty, versioned=True))
        keys = b"\x10\x11" if tty else None
        detached = await pump(wire, session, framed=not tty, stdin=True, keys=keys)
        here.seen.append("detached" if detached else "left")

    async def socket(request: Request, engine: Any) -> None:
        here = api["api"]
        session = here.hub.attach(tty=False, kinds=BOTH, stdin=True, end_input=True)
        answer = accept(request.head.headers["sec-websocket-key"])
        connection = await request.upgrade("websocket", [("Sec-WebSocket-Accept", answer)])
        await pump(WebSocket(connection), session, framed=False, stdin=True, keys=None)
        here.seen.append("left")

    for method, path, handler, waits in (
        ("GET", "/hello", hello, False),
        ("POST", "/echo", echo, False),
        ("POST", "/take", take, False),
        ("PUT", "/ignore", ignore, False),
        ("GET", "/refuse", refuse, False),
        ("GET", "/unchanged", unchanged, False),
        ("GET", "/broken", broken, False),
        ("GET", "/cut", cut, False),
        ("GET", "/flood", flood, True),
        ("GET", "/forever", forever, True),
        ("POST", "/change", change, False),
        ("POST", "/attach", attach, False),
        ("GET", "/ws", socket, False),
    ):
        router.add(method, path, handler, waits=waits)
    events.add_to(router)
    unavailable.add_to(router)
    return router


@contextlib.asynccontextmanager
async def serving(
    folder: Path, tls: ssl.SSLContext | None = None, *, tcp: bool = False
) -> AsyncIterator[Api]:
    """Run a server on a unix socket (or on loopback, where ``path`` is the port)."""
    bus = EventBus()
    hub = Hub()
    process = Process()
    hub.gate.open(process)
    found: dict[str, Api] = {}
    engine = cast(Any, SimpleNamespace(events=bus))
    server = ApiServer(engine, routes(found))
    loop = asyncio.get_running_loop()
    path = str(folder / "api.sock")
    if tcp:
        listening = await loop.create_server(
            lambda: server.connection(tls, over_tcp=True), "127.0.0.1", 0
        )
        path = str(listening.sockets[0].getsockname()[1])
    else:
        listening = await loop.create_unix_server(lambda: server.connection(tls), path)
    api = found["api"] = Api(path, server, bus, hub, process)
    try:
        yield api
    finally:
        listening.close()
        await server.close()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A server on a unix socket."""
    async with serving(tmp_path) as found:
        yield found
        assert found.server.connections == 0 or found.seen is not None


def message(body: bytes) -> str:
    """Return the sentence of an error's body."""
    found = gojson.decode(body)
    assert set(found) == {"message"}
    return str(found["message"])
