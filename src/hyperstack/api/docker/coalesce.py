"""Joins small writes that come in one turn of the event loop into one send.

A log of short lines or a chatty process makes many small records; each alone would cost a system
call. What is put here goes out when the loop turns, or at once when enough has come together; a
client that does not read holds back small records as well as large ones.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

LARGE = 32 << 10
FULL = 128 << 10


class Sink(Protocol):
    """Where bytes go."""

    async def write(self, *parts: bytes) -> None:
        """Send, waiting for a slow client."""
        ...

    def send(self, data: bytes) -> None:
        """Send without waiting; nothing happens if the client is gone."""
        ...

    async def drain(self) -> None:
        """Wait while the client is slow. Raises ConnectionResetError."""
        ...


class Coalescer:
    """One writer's small parts on their way to a sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._parts: list[bytes] = []
        self._size = 0
        self._timer: asyncio.Handle | None = None

    async def put(self, *parts: bytes) -> None:
        """Take parts; waits if the client is slow. Raises ConnectionResetError."""
        size = sum(map(len, parts))
        self._parts.extend(parts)
        self._size += size
        if size >= LARGE or self._size >= FULL:
            await self.flush()
            return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_soon(self._turn)
        await self._sink.drain()

    def _take(self) -> list[bytes]:
        parts, self._parts, self._size = self._parts, [], 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return parts

    def _turn(self) -> None:
        self._timer = None
        if self._parts:
            self._sink.send(b"".join(self._take()))

    async def flush(self) -> None:
        """Send what is there. Raises ConnectionResetError."""
        if parts := self._take():
            await self._sink.write(*parts)
