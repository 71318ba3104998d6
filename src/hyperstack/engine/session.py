"""Attached clients of a process: what a hijacked connection is pumped with.

A ``Session`` is a bounded queue of output and a gate for input. A slow client holds the process
back (as with Docker); a client that is gone does not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol

from hyperstack.errors import HyperError
from hyperstack.model import StreamKind

BUFFER = 1 << 20
"""Bytes of output that wait for one client before the process is held back."""

_closing: set[asyncio.Task[None]] = set()
"""Ends of input on their way; the gate bounds how long each may take."""


def _keep(ending: Coroutine[Any, Any, None]) -> None:
    """Let an end of input go its way; a process that is gone has no use for it."""
    task = asyncio.get_running_loop().create_task(_ended(ending))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _ended(ending: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(HyperError):
        await ending


class Input(Protocol):
    """Where a session's stdin goes: the agent's input stream."""

    async def write(self, data: bytes) -> None:
        """Take bytes, waiting for room."""
        ...

    async def eof(self) -> None:
        """End the stream."""
        ...


class InputGate:
    """A process's stdin before, while and after the process exists."""

    def __init__(self) -> None:
        self._input: Input | None = None
        self._changed = asyncio.Event()
        self._ended = False
        self._lock = asyncio.Lock()

    def open(self, target: Input) -> None:
        """Connect the gate: waiting writers go on.

        If the end was said already, *target* is told too: it may be the second connection to an
        agent whose first one was lost with the end on its way.
        """
        self._input = target
        self._changed.set()
        if self._ended:
            _keep(target.eof())

    def shut(self) -> None:
        """Nobody reads any more: writers are released and their bytes are dropped."""
        self._input = None
        self._changed.set()

    async def write(self, data: bytes) -> None:
        """Pass bytes on once there is a process; drops them after ``eof`` and ``shut``."""
        async with self._lock:
            await self._changed.wait()
            if self._input is not None and not self._ended:
                await self._input.write(data)

    async def eof(self) -> None:
        """End the process's stdin."""
        async with self._lock:
            await self._changed.wait()
            if self._input is not None and not self._ended:
                self._ended = True
                await self._input.eof()


class Session:
    """One client of one process. Made by attach and exec; closed from either side."""

    def __init__(
        self,
        *,
        tty: bool,
        kinds: frozenset[StreamKind],
        gate: InputGate | None,
        end_input: bool = True,
    ) -> None:
        self.tty = tty
        self.kinds = kinds
        self._gate = gate
        self._end_input = end_input
        self._past: AsyncIterator[tuple[StreamKind, bytes]] | None = None
        self._queue: deque[tuple[StreamKind, bytes]] = deque()
        self._size = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = False
        self._gone = False

    async def feed(self, kind: StreamKind, data: bytes) -> None:
        """Queue output for the client, waiting while its buffer is full."""
        if kind not in self.kinds or self._gone or self._ended:
            return
        self._queue.append((kind, data))
        self._size += len(data)
        self._readable.set()
        if self._size >= BUFFER:
            self._writable.clear()
            await self._writable.wait()

    def prepend(self, past: AsyncIterator[tuple[StreamKind, bytes]]) -> None:
        """Let the client have what was logged before, as it reads, ahead of what comes now."""
        self._past = past

    def end(self) -> None:
        """Say that no more output comes; what is queued is still delivered."""
        self._ended = True
        self._readable.set()
        self._writable.set()

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self._gone

    async def output(self) -> AsyncIterator[tuple[StreamKind, bytes]]:
        """Yield the process's output until it ends or the session is closed."""
        if self._past is not None:
            past, self._past = self._past, None
            async for record in past:
                if self._gone:
                    return
                yield record
        while True:
            while self._queue and not self._gone:
                kind, data = self._queue.popleft()
                self._size -= len(data)
                if self._size < BUFFER:
                    self._writable.set()
                yield kind, data
            if self._ended or self._gone:
                return
            self._readable.clear()
            await self._readable.wait()

    async def write(self, data: bytes) -> None:
        """Give the process input; waits for room, drops the bytes if nobody reads."""
        if self._gate is not None:
            await self._gate.write(data)

    async def close_input(self) -> None:
        """The client has no more input.

        As with Docker, that ends the process's stdin if it was opened for one client (StdinOnce)
        and there is no terminal; otherwise it ends the attachment.
        """
        if self._gate is None:
            return
        if self._end_input and not self.tty:
            await self._gate.eof()
        else:
            self._leave()

    def close(self) -> None:
        """The client is gone or detached; the process goes on, without stdin if it was its."""
        if not self._gone and self._gate is not None and self._end_input and not self.tty:
            _keep(self._gate.eof())
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._queue.clear()
        self._readable.set()
        self._writable.set()


class Hub:
    """The clients attached to one container, across its starts."""

    def __init__(self) -> None:
        self.sessions: set[Session] = set()
        self.gate = InputGate()

    def attach(
        self, *, tty: bool, kinds: frozenset[StreamKind], stdin: bool, end_input: bool
    ) -> Session:
        """Add a client. *end_input*: its end of input is the process's (Docker's StdinOnce)."""
        session = Session(
            tty=tty, kinds=kinds, gate=self.gate if stdin else None, end_input=end_input
        )
        self.sessions = {one for one in self.sessions if not one.gone}
        self.sessions.add(session)
        return session

    async def feed(self, kind: StreamKind, data: bytes) -> None:
        """Hand output to every client that wants it."""
        for session in list(self.sessions):
            if session.gone:
                self.sessions.discard(session)
            else:
                await session.feed(kind, data)

    def finish(self) -> None:
        """The process has ended: end every client, be ready for the next start."""
        for session in self.sessions:
            session.end()
        self.sessions = set()
        self.gate.shut()
        self.gate = InputGate()
