"""Named background tasks of the daemon: none is forgotten, failures are logged, all can end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from hyperstack.errors import HyperError

T = TypeVar("T")

log = logging.getLogger(__name__)

STEADY = 20.0
"""Seconds that ``aclose`` waits for what is to be carried through."""


class Tasks:
    """A set of tasks that live until they end or the set is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._steady: set[asyncio.Task[Any]] = set()
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
            known = isinstance(error, HyperError)  # a sentence, where a traceback says no more
            log.error(
                "background task %r failed: %s",
                task.get_name(),
                error,
                exc_info=None if known else error,
            )

    async def carry_through(self, name: str, coro: Coroutine[Any, Any, T]) -> T:
        """Await *coro*, which goes on to its end even if the caller is cancelled.

        For what must not be left half done while the daemon can still finish it; ``aclose`` waits
        for it.
        """
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._steady.add(task)
        task.add_done_callback(self._steady.discard)
        return await asyncio.shield(task)

    async def see_through(self, name: str, coro: Coroutine[Any, Any, T]) -> T:
        """Await *coro* to its end even if the caller is cancelled meanwhile, and raise that then.

        For what others wait for by a lock that the caller holds. *coro* must be bounded in time.
        """
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._steady.add(task)
        task.add_done_callback(self._steady.discard)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            if not task.cancelled() and (failure := task.exception()) is not None:
                log.error("%s failed: %s", name, failure)
            raise cancelled
        return task.result()

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
                break
        if self._steady:
            _, left = await asyncio.wait(self._steady, timeout=STEADY)
            for task in left:
                log.error("%s did not end, the next daemon must finish it", task.get_name())
