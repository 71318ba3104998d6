"""Reads what the kit's builder asks of ELF files: shared libraries needed, a module's needs.

64-bit little-endian files alone (elf(5)). The files come from signed packages; a damaged one is
told by InternalError and never by anything worse.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hyperstack.errors import InternalError

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")


@dataclass(frozen=True, kw_only=True)
class Linkage:
    """What a program or library needs of the dynamic linker."""

    interpreter: str | None
    needed: tuple[str, ...]


def linkage(data: bytes) -> Linkage:
    """Return the interpreter and the libraries that a program names. Raises InternalError."""
    try:
        return _linkage(data)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise InternalError(f"not an ELF file that can be read: {error}") from error


def module_info(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the fields of a kernel module's ``.modinfo``. Raises InternalError."""
    try:
        section = _section(data, b".modinfo")
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise InternalError(f"not a kernel module that can be read: {error}") from error
    fields: dict[str, tuple[str, ...]] = {}
    for entry in section.split(b"\0"):
        name, equals, value = entry.decode(errors="replace").partition("=")
        if equals:
            fields[name] = (*fields.get(name, ()), value)
    return fields


def _check(data: bytes) -> None:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF header")


def _linkage(data: bytes) -> Linkage:
    _check(data)
    offset, size, count = (
        struct.unpack_from("<Q", data, 0x20)[0],
        *struct.unpack_from("<HH", data, 0x36),
    )
    segments = [_SEGMENT.unpack_from(data, offset + i * size) for i in range(count)]
    interpreter = None
    dynamic: list[tuple[int, int]] = []
    for kind, _, start, _, _, length, _, _ in segments:
        if kind == PT_INTERP:
            interpreter = _text(data, start)
        elif kind == PT_DYNAMIC:
            dynamic = list(_DYNAMIC.iter_unpack(data[start : start + length // 16 * 16]))
    strings = next((value for tag, value in dynamic if tag == DT_STRTAB), 0)
    base = _file_offset(segments, strings)
    needed = tuple(_text(data, base + value) for tag, value in dynamic if tag == DT_NEEDED)
    return Linkage(interpreter=interpreter, needed=needed)


def _file_offset(segments: list[tuple[int, ...]], address: int) -> int:
    for kind, _, offset, virtual, _, length, _, _ in segments:
        if kind == PT_LOAD and virtual <= address < virtual + length:
            return offset + address - virtual
    return address


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


def _section(data: bytes, wanted: bytes) -> bytes:
    _check(data)
    offset = struct.unpack_from("<Q", data, 0x28)[0]
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    sections = [_SECTION.unpack_from(data, offset + i * size) for i in range(count)]
    table = sections[names][4]
    for name, _, _, _, start, length, *_ in sections:
        begin = table + name
        if data[begin : data.index(b"\0", begin)] == wanted:
            return data[start : start + length]
    raise ValueError(f"no section {wanted.decode()}")
