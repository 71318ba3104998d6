"""``pause`` and ``unpause``: the container's cgroup in the guest is frozen."""

from __future__ import annotations

from hyperstack.engine import health
from hyperstack.engine.core import Core
from hyperstack.engine.record import record
from hyperstack.errors import Conflict, GuestError, InternalError
from hyperstack.guest import messages
from hyperstack.model import Container, Status


async def pause(core: Core, container: Container) -> None:
    """Freeze a running container. Raises Conflict if it is not running or is paused."""
    async with core.table.lock(container.id):
        live = core.live.get(container.id)
        if container.state.status == Status.PAUSED:
            raise Conflict(f"Container {container.id} is already paused")
        if container.state.status == Status.RESTARTING:
            raise Conflict(
                f"Container {container.id} is restarting, wait until the container is running"
            )
        if live is None or container.state.status != Status.RUNNING:
            raise Conflict(f"container {container.id} is not running")
        try:
            freeze = messages.Freeze(id=container.id, frozen=True)
            await live.sandbox.call(messages.Op.FREEZE, freeze)
        except GuestError as error:
            if not live.explains(error):
                raise
            raise Conflict(f"container {container.id} is not running") from error
        container.state.status = Status.PAUSED
        health.closed(container)
        await record(core, container)
    core.event(container, "pause")


async def unpause(core: Core, container: Container) -> None:
    """Let a paused container run on. Raises InternalError, as dockerd, if it is not paused."""
    async with core.table.lock(container.id):
        live = core.live.get(container.id)
        if live is None or container.state.status != Status.PAUSED:
            raise InternalError(f"Container {container.id} is not paused")
        await live.sandbox.call(messages.Op.FREEZE, messages.Freeze(id=container.id, frozen=False))
        container.state.status = Status.RUNNING
        await record(core, container)
    core.event(container, "unpause")
