"""Forgets translated UDP flows (nfnetlink_conntrack): the kernel keeps sending to a dead address.

A flow is found by its original destination port and by being translated, and removed by its
original tuple. Attributes are those of ``linux/netfilter/nfnetlink_conntrack.h``.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Collection, Iterator

log = logging.getLogger(__name__)

TIMEOUT = 5.0
_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _STATUS = 1, 3
_TUPLE_PROTO = 2
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_IPS_DST_NAT = 1 << 5


def forget_udp(ports: Collection[int]) -> int:
    """Remove the translated UDP flows to these ports of the host; return how many. Blocking."""
    removed = 0
    try:
        with _open() as sock:
            for family in (socket.AF_INET, socket.AF_INET6):
                for original in list(_flows(sock, family, ports)):
                    removed += _delete(sock, family, original)
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
            log.warning("old UDP flows can't be removed: %s", error)
    return removed


def _open() -> socket.socket:
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
    )
    sock.settimeout(TIMEOUT)
    sock.bind((0, 0))
    return sock


def _message(kind: int, flags: int, family: int, body: bytes = b"") -> bytes:
    return struct.pack("IHHIIBBH", 20 + len(body), kind, flags, 1, 0, family, 0, 0) + body


def _flows(sock: socket.socket, family: int, ports: Collection[int]) -> Iterator[bytes]:
    """Yield the original tuples (whole attribute) of the flows that fit."""
    sock.send(_message(_CT_GET, _REQUEST | _DUMP, family))
    while True:
        data = sock.recv(1 << 17)
        offset = 0
        while offset + 16 <= len(data):
            size, kind = struct.unpack_from("IH", data, offset)
            if kind == _DONE or size < 16:
                return
            if kind == _ERROR:
                (code,) = struct.unpack_from("i", data, offset + 16)
                raise OSError(-code, os.strerror(-code))
            original = _fits(data[offset + 20 : offset + size], ports)
            if original is not None:
                yield original
            offset += (size + 3) & ~3


def _fits(body: bytes, ports: Collection[int]) -> bytes | None:
    attributes = _attributes(body)
    original = attributes.get(_TUPLE_ORIG, b"")
    protocol = _attributes(_attributes(original).get(_TUPLE_PROTO, b""))
    status = int.from_bytes(attributes.get(_STATUS, b""), "big")
    port = int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big")
    number = int.from_bytes(protocol.get(_PROTO_NUM, b""), "big")
    if number == socket.IPPROTO_UDP and port in ports and status & _IPS_DST_NAT:
        return struct.pack("HH", len(original) + 4, _TUPLE_ORIG | 0x8000) + original
    return None


def _delete(sock: socket.socket, family: int, original: bytes) -> int:
    body = original + b"\0" * (-len(original) % 4)
    sock.send(_message(_CT_DELETE, _REQUEST | _ACK, family, body))
    (code,) = struct.unpack_from("i", sock.recv(1 << 13), 16)
    return int(code == 0)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("HH", data, offset)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found
