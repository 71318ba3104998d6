"""Reading a container's log: the last N records, a span of time, and what comes while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import io
import os
import time
import weakref
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from hyperstack.engine.logfile import LogWriter
from hyperstack.errors import InternalError
from hyperstack.model import LogQuery, LogRecord, StreamKind

CHUNK = 1 << 18
"""Bytes read at once, where one reader has them for itself."""
PIECE = 1 << 15
"""Bytes that become records at once: a follower keeps them in memory, and pauses after them."""
AT_ONCE = 2
"""Readers that parse at the same time. Each keeps the event loop from Python's one lock, and the
pieces of all others wait as bytes, not as records."""
LONGEST = 1 << 21
"""A line of a log file longer than this is not ours; reading stops there."""


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


def files_of(path: Path) -> list[Path]:
    """Return a log's files, oldest first."""
    rotated: list[tuple[int, Path]] = []
    for found in path.parent.glob(f"{path.name}.*"):
        number = found.name.removeprefix(f"{path.name}.").removesuffix(".gz")
        if number.isdigit():
            rotated.append((int(number), found))
    return [*(p for _, p in sorted(rotated, reverse=True)), path]


def _lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    rest = b""
    while part := file.read(CHUNK):
        pieces = (rest + part).split(b"\n")
        rest = pieces.pop()
        if len(rest) > LONGEST:
            return
        yield from pieces


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


def last_lines(path: Path, count: int, end: int | None = None) -> list[bytes]:
    """Return the last *count* lines of a plain file up to byte *end*, read backwards; blocking."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END) if end is None else end
        text = b""
        while position and text.count(b"\n") <= count:
            step = min(CHUNK, position)
            position -= step
            file.seek(position)
            text = file.read(step) + text
    lines = text.split(b"\n")[:-1]
    return lines[-count:] if count else []


_gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
_gates = weakref.WeakKeyDictionary()


async def _in_turn(work: Callable[[], T]) -> T:
    """Do a reader's work in a thread when it is its turn: there may be hundreds of readers."""
    gate = _gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))
    async with gate:
        return await asyncio.to_thread(work)


class LogReader:
    """Reads one container's log for one client. Blocking parts run in a thread."""

    def __init__(self, path: Path, query: LogQuery, writer: LogWriter | None) -> None:
        self._path = path
        self._query = query
        self._writer = writer if query.follow else None
        self._kinds = {
            kind
            for kind, wanted in (
                (StreamKind.STDOUT, query.stdout),
                (StreamKind.STDERR, query.stderr),
            )
            if wanted
        }
        self._file: io.BufferedReader | None = None
        self._rest = b""
        self._changed = asyncio.Event()

    def _wanted(self, record: LogRecord | None) -> bool:
        if record is None or record.stream not in self._kinds:
            return False
        query = self._query
        return record.time_ns >= query.since_ns and not (
            query.until_ns and record.time_ns > query.until_ns
        )

    def _select(self, lines: Iterator[bytes] | list[bytes]) -> list[LogRecord]:
        records = (parse_line(line) for line in lines)
        return [record for record in records if record is not None and self._wanted(record)]

    def _tail(self) -> list[LogRecord]:
        """Return the last records that fit the query, and open the newest file after them."""
        wanted = self._query.tail
        kept: deque[list[LogRecord]] = deque()
        have = 0
        end = self._follow_from_end()
        for path in reversed(files_of(self._path)):
            if have >= wanted:
                break
            with contextlib.suppress(FileNotFoundError):
                found = self._last_of(path, wanted - have, end if path == self._path else None)
                kept.appendleft(found)
                have += len(found)
        return [record for part in kept for record in part]

    def _last_of(self, path: Path, wanted: int, end: int | None) -> list[LogRecord]:
        if path.suffix == ".gz":
            with _open(path) as file:
                return list(deque(self._select(_lines(file)), maxlen=wanted))
        count = wanted
        while True:
            lines = last_lines(path, count, end)
            found = self._select(lines)
            if len(found) >= wanted or len(lines) < count:
                return found[-wanted:] if wanted else []
            count *= 4

    def _follow_from_end(self) -> int:
        """Open the newest file behind its last whole line, and return where that is."""
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return 0
        end = self._file.seek(0, os.SEEK_END)
        start = max(0, end - LONGEST)
        self._file.seek(start)
        return self._file.seek(start + self._file.read(end - start).rfind(b"\n") + 1)

    def _more(self) -> list[LogRecord] | None:
        """Return the next records of the open file, None at its present end."""
        if self._file is None:
            with contextlib.suppress(FileNotFoundError):
                self._file = self._path.open("rb")
            if self._file is None:
                return None
        part = self._file.read(PIECE)
        if not part:
            return None
        pieces = (self._rest + part).split(b"\n")
        self._rest = pieces.pop()
        return self._select(pieces)

    def _next_file(self) -> bool:
        """Go on with the file that came after the open one; False if that is the newest."""
        if self._file is None:
            return False
        mine = os.fstat(self._file.fileno()).st_ino
        files = [path for path in files_of(self._path) if path.suffix != ".gz"]
        inodes: list[tuple[int, Path]] = []
        for path in files:
            with contextlib.suppress(FileNotFoundError):
                inodes.append((path.stat().st_ino, path))
        if inodes and inodes[-1][0] == mine:
            return False
        place = next((i for i, (inode, _) in enumerate(inodes) if inode == mine), -1)
        if place + 1 >= len(inodes):
            return False
        with contextlib.suppress(FileNotFoundError):
            file = inodes[place + 1][1].open("rb")
            self._file.close()
            self._file, self._rest = file, b""
            return True
        return False

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
            if self._query.tail >= 0:
                for record in await asyncio.to_thread(self._tail):
                    yield record
            else:
                async for record in self._rotated():
                    yield record
            if self._query.tail < 0 or self._writer is not None:
                async for record in self._newest():
                    yield record
        finally:
            if self._writer is not None:
                self._writer.readers.discard(self._changed)
            if self._file is not None:
                self._file.close()

    async def _rotated(self) -> AsyncIterator[LogRecord]:
        for path in files_of(self._path)[:-1]:
            with contextlib.suppress(FileNotFoundError), _open(path) as file:
                for record in await asyncio.to_thread(self._select, _lines(file)):
                    yield record

    async def _newest(self) -> AsyncIterator[LogRecord]:
        until = self._query.until_ns
        while True:
            # Looked at before reading: what is written in between sets it again.
            ended = self._writer is None or self._writer.closed
            self._changed.clear()
            while (records := await _in_turn(self._more)) is not None:
                for record in records:
                    yield record
            if self._next_file():
                continue
            if ended or self._writer is None:
                return
            left = until / 1e9 - time.time() if until else None
            if left is not None and left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()
