"""Progress of long operations: many tasks report, one client reads, at its own pace.

``reported`` runs an operation as a task of its own and yields what it reports. A client that goes
away (the generator is closed) cancels the operation and waits for its end; a client that reads
slowly loses bars, never states, and never slows the operation or fills the memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

from hyperstack.image.progress import Progress

INTERVAL = 0.1
"""Seconds between two bars of the same thing; Docker's own pace."""
MAX_WAITING = 256


class Reporter:
    """Collects what an operation says. All calls are made on the event loop."""

    def __init__(self) -> None:
        self._lines: deque[Progress] = deque()
        self._news = asyncio.Event()
        self._shown: dict[str, float] = {}
        self._ended = False

    def say(self, status: str, id: str = "", aux: dict[str, object] | None = None) -> None:
        """Report a state."""
        self._put(Progress(status=status, id=id, aux=aux))

    def bar(self, status: str, id: str, current: int, total: int) -> None:
        """Report how far something is, in bytes; most of these are left out."""
        now = time.monotonic()
        if current < total and now - self._shown.get(id, 0.0) < INTERVAL:
            return
        if len(self._lines) >= MAX_WAITING:
            return
        self._shown[id] = now
        self._put(Progress(status=status, id=id, current=current, total=total))

    def end(self) -> None:
        """Say that nothing more will be reported."""
        self._ended = True
        self._news.set()

    async def lines(self) -> AsyncIterator[Progress]:
        """Yield what was reported, until the end."""
        while True:
            while self._lines:
                yield self._lines.popleft()
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def _put(self, line: Progress) -> None:
        self._lines.append(line)
        self._news.set()


async def reported(
    name: str, work: Callable[[Reporter], Awaitable[None]]
) -> AsyncGenerator[Progress, None]:
    """Run *work* as a task called *name*, yield what it reports, raise what it raises.

    Close the generator to cancel the work and wait for its end.
    """
    reporter = Reporter()

    async def run() -> None:
        try:
            await work(reporter)
        finally:
            reporter.end()

    task = asyncio.create_task(run(), name=name)
    try:
        async for line in reporter.lines():
            yield line
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # told above, or to nobody: the client has gone


async def together(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Run coroutines side by side; the first error ends the others and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for coro in work:
                group.create_task(coro)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
