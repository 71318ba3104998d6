"""Ports of the host: parsing of what is asked, allocation, sockets that guard them.

nftables translates connections to published ports; nobody needs to listen. But a port that only a
rule knows looks free to every other program, and theirs looks free to us. So each published port is
also bound and listened at, as dockerd's proxy does; the sockets are handed to the sandbox's port
helper (``network/helper.py``), which serves what rules can't and outlives the daemon.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import re
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import PortBinding
from hyperstack.network.rows import Publication

MAX_PORTS = 4096
"""Published ports of one container at most."""
BACKLOG = 512

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}


@dataclass(frozen=True, kw_only=True)
class Want:
    """One port of a container to be published at one or more addresses with the same port.

    ``first`` and ``last`` bound the host's port; 0 and 0 mean any of the ephemeral range.
    """

    protocol: str
    port: int
    addresses: tuple[str, ...]
    first: int
    last: int
    direct: tuple[str, ...] = ()
    """Further addresses, for which the port of the container itself is to be open."""


Bound = tuple[Publication, socket.socket]
"""A port and the socket that guards it."""


class Occupied(InternalError):
    """The port is taken; the message is Docker's, without the prefix that names the endpoint."""


class Allocated(Occupied):
    """It is another container's."""


def parse(text: str) -> tuple[range, str]:
    """Read ``80``, ``80/udp`` or ``8000-8010/tcp``. Raises InvalidParameter."""
    match = _PORT.match(text)
    if match is None:
        raise InvalidParameter(f"invalid port specification: {text!r}")
    first = int(match[1])
    last = int(match[2] or first)
    if not 0 < first <= last < 65536:
        raise InvalidParameter(f"invalid port specification: {text!r}")
    return range(first, last + 1), match[3] or "tcp"


def wants(
    bindings: Mapping[str, Sequence[PortBinding]],
    exposed: Iterable[str],
    *,
    publish_all: bool,
    default_address: str,
    ipv6: bool,
    routed: Collection[int] = (),
) -> list[Want]:
    """Say what has to be published, fixed ports before random ones.

    As Docker: what is not exposed is not published, whatever the bindings say. A binding without an
    address means all of IPv4 and, if *ipv6*, all of IPv6. For *routed*, IP versions, no port of the
    host is taken.
    """
    found: list[Want] = []
    for numbers, protocol in map(parse, dict.fromkeys(map(named, exposed))):
        for number in numbers:
            chosen = bindings.get(f"{number}/{protocol}", ())
            if not chosen and publish_all:
                chosen = (PortBinding(),)
            found += [
                _routed(_want(number, protocol, one, default_address, ipv6=ipv6), routed)
                for one in chosen
            ]
    if len(found) > MAX_PORTS:
        raise InvalidParameter(f"a container can publish at most {MAX_PORTS} ports")
    return sorted(found, key=lambda want: want.first == 0)


def same(publications: Sequence[Publication]) -> list[Want]:
    """Say that ports are to be published as they are."""
    found: dict[tuple[str, int, int], list[str]] = {}
    for p in publications:
        found.setdefault((p.protocol, p.port, p.host_port), []).append(p.host_ip)
    return [
        Want(protocol=protocol, port=port, addresses=tuple(at), first=number, last=number)
        for (protocol, port, number), at in found.items()
    ]


def is_port(text: str) -> bool:
    """Tell whether ``80``, ``80/tcp`` or the like is a port that there can be."""
    try:
        parse(named(text))
    except InvalidParameter:
        return False
    return True


def named(port: str) -> str:
    """Return a port with its protocol, which is TCP unless it is said."""
    return port if "/" in port else f"{port}/tcp"


def _want(
    number: int, protocol: str, binding: PortBinding, default_address: str, *, ipv6: bool
) -> Want:
    addresses = _addresses(binding.host_ip, default_address, ipv6)
    if binding.host_port in ("", "0"):
        return Want(protocol=protocol, port=number, addresses=addresses, first=0, last=0)
    host, _ = parse(binding.host_port)
    return Want(protocol=protocol, port=number, addresses=addresses, first=host[0], last=host[-1])


def _routed(want: Want, versions: Collection[int]) -> Want:
    direct = tuple(a for a in want.addresses if ip_address(a).version in versions)
    bound = tuple(a for a in want.addresses if a not in direct)
    return replace(want, addresses=bound, direct=direct)


