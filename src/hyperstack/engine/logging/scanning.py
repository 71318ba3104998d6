"""A log's files as bytes: opened, counted, the place of the last N lines; all of it blocking.

While one of them is read the log may be rotated: its file gets another name, or becomes a
compressed one, which keeps the time of its last change. By that the next file is found.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hyperstack.engine.logging.rotation import files_of

CHUNK = 1 << 18
"""Bytes read at once."""
LONGEST = 1 << 21
"""A line of a log file longer than this is not ours."""


class LogFile:
    """One open file of a log. Raises OSError, EOFError or zlib.error where it can't be read."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb")
        self.packed = path.suffix == ".gz"
        self._file: io.BufferedIOBase = (
            gzip.GzipFile(fileobj=self._raw, mode="rb") if self.packed else self._raw
        )
        self.inode = os.fstat(self._raw.fileno()).st_ino

    def size(self) -> int:
        """Return its bytes on disk."""
        return os.fstat(self._raw.fileno()).st_size

    def changed_ns(self) -> int:
        """Return when it was last written, ns since the epoch."""
        return os.fstat(self._raw.fileno()).st_mtime_ns

    def read(self, most: int) -> bytes:
        """Return the next bytes; none at its end."""
        return self._file.read(most)

    def position(self) -> int:
        """Return how much has been read."""
        return self._file.tell()

    def was_cut(self) -> bool:
        """Tell whether somebody has emptied it, so that what comes is before what was read."""
        return not self.packed and self.size() < self._raw.tell()

    def rewind(self) -> None:
        """Begin anew."""
        self._file.seek(0)

    def chunks(self) -> Iterator[bytes]:
        """Yield all that is left."""
        while part := self._file.read(CHUNK):
            yield part

    def to_last(self, wanted: int) -> int:
        """Go to where its last *wanted* lines begin, and return how many there are, at most those.

        A line without an end does not count.
        """
        have = 0
        position = self._raw.seek(0, os.SEEK_END)
        while position:
            step = min(CHUNK, position)
            position -= step
            self._raw.seek(position)
            text = self._raw.read(step)
            count = text.count(b"\n")
            if have + count > wanted:
                at = len(text)
                for _ in range(wanted + 1 - have):
                    at = text.rindex(b"\n", 0, at)
                self._raw.seek(position + at + 1)
                return wanted
            have += count
        self._raw.seek(0)
        return have

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self._raw.close()


def open_log(path: Path) -> LogFile | None:
    """Open a file of a log, if it is there. Raises OSError."""
    try:
        return LogFile(path)
    except FileNotFoundError:
        return None


def opened(paths: Iterable[Path]) -> Iterator[LogFile]:
    """Open in turn those that are there. Raises OSError."""
    return filter(None, map(open_log, paths))


def open_tail(path: Path, wanted: int) -> tuple[LogFile | None, int]:
    """Open the file in which the last *wanted* lines of a log begin.

    Returns it at their place, or before it by so many lines. Raises OSError.
    """
    found: LogFile | None = None
    for file in opened(reversed(files_of(path))):
        if found is not None:
            if wanted <= 0 or file.inode == found.inode:  # it has been rotated meanwhile
                file.close()
                continue
            found.close()
        found = file
        if file.packed:
            count = sum(part.count(b"\n") for part in file.chunks())
            file.rewind()
            if count > wanted:
                return file, count - wanted
        else:
            count = file.to_last(wanted)
        wanted -= count
    return found, 0


def open_next(path: Path, mine: LogFile) -> LogFile | None:
    """Open the file that came after *mine*; None if that is the newest. Raises OSError."""
    files = files_of(path)
    place = -1
    newer = len(files)
    for number, file in enumerate(files):
        with contextlib.suppress(FileNotFoundError):
            found = file.stat()
            if found.st_ino == mine.inode:
                place = number
            elif file == path or found.st_mtime_ns > mine.changed_ns():
                newer = min(newer, number)
    return next(opened(files[place + 1 if place >= 0 else newer :]), None)


def count_before(path: Path, ends: Callable[[bytes], bool]) -> int:
    """Return how many lines of a log come before the first for which *ends* holds."""
    count = 0
    for file in opened(files_of(path)):
        with contextlib.closing(file):
            rest = b""
            for part in file.chunks():
                pieces = (rest + part).split(b"\n")
                rest = pieces.pop()
                if len(rest) > LONGEST:
                    return count
                for line in pieces:
                    if ends(line):
                        return count
                    count += 1
    return count
