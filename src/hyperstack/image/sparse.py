"""Sparse files in tars: where their bytes go, and the holes between them.

GNU's old format (type ``S``, a map of binary numbers in the header and in blocks behind it) and its
pax formats 0.0, 0.1 (a map in the records) and 1.0 (a map in front of the data); GNU tar manual,
"Storing Sparse Files". A map is checked as Go's archive/tar checks it before a byte of it counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt

MAX_SIZE = 128 << 30
"""Bytes of one file with its holes: they are written out."""
MAX_PARTS = 50_000
"""Pieces of one file."""
ZEROS = bytes(1 << 20)
_IN_HEADER = slice(386, 482)
_MORE_IN_HEADER = 482
_REAL_SIZE = slice(483, 495)
_IN_BLOCK = slice(0, 504)
_MORE_IN_BLOCK = 504
_PAIR = 24

Part = tuple[int, int]
"""Offset and bytes of a piece of data."""


def has_more(block: bytes, *, header: bool) -> bool:
    """Tell whether another block of an old map follows this one."""
    return bool(block[_MORE_IN_HEADER if header else _MORE_IN_BLOCK])


def old_map(header: bytes, blocks: Sequence[bytes]) -> tuple[list[Part], int]:
    """Return the pieces and the size with holes of a file of type ``S``."""
    tables = [header[_IN_HEADER], *(block[_IN_BLOCK] for block in blocks)]
    numbers: list[int] = []
    for table in tables:
        for start in range(0, len(table) - _PAIR + 1, _PAIR):
            pair = table[start : start + _PAIR]
            if pair[0] == 0:
                break
            numbers += (tarfmt.number(pair[:12]), tarfmt.number(pair[12:]))
    return _checked(numbers, tarfmt.number(header[_REAL_SIZE]))


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Tell whether the records of an entry say that it is sparse."""
    return any(key.startswith(b"GNU.sparse.") for key in records)


def real_name(records: Mapping[bytes, bytes], name: bytes) -> bytes:
    """Return the name of a sparse file, which is not that of its header."""
    return records.get(b"GNU.sparse.name") or name


def pax_map(records: Mapping[bytes, bytes]) -> tuple[list[Part], int] | None:
    """Return the pieces and the size with holes; None if the map is in front of the data."""
    version = records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"0")
    if version == (b"1", b"0"):
        return None
    if version[0] != b"0" or b"GNU.sparse.size" not in records:
        raise InvalidParameter("archive/tar: invalid tar header")
    text = records.get(b"GNU.sparse.map", b"")
    numbers = [tarfmt.pax_number(number) for number in text.split(b",")] if text else []
    return _checked(numbers, tarfmt.pax_number(records[b"GNU.sparse.size"]))


class FrontMap:
    """The map of format 1.0, block by block: a count, then offsets and lengths, one a line."""

    def __init__(self, records: Mapping[bytes, bytes]) -> None:
        self._real = tarfmt.pax_number(records.get(b"GNU.sparse.realsize", b""))
        self._data = b""
        self._lines = 0
        self._wanted = 1

    def feed(self, block: bytes) -> tuple[list[Part], int] | None:
        """Take a block; return the pieces and the size with holes once the map is whole."""
        self._data += block
        self._lines += block.count(b"\n")
        if self._wanted == 1 and self._lines:
            count = tarfmt.pax_number(self._data.split(b"\n", 1)[0])
            if count > MAX_PARTS:
                raise InvalidParameter(f"a sparse file has more than {MAX_PARTS} pieces")
            self._wanted = 1 + 2 * count
        if self._lines < self._wanted or (self._wanted == 1 and not self._lines):
            if len(self._data) > tarfmt.MAX_EXTENSION:
                raise InvalidParameter("archive/tar: header field too long")
            return None
        lines = self._data.split(b"\n")[1 : self._wanted]
        return _checked([tarfmt.pax_number(line) for line in lines], self._real)


def _checked(numbers: Sequence[int], real: int) -> tuple[list[Part], int]:
    if len(numbers) % 2 or real > MAX_SIZE or len(numbers) > 2 * MAX_PARTS:
        raise InvalidParameter("archive/tar: invalid tar header")
    parts = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in parts:
        if offset < end or offset + length > real:
            raise InvalidParameter("archive/tar: invalid tar header")
        end = offset + length
    return parts, real


def spans(parts: Iterable[Part], real: int) -> list[tuple[bool, int]]:
    """Return what a file consists of, in order: whether it is data, and how many bytes."""
    found, at = [], 0
    for offset, length in parts:
        found += [(False, offset - at), (True, length)]
        at = offset + length
    return [span for span in [*found, (False, real - at)] if span[1]]


def zeros(count: int) -> Iterable[memoryview]:
    """Yield *count* zero bytes in pieces that share their memory."""
    whole, rest = divmod(count, len(ZEROS))
    view = memoryview(ZEROS)
    return itertools.chain(itertools.repeat(view, whole), (view[:rest],) if rest else ())
