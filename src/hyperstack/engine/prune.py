"""``container prune``: stopped containers that the filters fit, and the space that they held."""

from __future__ import annotations

import time
from pathlib import Path

from hyperstack.engine import remove
from hyperstack.engine.core import Core
from hyperstack.engine.listing import Filters, label_test
from hyperstack.errors import HyperError, InvalidParameter
from hyperstack.ids import ContainerId
from hyperstack.model import Status
from hyperstack.until import parse_until


async def prune(core: Core, filters: Filters) -> tuple[list[ContainerId], int]:
    """Remove every stopped container that the filters fit; return ids and freed bytes."""
    for key in filters:
        if key not in ("until", "label", "label!"):
            raise InvalidParameter(f"invalid filter '{key}'")
    until = parse_until(filters.get("until", []), time.time_ns())
    wanted = label_test(filters.get("label", []))
    # As Docker, several of these spare only what has all of the labels.
    spared = label_test(filters["label!"]) if filters.get("label!") else None
    removed: list[ContainerId] = []
    freed = 0
    for container in core.table:
        labels = container.config.labels
        if container.state.status not in (Status.CREATED, Status.EXITED, Status.DEAD):
            continue
        if until is not None and container.created_ns >= until:
            continue
        if not wanted(labels) or (spared is not None and spared(labels)):
            continue
        size = disk_usage(core.disk(container.id))
        try:
            await remove.remove(core, container, force=False, volumes=False)
        except HyperError:
            continue  # it was started or removed meanwhile
        removed.append(container.id)
        freed += size
    core.events.publish("container", "prune", "", {"reclaimed": str(freed)})
    return removed, freed


def disk_usage(path: Path) -> int:
    """Return the bytes that a sparse file really takes; 0 if it is not there."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
