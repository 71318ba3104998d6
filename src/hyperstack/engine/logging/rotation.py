"""Rotation of a log's files: ``log`` becomes ``log.1``, that ``log.2`` ..., old ones compressed.

Compressing takes a thread and its time; what it makes goes by rename to where the file has got to
meanwhile. A file that a killed daemon left uncompressed is taken up at the next rotation; one of
which both forms are there is complete in either.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import shutil
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)


def _number(path: Path, file: Path) -> int:
    """Return how often a log's file has been rotated; 0 if it is none."""
    number = file.name.removeprefix(f"{path.name}.").removesuffix(".gz")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0


def _rotated(path: Path) -> dict[int, list[Path]]:
    """Return a log's old files by number; the plain form before the compressed one."""
    found: dict[int, list[Path]] = {}
    for file in sorted(path.parent.glob(f"{path.name}.*")):
        if number := _number(path, file):
            found.setdefault(number, []).append(file)
    return found


def files_of(path: Path) -> list[Path]:
    """Return a log's files, oldest first; the newest need not exist."""
    return [*(forms[0] for _, forms in sorted(_rotated(path).items(), reverse=True)), path]


def shift(path: Path, keep: int) -> None:
    """Move each file of a log one on; *keep* are left, with the new one. Raises OSError."""
    for number, forms in sorted(_rotated(path).items(), reverse=True):
        for unwanted in forms[1:] if number < keep - 1 else forms:
            unwanted.unlink(missing_ok=True)
        if number < keep - 1:
            suffix = ".gz" if forms[0].suffix == ".gz" else ""
            _move(forms[0], path.with_name(f"{path.name}.{number + 1}{suffix}"))
    if keep <= 1:
        path.unlink(missing_ok=True)
    else:
        _move(path, path.with_name(f"{path.name}.1"))


def _move(source: Path, target: Path) -> None:
    # Somebody may have deleted it by hand.
    with contextlib.suppress(FileNotFoundError):
        source.rename(target)


class Compressor:
    """Compresses a log's rotated files, one after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.gz")
        self._busy = False

    def begin(self) -> None:
        """Compress what is not yet, in a thread where there is an event loop."""
        if self._busy or (source := self._oldest_plain()) is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._finish(source, _try_to_compress(source, self._partial))
            return
        self._busy = True
        work = loop.run_in_executor(None, _try_to_compress, source, self._partial)
        work.add_done_callback(lambda done: self._finish(source, done.result()))

    def _oldest_plain(self) -> BinaryIO | None:
        for path in files_of(self._path)[:-1]:
            if path.suffix != ".gz":
                with contextlib.suppress(OSError):
                    return path.open("rb")
        return None

    def _finish(self, source: BinaryIO, failure: OSError | None) -> None:
        self._busy = False
        inode = os.fstat(source.fileno()).st_ino
        source.close()
        if failure is None:
            try:
                self._put_in_place(inode)
            except OSError as error:
                failure = error
        if failure is not None:
            self._partial.unlink(missing_ok=True)
            log.warning("%s: an old file stays uncompressed: %s", self._path, failure)
            return
        self.begin()

    def _put_in_place(self, inode: int) -> None:
        for path in files_of(self._path)[:-1]:
            if path.stat().st_ino == inode:
                self._partial.rename(path.with_name(f"{path.name}.gz"))
                path.unlink()
                return
        self._partial.unlink(missing_ok=True)


def _try_to_compress(source: BinaryIO, partial: Path) -> OSError | None:
    try:
        with gzip.open(partial, "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target, 1 << 18)
        found = os.fstat(source.fileno())
        os.utime(partial, ns=(found.st_atime_ns, found.st_mtime_ns))  # readers go by it
    except OSError as error:
        return error
    return None
