"""Named background tasks of the daemon: none is forgotten, failures are logged, all can end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """A set of tasks that live until they end or the set is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start(self, name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run *coro* as a task called *name*; an exception that leaves it is logged."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        if self._closed:
            task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("background task %r failed: %s", task.get_name(), error, exc_info=error)

    async def aclose(self) -> None:
        """Cancel every task and wait for all of them. Tasks started later are cancelled at once."""
        self._closed = True
        mine = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not mine]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=10)
            if any(not task.done() for task in tasks):
                names = ", ".join(task.get_name() for task in tasks if not task.done())
                log.error("background tasks did not end: %s", names)
                return