def _addresses(host_ip: str, default_address: str, ipv6: bool) -> tuple[str, ...]:
    chosen = host_ip.strip("[]") or default_address
    try:
        address = ip_address(chosen)
    except ValueError:
        raise InvalidParameter(f"invalid host IP address: {host_ip}") from None
    if not host_ip and address.is_unspecified:
        return ("0.0.0.0", "::") if ipv6 else ("0.0.0.0",)
    return (str(address),)


def shown(host_ip: str) -> str:
    """Return an address as it stands before ``:port``."""
    return f"[{host_ip}]" if ":" in host_ip else host_ip


def guard(publication: Publication, address: str) -> socket.socket:
    """Bind and listen at a port of the host that leads to *address*.

    Raises Occupied if another program has it, or if the host has no such protocol (SCTP).
    """
    p = publication
    family = socket.AF_INET6 if ":" in p.host_ip else socket.AF_INET
    try:
        sock = socket.socket(
            family, _KINDS[p.protocol] | socket.SOCK_CLOEXEC, _PROTOCOLS[p.protocol]
        )
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise Occupied(
                f"error starting userland proxy: failed to listen on "
                f"{shown(p.host_ip)}:{p.host_port}: protocol not supported"
            ) from error
        raise InternalError(f"a socket can't be made: {error.strerror}") from error
    try:
        if p.protocol != "udp":
            # Else connections that have ended would keep the port for another minute.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((p.host_ip, p.host_port))
        if p.protocol != "udp":
            sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        where = f"{shown(p.host_ip)}:{p.host_port}:{shown(address)}:{p.port}/{p.protocol}"
        reason = (error.strerror or str(error)).lower()
        raise Occupied(f"failed to bind host port for {where}: {reason}") from error
    return sock


class PortTable:
    """Which ports of the host are published, by protocol and port."""

    def __init__(self, ephemeral: tuple[int, int]) -> None:
        self._ephemeral = ephemeral
        self._next: dict[tuple[str, int, int], int] = {}
        self._taken: dict[tuple[str, int], set[str]] = {}

    def _holder(self, protocol: str, port: int, host_ip: str) -> str:
        """Return the address at which a port is published that *host_ip* would overlap."""
        taken = self._taken.get((protocol, port), set())
        address = ip_address(host_ip)
        for other in map(ip_address, taken):
            if other.version == address.version and (
                other == address or other.is_unspecified or address.is_unspecified
            ):
                return str(other)
        return ""

    def hold(self, publication: Publication) -> None:
        """Note a port as taken."""
        key = (publication.protocol, publication.host_port)
        self._taken.setdefault(key, set()).add(publication.host_ip)

    def give(self, publications: Iterable[Publication]) -> None:
        """Free ports."""
        for p in publications:
            addresses = self._taken.get((p.protocol, p.host_port))
            if addresses is not None:
                addresses.discard(p.host_ip)
                if not addresses:
                    del self._taken[p.protocol, p.host_port]

    def take(self, want: Want, address: str) -> list[Bound]:
        """Allocate a port that leads to *address*, bind it wherever it is wanted.

        Raises Occupied.
        """
        if not want.addresses:
            return []
        failed: Occupied | None = None
        for port in self._numbers(want):
            try:
                return self._take(want, port, address)
            except Occupied as error:
                failed = error
        assert failed is not None
        if not want.first or (want.first != want.last and isinstance(failed, Allocated)):
            raise Occupied("all ports are allocated")
        raise failed

    def _numbers(self, want: Want) -> Iterable[int]:
        """Yield the ports that will do, from the one after the last that was given."""
        first, last = (want.first, want.last) if want.first else self._ephemeral
        start = self._next.get((want.protocol, first, last), first)
        return itertools.chain(range(start, last + 1), range(first, start))

    def _take(self, want: Want, port: int, address: str) -> list[Bound]:
        made: list[Bound] = []
        with contextlib.ExitStack() as undo:
            for host_ip in want.addresses:
                if holder := self._holder(want.protocol, port, host_ip):
                    raise Allocated(f"Bind for {holder}:{port} failed: port is already allocated")
                publication = Publication(
                    protocol=want.protocol, port=want.port, host_ip=host_ip, host_port=port
                )
                sock = guard(publication, address)
                undo.callback(sock.close)
                made.append((publication, sock))
            undo.pop_all()
        for publication, _ in made:
            self.hold(publication)
        first, last = (want.first, want.last) if want.first else self._ephemeral
        if first != last:
            self._next[want.protocol, first, last] = port + 1 if port < last else first
        return made
