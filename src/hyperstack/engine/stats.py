"""``stats``: counters from the container's cgroup in the guest, one sample a second.

CPU time is the host's figure for the container's machine, see ``_as_the_host_counts``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from hyperstack.engine import claims
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
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
    return _as_the_host_counts(core, live, claims.stats(found))


def _as_the_host_counts(core: Core, live: Live, found: messages.Stats) -> messages.Stats:
    """Put the host's figure of CPU time in the place of the guest's.

    A guest counts the ticks of its clock, also those in which the host gave its CPU to others or
    held it back (``--cpus``). Containers that share a machine can only be told apart by the guest.
    """
    row = live.sandbox.row
    if len(row.containers) != 1:
        return found
    used = core.sandboxes.usage(row.id).cpu_ns // 1000
    if not used:
        return found  # the host does not count
    of_guest = max(1, found.cpu_user_us + found.cpu_system_us)
    user = used * found.cpu_user_us // of_guest
    return replace(found, cpu_usage_us=used, cpu_user_us=user, cpu_system_us=used - user)


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
