"""Writes a container's state although the database may refuse for now (a full disk).

For what has happened already and can't be refused any more: an end, a stop that the user asked for,
a verdict on health. What could not be written is tried again until it can; what it was is in memory
meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from hyperstack.engine.core import Core
from hyperstack.errors import HyperError
from hyperstack.model import Container

log = logging.getLogger(__name__)

PAUSE = 2.0
"""Seconds between tries."""


async def record(core: Core, container: Container) -> None:
    """Store a container's present state now, or later if the database refuses."""
    try:
        await core.table.save(container)
    except HyperError as error:
        if core.closing:
            log.error("the state of %s is not recorded: %s", container.name, error)
            return
        log.error("the state of %s will be recorded later: %s", container.name, error)
        if not core.unrecorded:
            core.tasks.start("record", _later(core))
        core.unrecorded.add(container.id)


async def _later(core: Core) -> None:
    while core.unrecorded:
        await asyncio.sleep(PAUSE)
        for identifier in list(core.unrecorded):
            container = core.table.find(identifier)
            core.unrecorded.discard(identifier)  # before: it may be refused anew meanwhile
            try:
                if container is not None:
                    await core.table.save(container)
            except HyperError as error:
                core.unrecorded.add(identifier)
                log.debug("not yet: %s", error)
                break


async def in_any_case(what: str, step: Awaitable[object]) -> None:
    """Carry out a step of an end that goes on whatever comes of it."""
    try:
        await step
    except (HyperError, OSError) as error:
        log.error("%s: %s", what, error)
