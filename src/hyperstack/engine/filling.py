"""Filling new volumes in the order in which Docker would have.

Docker copies what an image has at a volume's place when a container is made; here the first start
of the container does, in its guest, because the host unpacks no image. So before a container starts
with an empty volume, those made before it that have it, and never started, get their turn; what
a container has read-only is filled before, as its own guest could not; and one that is removed
before its first start fills what it leaves behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from hyperstack.engine import archive
from hyperstack.engine.core import Core
from hyperstack.engine.rooms import fills, is_empty
from hyperstack.engine.volumes import users_beside
from hyperstack.errors import HyperError
from hyperstack.model import Container, MountState

log = logging.getLogger(__name__)


async def fill_in_turn(core: Core, container: Container) -> None:
    """Let the empty volumes of *container* be filled by who comes before its own guest.

    Its lock is held; those of others are waited for, of older ones only, so nobody waits in a ring.
    """
    own = False
    for mount in container.mounts:
        if mount.type != "volume":
            continue
        await _fill_by_others(core, container, mount)
        if not mount.read_write and fills(core, container, mount) and await _waits(core, mount):
            own = True
    if own:
        await _fill(core, container)


async def fill_before_removal(core: Core, container: Container, *, volumes: bool) -> None:
    """Fill what a container that was never started leaves behind; its lock is held.

    *volumes*: its anonymous volumes go with it. What goes wrong does not hold up its removal.
    """
    try:
        waiting = [mount for mount in container.mounts if _stays(core, container, mount, volumes)]
        for mount in waiting:
            await _fill_by_others(core, container, mount)
        if any([await _waits(core, mount) for mount in waiting]):
            await _fill(core, container)
    except HyperError as error:
        log.warning("volumes of %s stay as they are: %s", container.name, error)


def _stays(core: Core, container: Container, mount: MountState, volumes: bool) -> bool:
    """Tell whether a container would have filled this mount, and leaves it behind."""
    if not fills(core, container, mount):
        return False
    goes = volumes and core.volumes.get(mount.name).anonymous
    return not goes or bool(users_beside(core.table, container.id)(mount.name))


async def _fill(core: Core, container: Container) -> None:
    """Have a guest in which nothing runs fill the container's volumes."""
    try:
        sandbox = await archive.service(core, container, mounted=True)
        await core.sandboxes.end(sandbox, clean=True)
    finally:
        await core.volumes.release(container.mounts, container.id)


async def _waits(core: Core, mount: MountState) -> bool:
    """Tell whether a volume is a directory of the host with nothing in it."""
    volume = core.volumes.get(mount.name)
    plain = volume.host_mount is None
    return plain and await asyncio.to_thread(is_empty, core.volumes.path(volume))


async def _fill_by_others(core: Core, container: Container, mount: MountState) -> None:
    if not await _waits(core, mount):
        return
    for other in list(_before(core, container, mount.name)):
        try:
            async with archive.reach(core, other, mounted=True, told=False):
                pass  # that its mounts are there is all
        except HyperError as error:
            log.warning("container %s can't fill volume %s: %s", other.name, mount.name, error)
        if not await _waits(core, mount):
            return


def _before(core: Core, container: Container, volume: str) -> Iterator[Container]:
    """Yield those that would have filled a volume before *container*, oldest first."""
    for other in sorted(core.table, key=lambda found: found.created_ns):
        if other.id == container.id or other.created_ns > container.created_ns:
            return
        if any(m.name == volume and fills(core, other, m) for m in other.mounts):
            yield other
