"""Handlers of the tests' own: each shows one thing that a real handler may do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hyperstack.api.docker import stdcopy
from hyperstack.api.docker.hijack import pump
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.websocket import HandshakeError, WebSocket, handshake
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


@dataclass(kw_only=True)
class Behind:
    """What stands behind the handlers, and what they have seen."""

    bus: EventBus = field(default_factory=EventBus)
    hub: Hub = field(default_factory=Hub)
    process: Process = field(default_factory=Process)
    seen: list[str] = field(default_factory=list)


async def hello(request: Request, engine: Any) -> None:
    await request.answer_json({"version": list(request.version), "query": request.query.all("q")})


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


class Watched:
    """Handlers that tell how far they came."""

    def __init__(self, behind: Behind) -> None:
        self._behind = behind
        self._seen = behind.seen

    async def flood(self, request: Request, engine: Any) -> None:
        stream = await request.start()
        self._seen.append("flood")
        try:
            while True:
                await stream.write(b"x" * 65536)
        finally:
            self._seen.append("flood ended")

    async def forever(self, request: Request, engine: Any) -> None:
        await request.start()
        self._seen.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            self._seen.append("ended")

    async def wait(self, request: Request, engine: Any) -> None:
        await request.read()
        request.connection.end_when_gone()
        await self.forever(request, engine)

    async def change(self, request: Request, engine: Any) -> None:
        self._seen.append("began")
        await asyncio.sleep(0.2)
        self._seen.append("done")
        await request.answer(204)

    async def attach(self, request: Request, engine: Any) -> None:
        tty = request.query.flag("tty")
        session = self._behind.hub.attach(
            tty=tty, kinds=BOTH, stdin=True, end_input=not request.query.flag("keep")
        )
        wire = await request.hijack(stdcopy.media_type(framed=not tty, versioned=True))
        keys = b"\x10\x11" if tty else None
        detached = await pump(wire, session, framed=not tty, stdin=True, keys=keys)
        self._seen.append("detached" if detached else "left")

    async def socket(self, request: Request, engine: Any) -> None:
        try:
            accepted = handshake(request.head)
        except HandshakeError as refused:
            await request.say(refused.answer)
            return
        session = self._behind.hub.attach(tty=False, kinds=BOTH, stdin=True, end_input=True)
        connection = await request.upgrade("websocket", accepted)
        await pump(WebSocket(connection), session, framed=False, stdin=True, keys=None)
        self._seen.append("left")


def add_to(router: Router, behind: Behind) -> None:
    """Add the routes of all these handlers."""
    watched = Watched(behind)
    router.add("GET", "/hello", hello)
    router.add("POST", "/echo", echo)
    router.add("POST", "/take", take)
    router.add("PUT", "/ignore", ignore)
    router.add("GET", "/refuse", refuse)
    router.add("GET", "/unchanged", unchanged)
    router.add("GET", "/broken", broken)
    router.add("GET", "/cut", cut)
    router.add("GET", "/flood", watched.flood, waits=True)
    router.add("GET", "/forever", watched.forever, waits=True)
    router.add("POST", "/wait", watched.wait, waits=True)
    router.add("POST", "/change", watched.change)
    router.add("POST", "/attach", watched.attach)
    router.add("GET", "/ws", watched.socket)
