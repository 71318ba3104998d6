"""A container's log on disk: Docker's json-file format, written exactly once.

Docker's format is one JSON object a line: ``log`` (a line with its newline, or a part of 16 KiB),
``stream``, ``time`` and, if asked for, ``attrs``. Beside the log lies a small state file with how
far the log goes and up to which offset of the process's streams: a killed daemon leaves at most an
unrecorded tail, which the next one cuts off and fetches from the guest's agent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from hyperstack.engine.logging.jsonline import (
    PART,
    escape,
    escape_all_but_newlines,
    may_be_long,
    parts,
    stamp,
)
from hyperstack.engine.logging.rotation import Compressor, shift
from hyperstack.engine.logging.sending import Line, Partial, Sender
from hyperstack.errors import InternalError
from hyperstack.ids import new_id
from hyperstack.model import StreamKind

log = logging.getLogger(__name__)

_STATE = struct.Struct("<8sQQQQQ")
_MAGIC = b"hyperlg1"
_KINDS = (StreamKind.STDOUT, StreamKind.STDERR)


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


class _Stream:
    """One stream's way into the log: what is stored, and the unfinished line after it."""

    def __init__(self, kind: StreamKind) -> None:
        self.kind = kind
        self.taken = 0
        self.pending = bytearray()
        self._before: Line | None = None
        """The part that came last of a line that is longer than a record and has not ended."""

    def line(self, part: bytes, time_ns: int) -> Line:
        """Return a record as drivers get it; parts of a line have the time of the first."""
        before, ended = self._before, part.endswith(b"\n")
        partial = None
        if before is not None and before.partial is not None:
            partial = Partial(id=before.partial.id, ordinal=before.partial.ordinal + 1, last=ended)
            time_ns = before.time_ns
        elif not ended:
            partial = Partial(id=new_id(), ordinal=1, last=False)
        made = Line(kind=self.kind, text=part.removesuffix(b"\n"), time_ns=time_ns, partial=partial)
        self._before = None if ended else made
        return made


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
        self._streams = {kind: _Stream(kind) for kind in _KINDS}
        self._log = -1
        self._size = 0
        self._whole = 0
        """Size of the log up to its last complete record."""
        self._complained = False
        self._rotated_ns = 0
        self._compressor: Compressor | None = None
        if settings.compress and settings.path is not None:
            self._compressor = Compressor(settings.path)
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

    async def flushed(self) -> None:
        """Wait, not for long, until what goes elsewhere has gone there."""
        if self._sender is not None:
            await self._sender.flushed()

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
        stream = self._streams[kind]
        end = stream.taken + len(text)
        if self.settings.path is not None and not self.closed:
            self._try_to_put(stream, text, time_ns)
        if self._sender is not None and not self.closed:
            for part in parts(text.split(b"\n")):
                self._sender.put(stream.line(part, time_ns))
        stream.taken = end
        # Unrecorded, the next daemon cuts the end of the log off and asks the agent for it again.
        with contextlib.suppress(OSError):
            self._store()
        self._notify()

    def _try_to_put(self, stream: _Stream, text: bytes, time_ns: int) -> None:
        assert self.settings.path is not None
        try:
            if self._log < 0:
                self._open_log(self.settings.path)
            self._put(stream, text, time_ns)
            self._complained = False
        except OSError as error:
            if not self._complained:
                log.error("failed to log to %s, it lacks lines: %s", self.settings.path, error)
            self._complained = True
            if self._log >= 0:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._log, self._whole)
                    self._size = self._whole

    def _put(self, stream: _Stream, text: bytes, time_ns: int) -> None:
        tail = b'","stream":"%s",%s"time":"%s"}\n' % (
            stream.kind.encode(),
            self._attributes,
            stamp(time_ns).encode(),
        )
        bound = self.settings.max_size
        count = text.count(b"\n") + 1
        # The longest that these records can be: a byte is escaped by six at most.
        if bound and self._size + len(text) * 6 + count * (len(tail) + 8) >= bound:
            for part in parts(text.split(b"\n")):
                if self._is_full():
                    self._rotate()
                self._out(b'{"log":"' + escape(part) + tail)
                stream.taken += len(part)
        elif may_be_long(text) or not text.endswith(b"\n"):
            cut = parts(text.split(b"\n"))
            self._out(b"".join(b'{"log":"' + escape(part) + tail for part in cut))
        else:
            between = b"\\n" + tail + b'{"log":"'
            inner = escape_all_but_newlines(text[:-1]).replace(b"\n", between)
            self._out(b'{"log":"' + inner + b"\\n" + tail)

    def _out(self, record: bytes) -> None:
        view = memoryview(record)
        while view:
            written = os.write(self._log, view)
            self._size += written
            view = view[written:]
        self._whole = self._size

    def _is_full(self) -> bool:
        if self._size < self.settings.max_size:
            return False
        # Somebody may have emptied it by hand.
        self._size = self._whole = os.fstat(self._log).st_size
        return self._size >= self.settings.max_size

    def _rotate(self) -> None:
        """Make the full log the first of the old ones, and begin a new one.

        What was taken is recorded before, so that a daemon that is killed in between has nothing
        of it again.
        """
        path = self.settings.path
        assert path is not None
        self._store()
        # Readers tell old files by these times, so no two are to have the same.
        self._rotated_ns = max(self._rotated_ns + 1, time.time_ns())
        os.utime(self._log, ns=(self._rotated_ns, self._rotated_ns))
        os.close(self._log)
        self._log = -1
        shift(path, self.settings.max_files)
        self._open_log(path)
        self._store()
        if self._compressor is not None:
            self._compressor.begin()

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
