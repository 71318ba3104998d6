"""A lane: blocking jobs done one after another beside the event loop, with a bounded backlog.

Hashing, decompressing and writing release the interpreter's lock, so the lanes of one pull (blob,
decompression, layer) and the network run at the same time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Lane:
    """One worker thread and at most *depth* jobs that wait for it."""

    def __init__(self, name: str, depth: int = 4) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._depth = depth

    async def put(self, work: Callable[[], Any]) -> None:
        """Queue *work*; waits while the lane is full. Raises what an earlier job raised."""
        while self._pending and (len(self._pending) >= self._depth or self._pending[0].done()):
            await self._pending.popleft()
        loop = asyncio.get_running_loop()
        self._pending.append(loop.run_in_executor(self._executor, work))

    async def drain(self) -> None:
        """Wait until every job is done. Raises what a job raised."""
        while self._pending:
            await self._pending.popleft()

    async def close(self) -> None:
        """Drop the jobs that wait, and return when the one that runs has ended."""
        for future in self._pending:
            future.cancel()
            future.add_done_callback(_seen)
        self._pending.clear()
        ended = asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
        await asyncio.shield(ended)


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # retrieved here, so that nobody is warned about a job given up
