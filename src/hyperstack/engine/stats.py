"""``stats``: counters from the container's cgroup in the guest, one sample a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hyperstack.engine import claims
from hyperstack.engine.core import Core
from hyperstack.errors import HyperError
from hyperstack.guest import messages
from hyperstack.model import Container


@dataclass(frozen=True, kw_only=True)
class ContainerStats:
    """A sample and the one before it; ``stats`` is None for a container that does not run."""

    container: Container
    read_ns: int
    previous_ns: int = 0
    stats: messages.Stats | None = None
    previous: messages.Stats | None = None
    memory_limit: int = 0
    cpus: int = 1


async def sample(core: Core, container: Container) -> messages.Stats | None:
    """Ask the guest once; None if the container does not run."""
    live = core.live.get(container.id)
    if live is None:
        return None
    try:
        found: messages.Stats = await live.sandbox.call(
            messages.Op.STATS, messages.ContainerRef(id=container.id), timeout=5.0
        )
    except HyperError:
        return None
    return claims.stats(found)


async def stats(
    core: Core, container: Container, *, stream: bool, one_shot: bool
) -> AsyncIterator[ContainerStats]:
    """Yield samples: one (``one_shot``), two a second apart of which the last, or for ever."""
    previous: messages.Stats | None = None
    previous_ns = 0
    if not one_shot and not stream:
        previous, previous_ns = await sample(core, container), time.time_ns()
        await asyncio.sleep(1.0)
    while core.table.find(container.id) is not None:
        now = await sample(core, container)
        read_ns = time.time_ns()
        yield ContainerStats(
            container=container,
            read_ns=read_ns,
            previous_ns=previous_ns,
            stats=now,
            previous=previous,
            memory_limit=_limit(core, container, now),
        )
        if not stream:
            return
        previous, previous_ns = now, read_ns
        await asyncio.sleep(1.0)


def _limit(core: Core, container: Container, now: messages.Stats | None) -> int:
    if container.host.memory:
        return container.host.memory
    live = core.live.get(container.id)
    if live is not None and live.sandbox.info is not None:
        return live.sandbox.info.memory_total
    return now.memory_max if now and now.memory_max > 0 else 0
