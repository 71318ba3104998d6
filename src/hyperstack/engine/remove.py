"""``rm``: the container, its disk, its log, its anonymous volumes, its row last."""

from __future__ import annotations

import asyncio
import logging
import shutil

from hyperstack.engine import filling, start, stop
from hyperstack.engine import volumes as volumes_of
from hyperstack.engine.core import Core
from hyperstack.engine.record import record
from hyperstack.errors import Conflict, HyperError, InternalError
from hyperstack.model import Container, Status

log = logging.getLogger(__name__)

TRIES = 5
"""How often a container is brought down that somebody starts again before it can be removed."""


async def remove(
    core: Core, container: Container, *, force: bool, volumes: bool, named: str = ""
) -> None:
    """Remove a container; *force* kills it first, *volumes* takes its anonymous volumes along.

    *named* is how the client calls it. Raises Conflict in Docker's words if it runs, or is being
    removed.
    """
    state = container.state
    if state.status == Status.REMOVING and core.table.lock(container.id).locked():
        raise Conflict(f"removal of container {container.name} is already in progress")
    for _ in range(TRIES):
        await core.settled(container.id)
        if state.status.is_up:
            if not force:
                raise Conflict(_refusal(container, named))
            await _bring_down(core, container)
        async with core.table.lock(container.id):
            if core.table.find(container.id) is None:
                return
            if not state.status.is_up:
                await remove_locked(core, container, volumes=volumes)
                return
    raise Conflict(_refusal(container, named))


async def _bring_down(core: Core, container: Container) -> None:
    container.state.manually_stopped = True
    if (live := core.live.get(container.id)) is not None:
        await stop.kill_live(core, live)
    else:
        await stop.stop_restarting(core, container)


def _refusal(container: Container, named: str) -> str:
    state = container.state.status.value
    if state == "paused":
        why = "container is paused and must be unpaused first"
    else:
        why = f"container is {state}: stop the container before removing or force remove"
    return f'cannot remove container "{named or container.id}": {why}'


async def remove_locked(core: Core, container: Container, *, volumes: bool) -> None:
    """Remove a stopped container whose lock is held. Every step may be repeated after a crash.

    A container that could not be removed to its end is *dead*, and may be removed again.
    """
    container.state.status = Status.REMOVING
    container.state.remove_volumes = volumes
    try:
        await _remove_all(core, container, volumes=volumes)
    except (HyperError, OSError) as error:
        container.state.status = Status.DEAD
        failure = InternalError(f"container {container.id} could not be removed: {error}")
        core.waiters.not_removed(container, failure.message)
        raise failure from error
    core.live.pop(container.id, None)
    hub = core.hubs.pop(container.id, None)
    if hub is not None:
        hub.finish()
    for identifier in [e.id for e in core.execs.values() if e.container == container.id]:
        del core.execs[identifier]
    start.cancel_restart(core, container)
    core.restart_waits.pop(container.id, None)
    await core.images.released()
    core.event(container, "destroy")
    core.waiters.removed(container)


async def _remove_all(core: Core, container: Container, *, volumes: bool) -> None:
    # On a full disk it is the removal that makes room: it does not wait for its record.
    await record(core, container)
    await filling.fill_before_removal(core, container, volumes=volumes)
    await asyncio.to_thread(shutil.rmtree, core.container_dir(container.id), True)
    if volumes:
        others = volumes_of.users_beside(core.table, container.id)
        await core.volumes.drop_anonymous(container.mounts, others)
    await core.table.delete(container)
