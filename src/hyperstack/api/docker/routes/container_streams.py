"""Containers: attach, logs, stats, wait, top: what is watched rather than changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from hyperstack.api.docker import detach, gojson, stdcopy, websocket
from hyperstack.api.docker.closing import closing
from hyperstack.api.docker.coalesce import Coalescer
from hyperstack.api.docker.errors import status_of
from hyperstack.api.docker.gotime import rfc3339fixed
from hyperstack.api.docker.hijack import pump
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema.stats import container_stats, system_cpu_ns
from hyperstack.engine.session import Session
from hyperstack.engine.until import parse_unix
from hyperstack.errors import Conflict, HyperError, InvalidParameter
from hyperstack.model import Container, LogQuery, LogRecord, Status

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\Z")


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("POST", "/containers/{name}/attach", attach)
    router.add("GET", "/containers/{name}/attach/ws", attach_websocket)
    router.add("GET", "/containers/{name}/logs", logs, waits=True)
    router.add("GET", "/containers/{name}/stats", stats, waits=True)
    router.add("POST", "/containers/{name}/wait", wait, waits=True)
    router.add("GET", "/containers/{name}/top", top)


async def attach(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/attach``"""
    try:
        container, keys, session = await _join(request, engine)
    except HyperError as refused:
        # As dockerd: the connection is to be the stream's, so no JSON and nothing after it.
        request.keep_alive = False
        await request.answer(
            status_of(refused), f"{refused.message}\r\n".encode(), content_type=stdcopy.RAW
        )
        return
    framed = not container.config.tty
    try:
        wire = await request.hijack(
            stdcopy.media_type(
                framed=framed, versioned=request.at_least("1.42") and bool(request.head.upgrade)
            )
        )
        if request.query.flag("logs"):
            await wire.until_read()
    except BaseException:
        session.close()
        raise
    stdin = request.query.flag("stdin")
    detached = await pump(
        wire,
        session,
        framed=framed,
        stdin=stdin and container.config.open_stdin,
        keys=keys if container.config.tty and stdin else None,
    )
    if detached:
        engine.core.event(container, "detach")


async def _join(request: Request, engine: Engine) -> tuple[Container, bytes, Session]:
    """Return the container, the detach keys, and a session: over already if nothing is wanted."""
    query = request.query
    keys = detach.parse(query.text("detachKeys"))
    container = engine.containers.get(request.name)
    session = await engine.containers.attach(
        request.name,
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
    )
    return container, keys, session


async def attach_websocket(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/attach/ws``: raw bytes both ways, stdout and stderr together."""
    query = request.query
    container, keys, session = await _join(request, engine)
    try:
        accepted = websocket.handshake(request.head)
        connection = await request.upgrade("websocket", accepted)
    except websocket.HandshakeError as refused:
        session.close()
        await request.say(refused.answer)
        return
    except BaseException:
        session.close()
        raise
    wire = websocket.WebSocket(connection)
    await pump(
        wire,
        session,
        framed=False,
        stdin=query.flag("stdin") and container.config.open_stdin,
        keys=keys if container.config.tty else None,
    )
    if not connection.gone:
        await wire.close()


def _check_streams(request: Request) -> None:
    if not (request.query.flag("stdout") or request.query.flag("stderr")):
        raise InvalidParameter("Bad parameters: you must choose at least one stream")


def _log_query(request: Request) -> LogQuery:
    query = request.query
    tail = query.text("tail")
    since, until = query.text("since"), query.text("until")
    return LogQuery(
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        follow=query.flag("follow"),
        since_ns=parse_unix(since or "0"),
        until_ns=parse_unix(until) if until not in ("", "0") else 0,
        tail=max(-1, int(tail)) if _NUMBER.match(tail) else -1,
    )


async def logs(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/logs``"""
    _check_streams(request)
    container = engine.containers.get(request.name)
    records = await engine.containers.open_logs(container.id, _log_query(request))
    framed = not container.config.tty
    stamped, detailed = request.query.flag("timestamps"), request.query.flag("details")
    stream = await request.start(
        content_type=stdcopy.media_type(framed=framed, versioned=request.at_least("1.42"))
    )
    coalescer = Coalescer(stream)
    async with closing(records):
        async for record in records:
            data = _log_line(record, stamped=stamped, detailed=detailed)
            if framed:
                await coalescer.put(stdcopy.header(record.stream, len(data)), data)
            else:
                await coalescer.put(data)
    await coalescer.flush()
    await stream.end()


def _log_line(record: LogRecord, *, stamped: bool, detailed: bool) -> bytes:
    data = record.data
    if detailed:
        pairs = ",".join(
            f"{quote_plus(key)}={quote_plus(value)}"
            for key, value in sorted(record.attributes.items())
        )
        data = f"{pairs} ".encode() + data
    if stamped:
        data = f"{rfc3339fixed(record.time_ns)} ".encode() + data
    return data


async def stats(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/stats``"""
    query = request.query
    streaming = query.flag("stream", True)
    one_shot = query.flag("one-shot") and request.at_least("1.41")
    container = engine.containers.get(request.name)
    if streaming and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    samples = engine.containers.stats(container.id, stream=streaming, one_shot=one_shot)
    answer = await request.start()
    previous = 0 if streaming or one_shot else system_cpu_ns()
    async with closing(samples):
        async for sample in samples:
            now = system_cpu_ns()
            made = container_stats(sample, system_ns=now, previous_system_ns=previous)
            await answer.write(gojson.encode(made))
            previous = now
    await answer.end()


async def wait(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/wait``: the head goes out as soon as the wait is registered."""
    await request.read()  # nothing is in it, but the client's end comes after it
    request.connection.end_when_gone()
    condition = request.query.text("condition") if request.at_least("1.30") else ""
    waiting = await engine.containers.prepare_wait(request.name, condition)
    try:
        answer = await request.start()
        result = await waiting.result()
    finally:
        waiting.cancel()
    made: dict[str, Any] = {"StatusCode": result.exit_code}
    if result.error:
        made["Error"] = {"Message": result.error}
    await answer.write(gojson.encode(made))
    await answer.end()


async def top(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/top``"""
    container: Container = engine.containers.get(request.name)
    if container.state.status is Status.REMOVING:
        raise Conflict(f"container {container.id} is being removed")
    titles, processes = await engine.containers.top(container.id, request.query.text("ps_args"))
    await request.answer_json({"Processes": processes, "Titles": titles})
