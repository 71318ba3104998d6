"""Reading a container's log: the last N records, a span of time, and what comes while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import time
import weakref
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from hyperstack.engine.logging.logfile import LogWriter
from hyperstack.engine.logging.rotation import files_of
from hyperstack.engine.logging.scanning import (
    LONGEST,
    LogFile,
    count_before,
    open_log,
    open_next,
    open_tail,
    opened,
)
from hyperstack.errors import InternalError
from hyperstack.model import LogQuery, LogRecord, StreamKind

PIECE = 1 << 15
"""Bytes that become records at once: a follower keeps them in memory, and pauses after them."""
AT_ONCE = 2
"""Readers that parse at the same time. Each keeps the event loop from Python's one lock, and the
pieces of all others wait as bytes, not as records."""

T = TypeVar("T")


class _Line(msgspec.Struct):
    log: str = ""
    stream: StreamKind = StreamKind.STDOUT
    time: str = ""
    attrs: dict[str, str] = {}


_decoder = msgspec.json.Decoder(_Line)


def parse_line(line: bytes) -> LogRecord | None:
    """Return the record of one line, or None if it isn't one (a file cut by a full disk)."""
    try:
        raw = _decoder.decode(line)
        return LogRecord(
            stream=raw.stream,
            time_ns=parse_time(raw.time),
            data=raw.log.encode("utf-8", "replace"),
            attributes=raw.attrs,
        )
    except (msgspec.MsgspecError, ValueError):
        return None


@functools.lru_cache(maxsize=64)  # what was written together has one time
def parse_time(text: str) -> int:
    """Return ns since the epoch of a time that ``logfile.stamp`` made. Raises ValueError."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(whole + "+00:00").timestamp()
    return int(seconds) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])


_gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
_gates = weakref.WeakKeyDictionary()


async def _in_turn(work: Callable[[], T]) -> T:
    """Do a reader's work in a thread when it is its turn: there may be hundreds of readers."""
    gate = _gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    async with gate:
        return await asyncio.to_thread(work)


class LogReader:
    """Reads one container's log for one client. Blocking parts run in a thread.

    As with Docker's files, ``tail`` counts records of both streams and of all times, and what does
    not fit the rest of the query is left out of those. With *timed* it counts those before
    ``until``, as Docker does with the journal.
    """

    def __init__(
        self, path: Path, query: LogQuery, writer: LogWriter | None, *, timed: bool = False
    ) -> None:
        self._path = path
        self._query = query
        self._timed = timed and query.until_ns > 0
        self._writer = writer if query.follow else None
        self._kinds = {
            kind
            for kind, wanted in (
                (StreamKind.STDOUT, query.stdout),
                (StreamKind.STDERR, query.stderr),
            )
            if wanted
        }
        self._file: LogFile | None = None
        self._limit: tuple[int, int] | None = None
        """Inode and size of the newest file at first: who does not follow ends there."""
        self._skip = 0
        """Lines that are passed over."""
        self._rest = b""
        self._done = False
        self._changed = asyncio.Event()

    def _select(self, lines: list[bytes]) -> list[LogRecord]:
        """Return the records that are wanted; with the first that is too late all is done."""
        query = self._query
        chosen: list[LogRecord] = []
        for record in map(parse_line, lines):
            if record is None:
                continue
            if query.until_ns and record.time_ns > query.until_ns:
                self._done = True
                break
            if record.stream in self._kinds and record.time_ns >= query.since_ns:
                chosen.append(record)
        return chosen

    def _begin(self) -> None:
        """Open the file in which the first record lies, at its place or before it."""
        newest = open_log(self._path)
        if newest is not None:
            self._limit = (newest.inode, newest.size())
            newest.close()
        if self._query.tail < 0:
            self._file = next(opened(files_of(self._path)), None)
        elif self._timed:
            until = self._query.until_ns
            count = count_before(self._path, lambda line: _is_after(line, until))
            self._file = next(opened(files_of(self._path)), None)
            self._skip = max(0, count - self._query.tail)
        else:
            self._file, self._skip = open_tail(self._path, self._query.tail)

    def _more(self) -> list[LogRecord] | None:
        """Return the next records, None at the present end."""
        if self._file is None:
            self._file = open_log(self._path)
        if self._file is None or self._done:
            return None
        part = self._file.read(self._left(self._file))
        if part:
            return self._taken(part)
        if self._file.was_cut():
            self._file.rewind()
            self._rest = b""
            return []
        return [] if self._next_file(self._file) else None

    def _left(self, file: LogFile) -> int:
        if self._writer is not None or self._limit is None or self._limit[0] != file.inode:
            return PIECE
        return max(0, min(PIECE, self._limit[1] - file.position()))

    def _taken(self, part: bytes) -> list[LogRecord]:
        pieces = (self._rest + part).split(b"\n")
        self._rest = pieces.pop()
        if len(self._rest) > LONGEST:
            raise OSError(errno.EIO, "a record without an end")
        if self._skip:
            passed = min(self._skip, len(pieces))
            self._skip -= passed
            del pieces[:passed]
        return self._select(pieces)

    def _next_file(self, mine: LogFile) -> bool:
        """Go on with the file that came after the open one; False if there is none to read."""
        if self._writer is None and self._limit is not None and self._limit[0] == mine.inode:
            return False
        after = open_next(self._path, mine)
        if after is None:
            return False
        mine.close()
        self._file, self._rest = after, b""
        return True

    async def records(self) -> AsyncIterator[LogRecord]:
        """Yield the records that the query asks for, oldest first. Raises InternalError."""
        try:
            async with contextlib.aclosing(self._records()) as found:
                async for record in found:
                    yield record
        except (OSError, EOFError, zlib.error) as error:
            raise InternalError(f"the container's log can't be read: {error}") from error

    async def _records(self) -> AsyncGenerator[LogRecord, None]:
        if self._writer is not None:
            self._writer.readers.add(self._changed)
        try:
            await _in_turn(self._begin)
            if self._query.tail == 0 and self._writer is None:
                return
            async for record in self._stream():
                yield record
        finally:
            if self._writer is not None:
                self._writer.readers.discard(self._changed)
            if self._file is not None:
                self._file.close()

    async def _stream(self) -> AsyncIterator[LogRecord]:
        until = self._query.until_ns
        while True:
            # Looked at before reading: what is written in between sets it again.
            ended = self._writer is None or self._writer.closed
            self._changed.clear()
            while (records := await _in_turn(self._more)) is not None:
                for record in records:
                    yield record
            if ended or self._done:
                return
            left = until / 1e9 - time.time() if until else None
            if left is not None and left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()


def _is_after(line: bytes, time_ns: int) -> bool:
    record = parse_line(line)
    return record is not None and record.time_ns > time_ns
