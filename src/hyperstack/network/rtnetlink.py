"""rtnetlink(7), as much of it as bridges, veths, taps, addresses and neighbours need.

A library of thousands of options costs the daemon 13 MB and a fraction of a second at start, and
0.8 ms a request; a container's whole plug is one batch of six requests here, 0.3 ms. A socket
belongs to the network namespace of the thread that makes it, and so does all that it is told.

Numbers are those of ``linux/rtnetlink.h``, ``if_link.h``, ``neighbour.h`` and ``if_addr.h``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

TIMEOUT = 10.0
"""Seconds that the kernel may take for one answer."""

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_GETROUTE = 26
_NEWNEIGH, _DELNEIGH = 28, 29
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _REPLACE, _EXCL, _CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
_NESTED = 0x8000

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 4, 5
_BRPORT_STATE, _BRPORT_MODE, _BRPORT_FLUSH, _BRPORT_ISOLATED = 1, 4, 24, 33
_LISTENING, _FORWARDING = 1, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_F_NODAD = 1, 2, 4, 8, 2
_RTA_DST = 1
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_IFF_UP = 1


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("I", value))


def _ifinfo(index: int, up: bool | None) -> bytes:
    change = 0 if up is None else _IFF_UP
    return struct.pack("BxHiII", 0, 0, index, _IFF_UP if up else 0, change)


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of ``02:42:...``. Raises ValueError."""
    data = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(data) != 6:
        raise ValueError(f"not a MAC address: {mac}")
    return data


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to ask of the kernel. ``what`` names it in an error."""

    what: str
    type: int
    flags: int
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Link:
    """An interface as it is now. ``master`` is an index, 0 for none."""

    index: int
    name: str
    kind: str
    master: int
    mac: str
    mtu: int
    up: bool


def bridge_new(name: str, mac: str, mtu: int) -> Request:
    """Make a bridge, up."""
    body = _ifinfo(0, True) + _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu)
    body += _attribute(_IFLA_ADDRESS, mac_bytes(mac))
    body += _attribute(_IFLA_LINKINFO, _text(_INFO_KIND, "bridge"))
    return Request(what=f"bridge {name}", type=_NEWLINK, flags=_CREATE | _EXCL, body=body)


def veth_new(name: str, peer: str, netns: int, master: int, mtu: int) -> Request:
    """Make a veth, up and on bridge *master*; its other end *peer* lies, down, in fd *netns*."""
    other = _ifinfo(0, None) + _text(_IFLA_IFNAME, peer) + _number(_IFLA_MTU, mtu)
    other += _number(_IFLA_NET_NS_FD, netns)
    info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
    body = _ifinfo(0, True) + _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu)
    body += _number(_IFLA_MASTER, master) + _attribute(_IFLA_LINKINFO, info)
    return Request(what=f"veth {name}", type=_NEWLINK, flags=_CREATE | _EXCL, body=body)


def link_set(
    name: str, *, up: bool | None = None, mac: str | None = None, mtu: int | None = None
) -> Request:
    """Change an interface."""
    body = _ifinfo(0, up) + _text(_IFLA_IFNAME, name)
    if mac is not None:
        body += _attribute(_IFLA_ADDRESS, mac_bytes(mac))
    if mtu is not None:
        body += _number(_IFLA_MTU, mtu)
    return Request(what=f"interface {name}", type=_NEWLINK, flags=0, body=body)


def link_del(name: str) -> Request:
    """Remove an interface; the kernel takes some 15 ms to be sure that nobody uses it."""
    body = _ifinfo(0, None) + _text(_IFLA_IFNAME, name)
    return Request(what=f"removal of {name}", type=_DELLINK, flags=0, body=body)


def port_set(name: str, **flags: bool) -> Request:
    """Set flags of a bridge port: ``isolated`` (talks to the bridge, not to other such ports),
    ``hairpin`` (may get its own frames back), ``forwarding`` (False cuts it off at once, which
    removing it would take much longer for)."""
    numbers = {"isolated": _BRPORT_ISOLATED, "hairpin": _BRPORT_MODE, "forwarding": _BRPORT_STATE}
    # Listening passes nothing. Disabled would be undone by the notification of this very change:
    # the bridge enables a disabled port that has a carrier.
    values = {"forwarding": (_LISTENING, _FORWARDING)}
    inner = b"".join(
        _attribute(numbers[flag], bytes([values.get(flag, (0, 1))[value]]))
        for flag, value in flags.items()
    )
    info = _text(_INFO_SLAVE_KIND, "bridge") + _attribute(_INFO_SLAVE_DATA | _NESTED, inner)
    body = _ifinfo(0, None) + _text(_IFLA_IFNAME, name) + _attribute(_IFLA_LINKINFO, info)
    return Request(what=f"bridge port {name}", type=_NEWLINK, flags=0, body=body)


def port_flush(name: str) -> Request:
    """Let a bridge forget which MACs it has learned behind one of its ports."""
    inner = _attribute(_BRPORT_FLUSH, b"")
    info = _text(_INFO_SLAVE_KIND, "bridge") + _attribute(_INFO_SLAVE_DATA | _NESTED, inner)
    body = _ifinfo(0, None) + _text(_IFLA_IFNAME, name) + _attribute(_IFLA_LINKINFO, info)
    return Request(what=f"addresses behind {name}", type=_NEWLINK, flags=0, body=body)


def _address_body(index: int, address: Interface) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    body = struct.pack("BBBBI", family, address.network.prefixlen, 0, 0, index)
    if address.version == 4:
        body += _attribute(_IFA_LOCAL, packed)
        if address.network.prefixlen < 31:
            body += _attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    else:
        # Nobody else can have it: waiting a second for duplicates would only delay containers.
        body += _number(_IFA_FLAGS, _IFA_F_NODAD)
    return body + _attribute(_IFA_ADDRESS, packed)


def address_add(index: int, address: Interface) -> Request:
    """Give an interface an address."""
    body = _address_body(index, address)
    return Request(what=f"address {address}", type=_NEWADDR, flags=_CREATE | _REPLACE, body=body)


def address_del(index: int, address: Interface) -> Request:
    """Take an address from an interface."""
    body = _address_body(index, address)
    return Request(what=f"address {address}", type=_DELADDR, flags=0, body=body)


def neighbour_add(index: int, address: Address, mac: str) -> Request:
    """Write down for ever which MAC an address has."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = struct.pack("BxxxiHBB", family, index, _NUD_PERMANENT, 0, 0)
    body += _attribute(_NDA_DST, address.packed) + _attribute(_NDA_LLADDR, mac_bytes(mac))
    flags = _CREATE | _REPLACE
    return Request(what=f"neighbour {address}", type=_NEWNEIGH, flags=flags, body=body)


