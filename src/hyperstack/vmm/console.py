"""A machine's console: a fifo that a VMM writes and the daemon reads into a bounded tail.

The VMM holds the fifo open for reading and writing, without blocking: with no daemon its bytes wait
in the pipe (64 KiB), and what does not fit is dropped; nothing blocks or ends the guest. A guest
that floods its console is read at a bounded rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import unicodedata
from pathlib import Path

from hyperstack.errors import InternalError
from hyperstack.guest.messages import READY

KEPT = 16 << 10
"""Bytes of the tail that are kept."""
CHUNK = 64 << 10
PAUSE = 0.05
"""Seconds of rest after a large piece, which bounds a flood to about a megabyte a second."""
WORDS, WIDTH = 4, 200
"""Lines of a dead machine's last words, and characters of each."""
_PANICS = ("Kernel panic", "BUG: ", "Oops: ")
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")


class Console:
    """The daemon's end. ``open`` before use, ``close`` at the end; the fifo stays.

    *ready*: the agent has said its line to an earlier daemon.
    """

    def __init__(self, path: Path, *, ready: bool = False) -> None:
        self.path = path
        self._fd = -1
        self._tail = bytearray()
        self._ready = asyncio.Event()
        if ready:
            self._ready.set()
        self._pause: asyncio.TimerHandle | None = None

    @classmethod
    def create(cls, path: Path) -> Console:
        """Make the fifo, replacing an old one. Raises InternalError."""
        try:
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        except OSError as error:
            raise InternalError(f"a console can't be made: {error.strerror}") from error
        return cls(path)

    def writer(self) -> int:
        """Return a descriptor for the VMM; the caller closes its own copy."""
        return os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def open(self) -> None:
        """Start to read, on the running event loop. Raises InternalError if the fifo is gone."""
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise InternalError(f"a console can't be opened: {error.strerror}") from error
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        if not data:
            # Nobody has the other end any more: the VMM is gone.
            self._stop()
            return
        self._take(data)
        if len(data) >= CHUNK // 2:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            self._pause = loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _take(self, data: bytes) -> None:
        if not self._ready.is_set():
            word = READY.encode()
            if word in self._tail[-len(word) :] + data:
                self._ready.set()
        self._tail += data
        del self._tail[:-KEPT]

    def drain(self) -> None:
        """Take what waits in the fifo now: for the last words of a VMM that has ended."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, CHUNK)
            except BlockingIOError:
                return
            if not data:
                return
            self._take(data)

    async def wait_ready(self) -> None:
        """Return once the agent's READY line has been seen."""
        await self._ready.wait()

    def tail(self, limit: int = 4096) -> str:
        """Return the last *limit* bytes as printable text, without escape sequences."""
        return printable(bytes(self._tail[-limit:]))

    def _stop(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._fd >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Stop reading; a guest goes on writing. Safe to repeat."""
        self._stop()


def printable(data: bytes) -> str:
    """Return console bytes as text in which nothing can act on a terminal or forge a log line."""
    text = _ESCAPES.sub("", data.decode(errors="replace")).replace("\r\n", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")


def last_words(tail: str) -> str:
    """Return what tells of a machine's end in its console's *tail*, in a few lines.

    That is a kernel's panic if there was one, else what came after the agent's READY line.
    """
    text = tail.rpartition(READY)[2]
    found = max(text.rfind(mark) for mark in _PANICS)
    lines = [line.strip() for line in text[max(found, 0) :].strip().splitlines()]
    chosen = lines[:WORDS] if found >= 0 else lines[-WORDS:]
    return "\n".join(line[:WIDTH] for line in chosen)
