"""DNS messages, as much as the embedded server needs (RFC 1035, RFC 3596): no sockets here.

Questions come from guests and answers from servers out there: both are hostile. Only messages with
exactly one question are taken; names are bounded; nothing is followed that a message points to
except backwards, a bounded number of times.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

MAX_MESSAGE = 65535
MAX_UDP = 512
"""Bytes of an answer over UDP to a client that said nothing else."""
MAX_NAME = 255
MAX_RECORDS = 32
"""Addresses in one answer at most."""
TTL = 600
"""Seconds, as Docker's embedded server says."""
_HEADER = 12
_POINTERS = 32
_RESPONSE, _TRUNCATED, _KEPT, _AVAILABLE = 0x8000, 0x200, 0x110, 0x80
_OPCODE = 0x7800


class Type(IntEnum):
    """Types of records that we answer."""

    A = 1
    PTR = 12
    MX = 15
    AAAA = 28
    OPT = 41


class Code(IntEnum):
    """Response codes."""

    OK = 0
    FORMAT = 1
    FAILURE = 2
    NO_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class DnsError(ValueError):
    """The bytes are not a message that we take."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The one question of a query. ``name`` is lower case, without the last dot."""

    id: int
    name: str
    type: int
    kept: int
    """The flags that an answer repeats: recursion desired, checking disabled."""
    raw: bytes
    """The question as it came, for the answer."""
    limit: int
    """Bytes that the client takes over UDP."""


def parse(message: bytes) -> Question:
    """Read a query. Raises DnsError."""
    if not _HEADER < len(message) <= MAX_MESSAGE:
        raise DnsError("length")
    identifier, flags, questions, answers, _, additional = struct.unpack_from(">6H", message)
    if flags & 0xF800:
        raise DnsError("not a standard query")
    if questions != 1 or answers:
        raise DnsError("not one question")
    name, end = read_name(message, _HEADER)
    if end + 4 > len(message):
        raise DnsError("cut off")
    (kind,) = struct.unpack_from(">H", message, end)
    return Question(
        id=identifier,
        name=name.lower(),
        type=kind,
        kept=flags & _KEPT,
        raw=message[_HEADER : end + 4],
        limit=_limit(message, end + 4) if additional else MAX_UDP,
    )


def _limit(message: bytes, offset: int) -> int:
    """The size in an OPT record (RFC 6891), if that is what follows the question."""
    if message[offset : offset + 3] == b"\0\0\x29" and offset + 5 <= len(message):
        (size,) = struct.unpack_from(">H", message, offset + 3)
        return max(MAX_UDP, min(int(size), 4096))
    return MAX_UDP


def read_name(message: bytes, offset: int) -> tuple[str, int]:
    """Return the name at *offset* and where it ends. Raises DnsError."""
    labels: list[str] = []
    length = 0
    end = -1
    for _ in range(MAX_NAME + _POINTERS):
        if offset >= len(message):
            raise DnsError("cut off")
        size = message[offset]
        if size & 0xC0 == 0xC0:
            if offset + 2 > len(message):
                raise DnsError("cut off")
            target = struct.unpack_from(">H", message, offset)[0] & 0x3FFF
            if target >= offset:
                raise DnsError("a pointer ahead")
            end = offset + 2 if end < 0 else end
            offset = target
            continue
        if size & 0xC0:
            raise DnsError("unknown label")
        if size == 0:
            return ".".join(labels), end if end >= 0 else offset + 1
        if offset + 1 + size > len(message):
            raise DnsError("cut off")
        length += size + 1
        if length > MAX_NAME:
            raise DnsError("name too long")
        labels.append(message[offset + 1 : offset + 1 + size].decode("latin-1"))
        offset += 1 + size
    raise DnsError("pointers in a circle")


def write_name(name: str) -> bytes:
    """Encode a name. Raises DnsError for one that can't be."""
    out = bytearray()
    for label in name.split(".") if name else ():
        raw = label.encode("latin-1", errors="replace")
        if not 0 < len(raw) < 64:
            raise DnsError("label")
        out += bytes([len(raw)]) + raw
    if len(out) >= MAX_NAME:
        raise DnsError("name too long")
    return bytes(out) + b"\0"


def respond(
    question: Question,
    records: Sequence[IPv4Address | IPv6Address | str] = (),
    code: Code = Code.OK,
    *,
    limit: int = MAX_MESSAGE,
) -> bytes:
    """Answer a question: addresses become A and AAAA records, text becomes PTR records.

    What is more than *limit* bytes is left out, and the client told to ask again over TCP.
    """
    flags = _RESPONSE | question.kept | code
    if code == Code.OK:
        flags |= _AVAILABLE  # an answer; as Docker, of a failure it is not said
    body = bytearray()
    count = 0
    for record in records[:MAX_RECORDS]:
        kind, data = _data(record)
        item = b"\xc0\x0c" + struct.pack(">2HIH", kind, 1, TTL, len(data)) + data
        if _HEADER + len(question.raw) + len(body) + len(item) > limit:
            flags |= _TRUNCATED
            break
        body += item
        count += 1
    return struct.pack(">6H", question.id, flags, 1, count, 0, 0) + question.raw + bytes(body)


def _data(record: IPv4Address | IPv6Address | str) -> tuple[int, bytes]:
    if isinstance(record, str):
        return Type.PTR, write_name(record)
    return (Type.A if record.version == 4 else Type.AAAA), record.packed


def refuse(message: bytes, code: Code) -> bytes | None:
    """Answer bytes that are no query we take; None if there is not even an id."""
    if len(message) < _HEADER:
        return None
    identifier, flags = struct.unpack_from(">2H", message)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        code = Code.NOT_IMPLEMENTED
    kept = flags & (_OPCODE | _KEPT)
    return struct.pack(">6H", identifier, _RESPONSE | kept | code, 0, 0, 0, 0)


def answers(message: bytes, question: Question, identifier: int) -> bool:
    """Tell whether a server's message answers *question*, which was asked under *identifier*."""
    if not _HEADER + len(question.raw) <= len(message) <= MAX_MESSAGE:
        return False
    got, flags, questions = struct.unpack_from(">3H", message)
    if got != identifier or not flags & 0x8000 or questions != 1:
        return False
    return message[_HEADER : _HEADER + len(question.raw)].lower() == question.raw.lower()


def reverse_address(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a name below in-addr.arpa or ip6.arpa stands for."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return IPv4Address(".".join(reversed(labels[:4])))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            digits = "".join(reversed(labels[:32]))
            if len(digits) == 32:
                return IPv6Address(int(digits, 16).to_bytes(16, "big"))
    except ValueError:
        return None
    return None


def pick(addresses: Sequence[str], kind: int) -> list[IPv4Address | IPv6Address]:
    """Return those of *addresses* that a question of *kind* asks for."""
    version = {int(Type.A): 4, int(Type.AAAA): 6}.get(kind)
    return [address for text in addresses if (address := ip_address(text)).version == version]
