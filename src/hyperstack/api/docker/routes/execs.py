"""Execs: further processes in running containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hyperstack.api.docker import detach, stdcopy
from hyperstack.api.docker.connection import Connection
from hyperstack.api.docker.hijack import pump
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.routes.containers import terminal_size
from hyperstack.api.docker.schema.create import EXEC, EXEC_START, ExecStart
from hyperstack.api.docker.schema.execution import exec_inspect
from hyperstack.errors import HyperError, InternalError, InvalidParameter
from hyperstack.model import Exec, ExecConfig, StreamKind

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("POST", "/containers/{name}/exec", create)
    router.add("POST", "/exec/{name}/start", start)
    router.add("POST", "/exec/{name}/resize", resize)
    router.add("GET", "/exec/{name}/json", inspect)


async def create(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/exec``"""
    config: ExecConfig = await request.object(EXEC)
    if not config.cmd:
        raise InvalidParameter("No exec command specified")
    try:
        detach.parse(config.detach_keys)
    except InvalidParameter:
        engine.execs.check(request.name)
        raise InternalError(f"Invalid escape keys ({config.detach_keys}) provided") from None
    if not request.at_least("1.42"):
        config = msgspec.structs.replace(config, console_size=(0, 0))
    identifier = await engine.execs.create(request.name, config)
    await request.answer_json({"Id": identifier}, 201)


async def start(request: Request, engine: Engine) -> None:
    """``POST /exec/{name}/start``: detached, or on a taken-over connection."""
    body: ExecStart = await request.object(EXEC_START)
    execution = engine.execs.usable(request.name)
    size = body.console_size if body.tty and request.at_least("1.42") else (0, 0)
    if body.detach:
        await engine.execs.start(execution.id, detach=True, tty=body.tty, console_size=size)
        await request.answer(200)
        return
    # The head goes out before the process is there, as with dockerd: clients whose HTTP library
    # reads ahead would lose output that comes along with it.
    framed = not body.tty
    wire = await request.hijack(
        stdcopy.media_type(
            framed=framed, versioned=request.at_least("1.42") and bool(request.head.upgrade)
        ),
        standing=True,
    )
    try:
        session = await engine.execs.start(
            execution.id, detach=False, tty=body.tty, console_size=size
        )
    except HyperError as error:
        await _say_refusal(wire, error.message, framed=framed)
        return
    assert session is not None
    await wire.until_read()
    config = execution.config
    keys = detach.parse(config.detach_keys) if config.tty and config.attach_stdin else None
    if await pump(wire, session, framed=framed, stdin=config.attach_stdin, keys=keys):
        _tell_detached(engine, execution)


async def _say_refusal(wire: Connection, message: str, *, framed: bool) -> None:
    """Tell on stdout why the command can't run, as Docker does: the CLI then asks for its code."""
    await wire.until_read()
    text = f"{message}\r\n".encode()
    await wire.write(stdcopy.header(StreamKind.STDOUT, len(text)) if framed else b"", text)


def _tell_detached(engine: Engine, execution: Exec) -> None:
    container = engine.core.table.find(execution.container)
    if container is not None:
        engine.core.event(container, "exec_detach", execID=execution.id)


async def resize(request: Request, engine: Engine) -> None:
    """``POST /exec/{name}/resize``"""
    rows, columns = terminal_size(request)
    await engine.execs.resize(request.name, rows, columns)
    await request.answer(200)


async def inspect(request: Request, engine: Engine) -> None:
    """``GET /exec/{name}/json``"""
    await request.answer_json(exec_inspect(engine.execs.get(request.name)))
