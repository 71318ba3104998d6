"""``stats``: counters from the container's cgroup in the guest, one sample a second.

CPU time is the host's figure for the container's machine, see ``cputime``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from hyperstack.engine import claims
from hyperstack.engine.core import Core
from hyperstack.engine.cputime import Account
from hyperstack.engine.live import Live
from hyperstack.errors import HyperError
from hyperstack.guest import messages
from hyperstack.ids import ContainerId
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
    found = await _ask(live, container.id)
    return None if found is None else await _as_the_host_counts(core, live, found)


async def _as_the_host_counts(core: Core, live: Live, found: messages.Stats) -> messages.Stats:
    """Put the host's figure of CPU time in the place of the guest's; see ``cputime``."""
    sandbox = live.sandbox
    counted = {live.handle: found.cpu_usage_us}
    if len(sandbox.row.containers) > 1:
        counted |= await _of_siblings(core, live)
    host = core.sandboxes.usage(sandbox.id).cpu_ns // 1000
    if not host:
        return found  # the host does not count
    account = core.accounts.setdefault(sandbox, Account())
    account.settle(host, counted)
    used = account.given.get(live.handle, 0)
    of_guest = max(1, found.cpu_user_us + found.cpu_system_us)
    user = used * found.cpu_user_us // of_guest
    return replace(found, cpu_usage_us=used, cpu_user_us=user, cpu_system_us=used - user)


async def _of_siblings(core: Core, live: Live) -> dict[int, int]:
    """Return what the guest has counted for the others in a machine; those that end, left out."""
    others = [
        other
        for identifier in live.sandbox.row.containers
        if (other := core.live.get(identifier)) is not None
        and other is not live
        and other.sandbox is live.sandbox
    ]
    found = await asyncio.gather(*(_ask(live, other.container.id) for other in others))
    return {o.handle: s.cpu_usage_us for o, s in zip(others, found, strict=True) if s is not None}


async def _ask(live: Live, container: ContainerId) -> messages.Stats | None:
    try:
        found: messages.Stats = await live.sandbox.call(
            messages.Op.STATS, messages.ContainerRef(id=container), timeout=5.0
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
