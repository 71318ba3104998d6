"""Restart policies (``--restart``) and the ``restart`` verb.

As Docker: the wait begins at 100 ms and doubles to a minute; a container that lived for ten seconds
starts again from 100 ms; one that the user stopped stays down until the user starts it.
"""

from __future__ import annotations

import asyncio
import logging

from hyperstack.engine import start, stop
from hyperstack.engine.core import Core
from hyperstack.engine.record import record
from hyperstack.errors import HyperError, NotModified
from hyperstack.model import Container, Status

log = logging.getLogger(__name__)

FIRST = 0.1
LONGEST = 60.0
STEADY = 10.0
"""Seconds of life after which a container counts as having come up."""

_waits: dict[str, float] = {}


def wanted(core: Core, container: Container, *, stopping: bool) -> bool:
    """Tell whether the policy starts the container again after it has ended."""
    policy, state = container.host.restart_policy, container.state
    if state.manually_stopped or stopping or core.closing:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure" and state.exit_code != 0:
        limit = policy.maximum_retry_count
        return limit == 0 or state.restart_count < limit
    return False


def schedule(core: Core, container: Container, lifetime: float) -> None:
    """Start the container again after the wait that its history earns."""
    wait = FIRST if lifetime >= STEADY else min(_waits.get(container.id, FIRST / 2) * 2, LONGEST)
    _waits[container.id] = wait
    core.restarts[container.id] = core.tasks.start(
        f"restart {container.id[:12]}", _later(core, container, wait)
    )


async def _later(core: Core, container: Container, wait: float) -> None:
    await asyncio.sleep(wait)
    async with core.table.lock(container.id):
        core.restarts.pop(container.id, None)
        if container.state.status != Status.RESTARTING or core.closing:
            return
        container.state.restart_count += 1
        try:
            await start.start_locked(core, container)
            return
        except HyperError as error:
            log.warning("restart of %s failed: %s", container.name, error)
        if wanted(core, container, stopping=False):
            container.state.status = Status.RESTARTING
            await record(core, container)
            schedule(core, container, 0.0)
        else:
            core.waiters.exited(container)


def forget(container: Container) -> None:
    """Drop a removed container's history."""
    _waits.pop(container.id, None)


async def restart(
    core: Core, container: Container, *, timeout: int | None, signal: str | None
) -> None:
    """Stop a container if it runs, and start it."""
    if container.state.status.is_up:
        try:
            await stop.stop(core, container, timeout=timeout, signal=signal, restarting=True)
        except NotModified:
            log.debug("%s had ended before its restart", container.name)
    await start.start(core, container)
    core.event(container, "restart")