def neighbour_del(index: int, address: Address) -> Request:
    """Forget which MAC an address has; the next packet to it asks for it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = struct.pack("BxxxiHBB", family, index, 0, 0, 0) + _attribute(_NDA_DST, address.packed)
    return Request(what=f"neighbour {address}", type=_DELNEIGH, flags=0, body=body)


class Rtnetlink:
    """One rtnetlink socket in the calling thread's network namespace; blocking, a context manager.

    What the kernel refuses is raised as OSError whose text names the request.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def do(self, *requests: Request) -> None:
        """Ask for all of *requests* in order; the first refusal is raised after all were tried."""
        if not requests:
            return  # the kernel refuses to be asked nothing
        first = self._sequence + 1
        data = b""
        for request in requests:
            self._sequence += 1
            flags = request.flags | _REQUEST | _ACK
            size = len(request.body) + 16
            data += struct.pack("IHHII", size, request.type, flags, self._sequence, 0)
            data += request.body + b"\0" * (-size % 4)
        self._socket.send(data)
        left = set(range(first, self._sequence + 1))
        failed: OSError | None = None
        while left:
            for kind, sequence, body in self._messages():
                if kind != _ERROR or sequence not in left:
                    continue
                left.discard(sequence)
                (code,) = struct.unpack_from("i", body)
                if code and failed is None:
                    what = requests[sequence - first].what
                    failed = OSError(-code, f"{what}: {os.strerror(-code)}")
        if failed is not None:
            raise failed

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 17)
        offset = 0
        while offset + 16 <= len(data):
            size, kind, _, sequence, _ = struct.unpack_from("IHHII", data, offset)
            if size < 16:
                return
            yield kind, sequence, data[offset + 16 : offset + size]
            offset += (size + 3) & ~3

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        flags = _REQUEST | _DUMP
        header = struct.pack("IHHII", len(body) + 16, kind, flags, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for answer, sequence, content in self._messages():
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (code,) = struct.unpack_from("i", content)
                    raise OSError(-code, os.strerror(-code))
                yield content

    def links(self) -> list[Link]:
        """Return all interfaces."""
        return [_link(body) for body in self._dump(_GETLINK, _ifinfo(0, None))]

    def link(self, name: str) -> Link | None:
        """Return one interface, or None."""
        self._sequence += 1
        body = _ifinfo(0, None) + _text(_IFLA_IFNAME, name)
        header = struct.pack("IHHII", len(body) + 16, _GETLINK, _REQUEST, self._sequence, 0)
        self._socket.send(header + body + b"\0" * (-len(body) % 4))
        while True:
            for kind, sequence, content in self._messages():
                if sequence != self._sequence:
                    continue
                if kind == _NEWLINK:
                    return _link(content)
                (code,) = struct.unpack_from("i", content)
                if code == -errno.ENODEV:
                    return None
                raise OSError(-code, f"interface {name}: {os.strerror(-code)}")

    def addresses(self) -> list[tuple[int, Interface]]:
        """Return the addresses of all interfaces, with their index."""
        found: list[tuple[int, Interface]] = []
        for body in self._dump(_GETADDR, struct.pack("BBBBI", 0, 0, 0, 0, 0)):
            family, prefix, _, _, index = struct.unpack_from("BBBBI", body)
            attributes = _attributes(body[8:])
            packed = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS))
            if packed is None:
                continue
            address = ip_address(packed)
            if family == socket.AF_INET:
                found.append((index, IPv4Interface((address, prefix))))
            elif family == socket.AF_INET6:
                found.append((index, IPv6Interface((address, prefix))))
        return found

    def routes(self) -> list[Network]:
        """Return the destinations of all routes but default ones and those of single hosts."""
        found: list[Network] = []
        for body in self._dump(_GETROUTE, struct.pack("BBBBBBBBI", *(0,) * 9)):
            family, length = struct.unpack_from("BB", body)
            packed = _attributes(body[12:]).get(_RTA_DST)
            if packed is None or not length or family not in (socket.AF_INET, socket.AF_INET6):
                continue
            found.append(ip_network((packed, length), strict=False))
        return found


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


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = struct.unpack_from("BxHiII", body)
    attributes = _attributes(body[16:])
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        master=int.from_bytes(attributes.get(_IFLA_MASTER, b""), "little"),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=int.from_bytes(attributes.get(_IFLA_MTU, b""), "little"),
        up=bool(flags & _IFF_UP),
    )


def is_gone(error: OSError) -> bool:
    """Tell whether the kernel refused because there is no such thing."""
    return error.errno in (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)
