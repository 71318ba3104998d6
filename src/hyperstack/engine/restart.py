"""Restart policies (``--restart``) and the ``restart`` verb.

As Docker: the wait begins at 100 ms and doubles to a minute; a container that lived for ten seconds
starts again from 100 ms; one that the user stopped stays down until the user starts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from hyperstack.engine import joining, start, stop
from hyperstack.engine.core import Core
from hyperstack.engine.record import record
from hyperstack.errors import HyperError, NotModified
from hyperstack.model import Container, Status

log = logging.getLogger(__name__)

FIRST = 0.1
LONGEST = 60.0
PATIENCE = 60.0
"""Seconds for which a container waits for one that it joins."""
STEADY = 10.0
"""Seconds of life after which a container counts as having come up."""


def wanted(core: Core, container: Container, *, stopping: bool) -> bool:
    """Tell whether the policy starts the container again after it has ended."""
    policy, state = container.host.restart_policy, container.state
    if state.manually_stopped or stopping:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    return failed(container)


def failed(container: Container) -> bool:
    """Tell whether a container has ended with a failure upon which its policy starts it again."""
    policy, state = container.host.restart_policy, container.state
    limit = policy.maximum_retry_count
    tries_left = limit == 0 or state.restart_count < limit
    return policy.name == "on-failure" and state.exit_code != 0 and tries_left


def schedule(core: Core, container: Container, lifetime: float) -> None:
    """Start the container again after the wait that its history earns."""
    last = core.restart_waits.get(container.id, FIRST / 2)
    wait = FIRST if lifetime >= STEADY else min(last * 2, LONGEST)
    core.restart_waits[container.id] = wait
    _begin(core, container, _later(core, container, wait))


def at_boot(core: Core, container: Container, gate: asyncio.Semaphore) -> None:
    """Start a container that its policy wants up, as soon as *gate* lets it."""
    container.state.status = Status.RESTARTING

    async def in_turn() -> None:
        await _joined_first(core, container)
        async with gate:
            await _start(core, container)

    _begin(core, container, in_turn())


async def _joined_first(core: Core, container: Container) -> None:
    """Wait for those that are to be up as well and that the container joins."""
    own = core.restarts.get(container.id)
    for target in joining.named(core.table, container):
        task = core.restarts.get(target.id)
        if task is not None and task is not own:
            await asyncio.wait({task}, timeout=PATIENCE)


def _begin(core: Core, container: Container, start_: Coroutine[Any, Any, None]) -> None:
    core.restarts[container.id] = core.tasks.start(f"restart {container.id[:12]}", start_)


async def _later(core: Core, container: Container, wait: float) -> None:
    await asyncio.sleep(wait)
    await _start(core, container)


async def _start(core: Core, container: Container) -> None:
    async with core.table.lock(container.id):
        core.restarts.pop(container.id, None)
        if container.state.status != Status.RESTARTING or core.closing:
            return
        try:
            await start.start_locked(core, container)
            return
        except HyperError as error:
            log.warning("restart of %s failed: %s", container.name, error)
        if wanted(core, container, stopping=False):
            container.state.status = Status.RESTARTING
            container.state.restart_count += 1
            await record(core, container)
            schedule(core, container, 0.0)
        else:
            core.waiters.exited(container)


async def restart(
    core: Core, container: Container, *, timeout: int | None, signal: str | None
) -> None:
    """Stop a container if it runs, and start it."""
    try:
        await stop.stop(core, container, timeout=timeout, signal=signal, restarting=True)
    except NotModified:
        log.debug("%s did not run before its restart", container.name)
    try:
        await start.start(core, container)
    except NotModified:
        log.debug("somebody else has started %s meanwhile", container.name)
    core.event(container, "restart")
