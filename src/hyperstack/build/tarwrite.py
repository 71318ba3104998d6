"""Writes a tar whose files are chosen from trees: what COPY sends into a guest.

POSIX.1-2001: a pax header where ustar's fields are too small, ustar otherwise.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from hyperstack.build.tree import Node
from hyperstack.errors import InternalError
from hyperstack.image import tarfmt
from hyperstack.image.tarfmt import BLOCK

PIECE = 1 << 20
_OCTAL_MOST = 0o7777777
_SIZE_MOST = 0o77777777777


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of the tar. ``name`` is relative to the root that it is unpacked in."""

    name: str
    node: Node
    owner: tuple[int, int]
    source: int = -1
    """Descriptor of the spool that holds its bytes."""
    link: str = ""
    """Name of an earlier entry that it is a hard link to."""


def encode(name: str) -> bytes:
    """Return a path's bytes as they came."""
    return name.encode("utf-8", "surrogateescape")


async def write(entries: Iterator[Entry]) -> AsyncIterator[bytes]:
    """Yield the tar in pieces. Raises InternalError if a spool can't be read."""
    held: list[bytes] = []
    size = 0
    for entry in entries:
        held.append(header(entry))
        size += len(held[-1])
        left, offset = _length(entry), entry.node.offset
        while left:
            data = await asyncio.to_thread(_read, entry.source, min(left, PIECE), offset)
            left, offset = left - len(data), offset + len(data)
            held.append(data)
            size += len(data)
            if size >= PIECE:
                yield b"".join(held)
                held, size = [], 0
        held.append(bytes(-_length(entry) % BLOCK))
    yield b"".join((*held, tarfmt.ZERO, tarfmt.ZERO))


def _length(entry: Entry) -> int:
    return 0 if entry.link or entry.node.kind != tarfmt.FILE else entry.node.size


def _read(fd: int, size: int, offset: int) -> bytes:
    try:
        data = os.pread(fd, size, offset)
    except OSError as error:
        raise InternalError(f"the build context can't be read: {error.strerror}") from error
    if not data:
        raise InternalError("the build context can't be read: it was cut")
    return data


def header(entry: Entry) -> bytes:
    """Return an entry's header blocks."""
    node = entry.node
    name = encode(entry.name) + (b"/" if node.is_dir else b"")
    kind = tarfmt.HARD_LINK if entry.link else node.kind
    link = encode(entry.link or (node.link if kind == tarfmt.SYMLINK else ""))
    size = _length(entry)
    uid, gid = entry.owner
    records = [(b"SCHILY.xattr." + key, value) for key, value in sorted(node.xattrs.items())]
    if entry.link:
        records = []
    for key, value, fits in (
        (b"path", name, len(name) <= 100),
        (b"linkpath", link, len(link) <= 100),
        (b"size", b"%d" % size, size <= _SIZE_MOST),
        (b"uid", b"%d" % uid, uid <= _OCTAL_MOST),
        (b"gid", b"%d" % gid, gid <= _OCTAL_MOST),
        (b"mtime", b"%d" % node.mtime, node.mtime <= _SIZE_MOST),
    ):
        if not fits:
            records.append((key, value))
    block = _block(
        name[:100],
        kind,
        node.mode,
        (min(uid, _OCTAL_MOST), min(gid, _OCTAL_MOST)),
        min(size, _SIZE_MOST),
        min(node.mtime, _SIZE_MOST),
        link[:100],
        node.device,
    )
    return (_pax(records) if records else b"") + block


def _pax(records: Sequence[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(_record(key, value) for key, value in records)
    block = _block(b"././@PaxHeader", tarfmt.PAX, 0o644, (0, 0), len(data), 0, b"", (0, 0))
    return block + data.ljust(tarfmt.padded(len(data)), b"\0")


def _record(key: bytes, value: bytes) -> bytes:
    """Return ``LENGTH KEY=VALUE`` and a newline; the length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest) + 1
    while len(rest) + len(str(size)) != size:
        size = len(rest) + len(str(size))
    return b"%d" % size + rest


def _block(
    name: bytes,
    kind: int,
    mode: int,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = b"%07o\0" % owner[0]
    block[116:124] = b"%07o\0" % owner[1]
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % mtime
    block[148:156] = b" " * 8
    block[156] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[329:337] = b"%07o\0" % device[0]
    block[337:345] = b"%07o\0" % device[1]
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
