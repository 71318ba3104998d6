"""What log drivers that send lines elsewhere share: a bounded queue, and one task that empties it.

A driver says how a line becomes a message, how it connects and how a message goes out. A server
that is away stops no container: what waits for it is kept up to the bound, what comes beyond that
is lost to the server, as are all messages that waited when a daemon is killed. Neither is lost to
the copy that ``docker logs`` reads (``logging.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

from hyperstack.engine.logging.transport import Connection
from hyperstack.errors import HyperError
from hyperstack.model import StreamKind

log = logging.getLogger(__name__)

WAITING = 1 << 20
"""Bytes of messages that wait at most; in blocking mode the container waits then."""
BOUND = 10.0
"""Seconds for one message to go out."""
AGAIN = 1.0
"""Seconds between two tries to connect again."""
LAST = 5.0
"""Seconds for which what waits at a container's end may still go out."""
PAUSE = 10.0
"""Seconds between two complaints."""


@dataclass(frozen=True, kw_only=True)
class Partial:
    """Which part of a line that is longer than a record this is (moby's ``PartialLogMetaData``)."""

    id: str
    ordinal: int
    """Counted from 1."""
    last: bool


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a container, or a part of one; *text* is without its end of line."""

    kind: StreamKind
    text: bytes
    time_ns: int
    partial: Partial | None = None


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What happens when the server is slower than the container.

    *bound* is the bytes that may wait. Without *blocking* what comes beyond is dropped.
    """

    blocking: bool = True
    bound: int = WAITING


class Sender(ABC):
    """One container's messages on their way. Made and used on the event loop."""

    name = "log"
    again = AGAIN
    """Seconds between two tries to connect again."""
    tries = 0
    """Tries to connect after which a message is dropped; 0: it waits."""
    patience = BOUND
    """Seconds for one message to go out."""
    lazy = False
    """Whether a container starts though its server is away."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False
        self._away = False
        self._lost = 0
        self._failed = 0
        self._silent_until = 0.0
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def message(self, line: Line) -> bytes:
        """Return what goes to the server for a line; nothing if it is not sent."""

    @abstractmethod
    async def dial(self) -> Connection:
        """Connect to the server. Raises HyperError in Docker's words."""

    async def connect(self) -> None:
        """Connect to the server, so that a start can fail for it. Raises HyperError."""
        self._connection = await self.dial()

    def put(self, line: Line) -> None:
        """Take a line: send it, or let it wait, or drop it, as the terms say."""
        if self._closing or not (message := self.message(line)):
            return
        if not self._waiting and self._went(message):
            return
        drops = self._away or not self._terms.blocking
        if drops and self._size + len(message) > self._terms.bound:
            self._lost += 1
            return
        self._waiting.append(message)
        self._size += len(message)
        self._empty.clear()
        self._changed.set()
        if self._size > self._terms.bound:
            self._room.clear()
        self.begin()

    def _went(self, message: bytes) -> bool:
        try:
            return self._connection is not None and self._connection.send_now(message)
        except OSError:
            self._disconnect()  # the task says what is wrong, if it still is
            return False

    async def room(self) -> None:
        """Wait, in blocking mode, until less waits than may."""
        await self._room.wait()

    def begin(self) -> None:
        """Start to send, if that has not been done."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    def close(self) -> None:
        """Say that nothing more comes; what waits has ``LAST`` seconds to go out."""
        self._closing = True
        self._changed.set()
        self._room.set()
        if self._task is None:
            self._disconnect()
        else:
            asyncio.get_running_loop().call_later(LAST, self._task.cancel)

    async def flushed(self) -> None:
        """Wait until nothing waits any more, for a while, and not for a server that is away."""
        for _ in range(int(LAST / AGAIN)):
            if self._away or not self._waiting:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    await self._empty.wait()

    async def _run(self) -> None:
        try:
            while True:
                while self._waiting:
                    if await self._send(self._waiting[0]):
                        self._forget_first()
                self._empty.set()
                if self._closing:
                    return
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._room.set()
            self._empty.set()
            self._disconnect()

    def _forget_first(self) -> None:
        self._size -= len(self._waiting.popleft())
        if self._size <= self._terms.bound:
            self._room.set()

    async def _send(self, message: bytes) -> bool:
        """Send one message, on a new connection if need be; False if it is to wait.

        What a new connection does not take either is dropped.
        """
        why: Exception | None = None
        for _ in range(2):
            try:
                connection = await self._living()
            except (HyperError, OSError) as error:
                return await self._wait_for_server(error)
            try:
                async with asyncio.timeout(self.patience):
                    await connection.send(message)
                self._is_back()
                return True
            except OSError as error:  # TimeoutError is one
                self._disconnect()
                why = error
        self._complain(str(why) or "it takes none")
        return True

    async def _living(self) -> Connection:
        if self._connection is not None and not self._connection.alive():
            self._disconnect()
        if self._connection is None:
            self._connection = await self.dial()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _complain(self, why: str) -> None:
        self._lost += 1
        if (now := time.monotonic()) >= self._silent_until:
            log.warning("%d lines for %s are lost: %s", self._lost, self.name, why)
            self._lost, self._silent_until = 0, now + PAUSE

    async def _wait_for_server(self, error: Exception) -> bool:
        """Wait before the next try to connect; True if the first message is not to wait for it."""
        if not self._away:
            log.warning("%s is away, lines wait for it: %s", self.name, error)
        self._away = True
        self._room.set()
        self._failed += 1
        await asyncio.sleep(self.again)
        if not self.tries or self._failed < self.tries:
            return False
        self._failed = 0
        self._lost += 1
        return True

    def _is_back(self) -> None:
        if self._away:
            log.warning("%s is back, %d lines were lost to it", self.name, self._lost)
            self._away, self._lost, self._failed = False, 0, 0
