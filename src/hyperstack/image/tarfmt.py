"""The tar format, as far as layers and image archives need it: one header at a time, bounded.

POSIX.1-2001 (pax), ustar and GNU headers; what is refused here is refused by Docker too (Go's
archive/tar), or could only come from somebody who means harm. Nothing here opens a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hyperstack.errors import InvalidParameter

BLOCK = 512
ZERO = bytes(BLOCK)
MAX_PATH = 4096
MAX_COMPONENT = 255
MAX_DEPTH = 256
MAX_EXTENSION = 1 << 20
"""Bytes of one pax header or long name; Go's archive/tar takes as many."""
MAX_SIZE = 1 << 48

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO, CONTIGUOUS = b"01234567"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"xgLK"
EXTENSIONS = frozenset(b"xgLK")
KNOWN = frozenset(b"01234567S")
SPARSE = b"S"[0]
_WITHOUT_DATA = frozenset(b"123456")
"""Types whose size field says nothing (Go's ``isHeaderOnlyType``)."""
_SPARSE_MAP = b"GNU.sparse.map"
_SPARSE_PARTS = frozenset({b"GNU.sparse.offset", b"GNU.sparse.numbytes"})
_CHECKSUM = slice(148, 156)
_BLANK = b" " * 8
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*\Z")


@dataclass(slots=True)
class Header:
    """One header block. ``size`` counts the bytes of data that follow it, padding left out."""

    type: int
    name: bytes
    link: bytes
    size: int


def parse(block: bytes) -> Header:
    """Read a header block. Raises InvalidParameter, ``archive/tar: ...``, if it is none."""
    _check_sum(block)
    kind = block[156] or FILE
    size = number(block[124:136])
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    if kind in _WITHOUT_DATA:
        size = 0
    elif kind == FILE and name.endswith(b"/"):
        kind, size = DIRECTORY, 0  # as before POSIX.1-1988
    return Header(kind, name, block[157:257].split(b"\0", 1)[0], size)


def _check_sum(block: bytes) -> None:
    unsigned = sum(block) - sum(block[_CHECKSUM]) + 256
    stored = number(block[_CHECKSUM])
    if unsigned == stored:
        return
    # Some old programs added the bytes up as signed characters.
    high = sum(byte > 127 for byte in block) - sum(byte > 127 for byte in block[_CHECKSUM])
    if unsigned - 256 * high != stored:
        raise InvalidParameter("archive/tar: invalid tar header")


def number(field: bytes) -> int:
    """Return a numeric field: octal digits, or GNU's base 256 if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if field[0] & 0x40 or value > MAX_SIZE:
            raise InvalidParameter("archive/tar: invalid tar header")
        return value
    match = _OCTAL.match(field.split(b"\0", 1)[0] if field[0] else field)
    if match is None:
        raise InvalidParameter("archive/tar: invalid tar header")
    return int(match[1] or b"0", 8)


def padded(size: int) -> int:
    """Return *size* rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Read the records of a pax header: ``LENGTH KEY=VALUE`` and a newline each."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data) and data[position]:
        blank = data.find(b" ", position, position + 20)
        digits = data[position:blank]
        if blank < 0 or not digits.isdigit():
            raise InvalidParameter("archive/tar: invalid tar header")
        end = position + int(digits)
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= blank + 1 or data[end - 1] != 10 or not equals or not key:
            raise InvalidParameter("archive/tar: invalid tar header")
        if key in _SPARSE_PARTS:
            # Format 0.0 has a record for each number; together they are the map of format 0.1.
            key, value = _SPARSE_MAP, b",".join(filter(None, (records.get(_SPARSE_MAP), value)))
        records[key] = value
        position = end
    return records


def pax_number(value: bytes) -> int:
    """Read a pax record that is a size. Raises InvalidParameter."""
    if not value.isdigit() or len(value) > 15:
        raise InvalidParameter("archive/tar: invalid tar header")
    return int(value)


def make(
    name: bytes, *, kind: int = FILE, size: int = 0, mode: int = 0o644, mtime: int = 0
) -> bytes:
    """Return the header block of an entry that belongs to root; a name over 100 bytes gets a
    GNU long name before it."""
    blocks = b""
    if len(name) > 100:
        data = name + b"\0"
        blocks = _block(b"././@LongLink", LONG_NAME, len(data), 0o644, 0)
        blocks += data.ljust(padded(len(data)), b"\0")
    return blocks + _block(name[:100], kind, size, mode, mtime)


def rewritten(
    block: bytes, pax: Mapping[bytes, bytes], *, name: bytes, link: bytes, size: int, kind: int
) -> bytes:
    """Return the headers of an entry anew: *block* with other values, and *pax* as records."""
    records = {b"path": name, **({b"linkpath": link} if link else {}), **pax}
    data = b"".join(_record(key, value) for key, value in records.items())
    made = bytearray(block)
    made[:100] = name[:100].ljust(100, b"\0")
    made[124:136] = _length(size)
    made[156] = kind
    made[157:257] = link[:100].ljust(100, b"\0")
    made[257:265] = b"ustar\00000"
    made[345:512] = bytes(167)
    made[_CHECKSUM] = _BLANK
    made[_CHECKSUM] = b"%06o\0 " % sum(made)
    head = _block(b"././@PaxHeader", PAX, len(data), 0o644, 0)
    return head + data.ljust(padded(len(data)), b"\0") + made


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record; its length counts its own digits."""
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    if len(str(length)) != len(str(size)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _length(size: int) -> bytes:
    return b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")


def _block(name: bytes, kind: int, size: int, mode: int, mtime: int) -> bytes:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:124] = b"0000000\0" * 2
    block[124:136] = _length(size)
    block[136:148] = b"%011o\0" % mtime
    block[_CHECKSUM] = _BLANK
    block[156] = kind
    block[257:265] = b"ustar  \0"
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)
