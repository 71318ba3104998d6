"""``attach``: a client joins a container's terminal or streams, before or while it runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from hyperstack.engine import logs
from hyperstack.engine.core import Core
from hyperstack.engine.session import Session
from hyperstack.errors import Conflict
from hyperstack.model import Container, LogQuery, Status, StreamKind


async def attach(
    core: Core,
    container: Container,
    reference: str,
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    stream: bool,
    logs_too: bool,
) -> Session:
    """Attach a client. With *logs_too* what was logged so far comes first.

    *reference* is what the client calls the container. Raises Conflict if it is paused or
    restarting.
    """
    if container.state.status == Status.PAUSED:
        raise Conflict(f"container {reference} is paused, unpause the container before attach")
    if container.state.status == Status.RESTARTING:
        raise Conflict(f"container {reference} is restarting, wait until the container is running")
    kinds = frozenset(
        kind
        for kind, wanted in ((StreamKind.STDOUT, stdout), (StreamKind.STDERR, stderr))
        if wanted
    )
    config = container.config
    past = await _past(core, container, kinds) if logs_too else None
    if stream:
        session = core.hub(container.id).attach(
            tty=config.tty,
            kinds=kinds,
            stdin=stdin and config.open_stdin,
            end_input=config.stdin_once,
        )
        if not stdin and not kinds:
            session.end()
    else:
        session = Session(tty=config.tty, kinds=kinds, gate=None)
    if past is not None:
        session.prepend(past)
    if not stream:
        session.end()
    core.event(container, "attach")
    return session


async def _past(
    core: Core, container: Container, kinds: frozenset[StreamKind]
) -> AsyncIterator[tuple[StreamKind, bytes]]:
    """Return what was logged up to now: what comes later reaches the session by itself."""
    query = LogQuery(
        stdout=StreamKind.STDOUT in kinds,
        stderr=StreamKind.STDERR in kinds,
        until_ns=time.time_ns(),
    )
    records = await logs.open_logs(core, container, query)
    return ((record.stream, record.data) async for record in records)
