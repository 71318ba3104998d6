"""``top``: the guest's processes in the columns that ps(1) would print for the given options."""

from __future__ import annotations

from hyperstack.engine import ps
from hyperstack.engine.core import Core
from hyperstack.errors import Conflict
from hyperstack.guest import messages
from hyperstack.model import Container, Status


async def top(core: Core, container: Container, ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows.

    Raises Conflict unless the container runs, InternalError for options that ``ps`` has not.
    """
    live = core.live.get(container.id)
    if container.state.status == Status.RESTARTING:
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if live is None or not container.state.status.is_up:
        raise Conflict(f"container {container.id} is not running")
    info = live.sandbox.info
    view = ps.view(ps_args, info.memory_total if info is not None else live.sandbox.row.memory)
    found: messages.Top = await live.sandbox.call(
        messages.Op.TOP, messages.ContainerRef(id=container.id)
    )
    core.event(container, "top")
    return [title for title, _ in view.columns], list(view.rows(found.tasks))
