"""A container's log on disk: Docker's json-file format, written exactly once.

Docker's format is one JSON object a line: ``log`` (a line with its newline, or a part of 16 KiB),
``stream``, ``time`` and, if asked for, ``attrs``. Beside the log lies a small state file with how
far the log goes and up to which offset of the process's streams: a killed daemon leaves at most an
unrecorded tail, which the next one cuts off and fetches from the guest's agent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import os
import shutil
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hyperstack.errors import InternalError
from hyperstack.model import StreamKind

log = logging.getLogger(__name__)

PART = 16 * 1024
"""Longest text of one record; a longer line is cut (moby's copier does the same)."""

MANY_KINDS = 8
"""Kinds of escaped bytes from which on one look at every byte is cheaper than one pass for each."""
_STATE = struct.Struct("<8sQQQQQ")
_MAGIC = b"hyperlg1"
_PLAIN = bytes(n for n in range(32, 128) if chr(n) not in '"\\<>&') + b"\n"
"""Bytes that stand for themselves in the log, and the newline."""
_ESCAPES = {
    ord("\\"): b"\\\\",
    ord('"'): b'\\"',
    ord("\r"): b"\\r",
    **{n: b"\\u%04x" % n for n in (*b"<>&", *range(32)) if n not in b"\r\n"},
}
_EACH = tuple(_ESCAPES.get(n, bytes([n])) for n in range(256))
_SEPARATORS = (("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"))
_KINDS = (StreamKind.STDOUT, StreamKind.STDERR)


def escape(text: bytes) -> bytes:
    """Return bytes as the inside of a JSON string, escaped as Docker's log does."""
    return _escape_all_but_newlines(text).replace(b"\n", b"\\n")


def _escape_all_but_newlines(text: bytes) -> bytes:
    # Whatever a guest writes, no step here is taken in Python for each byte or line. To delete what
    # is plain is eight times as fast as to search for what is not by a regular expression.
    rest = text.translate(None, _PLAIN)
    if not rest:
        return text
    present = [byte for byte in _ESCAPES if byte in rest]
    if len(present) > MANY_KINDS and len(rest) > len(text) // 4:
        text = b"".join(map(_EACH.__getitem__, text))
    else:
        # The backslash goes first: the others' escapes are made of it.
        for byte in present:
            text = text.replace(b"%c" % byte, _ESCAPES[byte])
    return text if rest.isascii() else _as_utf8(text)


def _as_utf8(text: bytes) -> bytes:
    """Replace what is not UTF-8, byte by byte as in Go, and escape Unicode's line separators.

    No control character but the newline is left in *text*.
    """
    try:
        text.decode()
    except UnicodeDecodeError:
        # Python's own replacement on the way out is a question mark: \x01 stands for real ones.
        marked = text.replace(b"?", b"\x01").decode("utf-8", "surrogateescape")
        text = marked.encode("utf-8", "replace").replace(b"?", b"\xef\xbf\xbd")
        text = text.replace(b"\x01", b"?")
    for separator, escaped in _SEPARATORS:
        text = text.replace(separator, escaped)
    return text


def stamp(time_ns: int) -> str:
    """Return a time as RFC 3339 with nanoseconds, as Go prints it (no trailing zeros)."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """How a log is kept. ``max_size`` in bytes (0: no bound), ``attributes`` go into each record.

    ``path`` None keeps nothing (driver ``none``).
    """

    path: Path | None
    state: Path
    max_size: int = 0
    max_files: int = 1
    compress: bool = False
    attributes: tuple[tuple[str, str], ...] = ()


class Sender(Protocol):
    """Where records go besides the file (a driver that can't be read)."""

    def put(self, kind: StreamKind, line: bytes, time_ns: int) -> None:
        """Take a record, without its end of line."""
        ...

    async def room(self) -> None:
        """Wait until it can take more."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class _Stream:
    """One stream's way into the log: what is stored, and the unfinished line after it."""

    def __init__(self) -> None:
        self.taken = 0
        self.pending = bytearray()


class LogWriter:
    """The one writer of a container's log. Not for several threads."""

    def __init__(
        self,
        settings: LogSettings,
        generation: int,
        *,
        fresh: bool,
        sender: Sender | None = None,
    ) -> None:
        """Open or make the log.

        Raises InternalError if the disk refuses, but not for the run of an earlier daemon (not
        *fresh*): a container is more than its log, so that one goes on with what there is.
        """
        self.settings = settings
        self._sender = sender
        self.readers: set[asyncio.Event] = set()
        """Set at every record and at the end; each reader that follows has its own."""
        self.closed = False
        self._generation = generation
        self._streams = {kind: _Stream() for kind in _KINDS}
        self._log = -1
        self._size = 0
        self._whole = 0
        """Size of the log up to its last complete record."""
        self._complained = False
        attributes = dict(settings.attributes)
        self._state = -1
        self._attributes = (
            b'"attrs":' + json.dumps(attributes, separators=(",", ":")).encode() + b","
            if attributes
            else b""
        )
        for step in (self._open_state, self._open_path, self._store if fresh else self._recover):
            try:
                step()
            except OSError as error:
                words = f"the container's log can't be opened: {error.strerror or error}"
                if fresh:
                    self.close()
                    raise InternalError(words) from error
                log.error("%s: %s", settings.path or settings.state, words)

    def _open_state(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._state = os.open(self.settings.state, flags, 0o600)

    def _open_path(self) -> None:
        if self.settings.path is not None:
            self._open_log(self.settings.path)

    def _open_log(self, path: Path) -> None:
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = self._whole = os.fstat(self._log).st_size

    def _recover(self) -> None:
        """Cut off what an earlier daemon wrote without recording it."""
        raw = os.pread(self._state, _STATE.size + 4, 0)
        if len(raw) != _STATE.size + 4 or zlib.crc32(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
            return
        magic, generation, inode, size, out, err = _STATE.unpack(raw[:-4])
        if magic != _MAGIC or generation != self._generation:
            return
        self._streams[StreamKind.STDOUT].taken = out
        self._streams[StreamKind.STDERR].taken = err
        if self._log < 0:
            return
        # Another inode: the daemon died in a rotation, before anything went into the new file.
        recorded = size if os.fstat(self._log).st_ino == inode else 0
        if self._size > recorded:
            os.ftruncate(self._log, recorded)
            self._size = self._whole = recorded

    def _store(self) -> None:
        inode = os.fstat(self._log).st_ino if self._log >= 0 else 0
        raw = _STATE.pack(
            _MAGIC,
            self._generation,
            inode,
            self._size,
            self._streams[StreamKind.STDOUT].taken,
            self._streams[StreamKind.STDERR].taken,
        )
        os.pwrite(self._state, raw + zlib.crc32(raw).to_bytes(4, "little"), 0)

    def taken(self, kind: StreamKind) -> int:
        """Return the stream's offset up to which everything is in the log."""
        return self._streams[kind].taken

    def append(self, kind: StreamKind, offset: int, data: bytes, time_ns: int) -> None:
        """Take bytes of a stream; *offset* is where they lie in it, what is known is skipped.

        An unfinished line waits in memory until it ends or is 16 KiB long. What the disk refuses
        is lost to the log, as with Docker; what comes later is tried again.
        """
        stream = self._streams[kind]
        known = stream.taken + len(stream.pending)
        if offset > known:
            # The agent gave up a part (its buffer is bounded): go on from here.
            self._write(kind, bytes(stream.pending), time_ns)
            stream.pending.clear()
            stream.taken = known = offset
        text = data[known - offset :] if offset < known else data
        if stream.pending:
            text = bytes(stream.pending) + text
            stream.pending.clear()
        end = text.rfind(b"\n") + 1
        if len(text) - end >= PART:
            end += (len(text) - end) // PART * PART
        stream.pending += text[end:]
        self._write(kind, text[:end], time_ns)

    async def room(self) -> None:
        """Wait while where the log goes besides can't keep up (``mode=blocking``)."""
        if self._sender is not None:
            await self._sender.room()

    def finish(self, kind: StreamKind) -> None:
        """Store the stream's unfinished last line: nothing more comes."""
        stream = self._streams[kind]
        if stream.pending and not self.closed:
            rest = bytes(stream.pending)
            stream.pending.clear()
            self._write(kind, rest, time.time_ns())

    def _write(self, kind: StreamKind, text: bytes, time_ns: int) -> None:
        if not text:
            return
        if self.settings.path is not None and not self.closed:
            self._try_to_put(kind, text, time_ns)
        if self._sender is not None and not self.closed:
            for part in _parts(text.split(b"\n")):
                self._sender.put(kind, part.removesuffix(b"\n"), time_ns)
        self._streams[kind].taken += len(text)
        # Unrecorded, the next daemon cuts the end of the log off and asks the agent for it again.
        with contextlib.suppress(OSError):
            self._store()
        self._notify()

    def _try_to_put(self, kind: StreamKind, text: bytes, time_ns: int) -> None:
        assert self.settings.path is not None
        try:
            if self._log < 0:
                self._open_log(self.settings.path)
            self._put(kind, text, time_ns)
            self._complained = False
        except OSError as error:
            if not self._complained:
                log.error("failed to log to %s, it lacks lines: %s", self.settings.path, error)
            self._complained = True
            if self._log >= 0:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._log, self._whole)
                    self._size = self._whole

    def _put(self, kind: StreamKind, text: bytes, time_ns: int) -> None:
        tail = b'","stream":"%s",%s"time":"%s"}\n' % (
            kind.encode(),
            self._attributes,
            stamp(time_ns).encode(),
        )
        bound = self.settings.max_size
        count = text.count(b"\n") + 1
        # The longest that these records can be: a byte is escaped by six at most.
        if bound and self._size + len(text) * 6 + count * (len(tail) + 8) >= bound:
            for part in _parts(text.split(b"\n")):
                if self._size >= bound:
                    self._rotate()
                self._out(b'{"log":"' + escape(part) + tail)
        elif _may_be_long(text) or not text.endswith(b"\n"):
            parts = _parts(text.split(b"\n"))
            self._out(b"".join(b'{"log":"' + escape(part) + tail for part in parts))
        else:
            between = b"\\n" + tail + b'{"log":"'
            inner = _escape_all_but_newlines(text[:-1]).replace(b"\n", between)
            self._out(b'{"log":"' + inner + b"\\n" + tail)

    def _out(self, record: bytes) -> None:
        view = memoryview(record)
        while view:
            written = os.write(self._log, view)
            self._size += written
            view = view[written:]
        self._whole = self._size

    def _rotate(self) -> None:
        """Move the full log to ``.1``, ``.1`` to ``.2`` ..., and begin a new one."""
        path = self.settings.path
        assert path is not None
        os.close(self._log)
        self._log = -1
        suffix = ".gz" if self.settings.compress else ""
        keep = self.settings.max_files
        if keep <= 1:
            path.unlink(missing_ok=True)
        else:
            for number in range(keep - 1, 1, -1):
                older = path.with_name(f"{path.name}.{number - 1}{suffix}")
                if older.exists():
                    older.rename(path.with_name(f"{path.name}.{number}{suffix}"))
            first = path.with_name(f"{path.name}.1")
            # Somebody may have deleted the log by hand.
            with contextlib.suppress(FileNotFoundError):
                path.rename(first)
                if self.settings.compress:
                    _compress(first)
        self._open_log(path)
        self._store()

    def _notify(self) -> None:
        for event in self.readers:
            event.set()

    def close(self) -> None:
        """Close the files; readers that follow end."""
        if self.closed:
            return
        self.closed = True
        if self._sender is not None:
            self._sender.close()
        self._notify()
        for fd in (self._log, self._state):
            if fd >= 0:
                os.close(fd)
        self._log = self._state = -1


def _may_be_long(text: bytes) -> bool:
    """Tell whether a line may be longer than a record; sometimes it is only longer than half."""
    half = PART // 2
    return any(
        text.find(b"\n", start, start + half) < 0 for start in range(0, len(text) - half, half)
    )


def _parts(lines: list[bytes]) -> list[bytes]:
    """Cut lines (the last one without its newline) into records of at most 16 KiB."""
    made: list[bytes] = []
    for index, line in enumerate(lines):
        whole = line + b"\n" if index < len(lines) - 1 else line
        if len(whole) <= PART:
            if whole:
                made.append(whole)
        else:
            made += [whole[at : at + PART] for at in range(0, len(whole), PART)]
    return made


def _compress(path: Path) -> None:
    partial = path.with_name(f".{path.name}.gz")
    try:
        with path.open("rb") as source, gzip.open(partial, "wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    partial.rename(path.with_name(f"{path.name}.gz"))
    path.unlink()
