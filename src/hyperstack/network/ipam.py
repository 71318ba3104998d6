"""Address management: which subnets networks get, which addresses endpoints get, which MACs.

Follows what libnetwork's default driver does: subnets come from the daemon's pools and avoid what
the host already routes or asks for names; the gateway is a subnet's first address; an endpoint gets
the lowest free address of the subnet (or of its range), or the one that the user named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

from hyperstack.errors import Forbidden, InternalError, InvalidParameter
from hyperstack.network.asked import check_subnets
from hyperstack.network.rows import Subnet
from hyperstack.network.rtnetlink import Address, Network

MAX_SCAN = 1 << 20
"""Addresses looked at before a subnet counts as full: bounds the search in IPv6."""


def overlaps(one: Network, others: Iterable[Network]) -> bool:
    """Tell whether *one* shares an address with any of *others*."""
    return any(isinstance(other, type(one)) and one.overlaps(other) for other in others)


def _candidates(base: str, size: int) -> Iterator[IPv4Network]:
    """Yield the subnets of a pool, from the one that *base* itself lies in."""
    start = IPv4Address(base.partition("/")[0])
    pool = IPv4Network(base, strict=False)
    if size < pool.prefixlen:
        return
    first = IPv4Network((int(start) & (-1 << (32 - size)), size))
    step = 1 << (32 - size)
    for address in range(int(first.network_address), int(pool.broadcast_address) + 1, step):
        yield IPv4Network((address, size))


def choose_subnet(pools: Sequence[tuple[str, int]], taken: Collection[Network]) -> IPv4Network:
    """Return the first subnet of the pools that overlaps nothing in *taken*.

    Raises InvalidParameter when there is none.
    """
    for base, size in pools:
        for candidate in _candidates(base, size):
            if not overlaps(candidate, taken):
                return candidate
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def choose_subnet6(seed: str, taken: Collection[Network]) -> IPv6Network:
    """Return a free /64 of the unique local prefix that belongs to this host (RFC 4193).

    *seed* is what the 40 bits of the global id are made from; the host's machine id.
    """
    digest = hashlib.sha256(f"hyper ipv6 pool {seed}".encode()).digest()
    prefix = int.from_bytes(b"\xfd" + digest[:5] + bytes(10), "big")
    for number in range(1 << 16):
        candidate = IPv6Network((prefix | number << 64, 64))
        if not overlaps(candidate, taken):
            return candidate
    raise InvalidParameter("all predefined address pools have been fully subnetted")


def settle(subnet: Subnet) -> Subnet:
    """Check what was written of a subnet and fill in the gateway.

    Raises InvalidParameter, or InternalError for an address that is taken, in Docker's words.
    """
    check_subnets((subnet,), ipv6=True)
    network = ip_network(subnet.subnet)
    gateway = subnet.gateway or _first(network, subnet.ip_range)
    taken = {ip_address(gateway)}
    if subnet.gateway and ip_address(gateway) in ends(network):
        raise InternalError(f"failed to allocate gateway ({gateway}): Address already in use")
    for name, text in sorted(subnet.auxiliary.items()):
        address = ip_address(text)
        if address in taken or address in ends(network):
            raise InternalError(
                f"failed to allocate secondary ip address ({name}:{text}): Address already in use"
            )
        taken.add(address)
    return Subnet(
        subnet=str(network),
        ip_range=subnet.ip_range,
        gateway=gateway,
        auxiliary=subnet.auxiliary,
    )


def _first(network: Network, ip_range: str) -> str:
    """Return the first address of a subnet, or of its range, that is somebody's."""
    if network.version == 6 and network.num_addresses == 1:
        raise InternalError("failed to allocate gateway (): no available addresses on this pool")
    first = ip_network(ip_range or str(network)).network_address
    return str(first + 1 if first in ends(network) else first)


def _address(what: str, text: str) -> Address:
    try:
        return ip_address(text.partition("/")[0])
    except ValueError as error:
        raise InvalidParameter(f"invalid {what} address: {text}") from error


def mac_of(address: IPv4Address) -> str:
    """Return the MAC that Docker makes from an IPv4 address: ``02:42`` and its four bytes."""
    return (b"\x02\x42" + address.packed).hex(":")


def mac_from(seed: str) -> str:
    """Return a stable, locally administered MAC made from any text (an id)."""
    return (b"\x02\x42" + hashlib.sha256(seed.encode()).digest()[:4]).hex(":")


def ends(network: Network) -> set[Address]:
    """Return whose addresses are nobody's: the network's own, and in IPv4 the broadcast address."""
    if network.num_addresses <= 2:
        return set()
    found: set[Address] = {network.network_address}
    if network.version == 4:
        found.add(network.broadcast_address)
    return found


@dataclass(kw_only=True)
class Pool:
    """The addresses of one subnet that are in use."""

    subnet: Subnet
    owner: str = ""
    """Name and id of the network, for the sentence that says that nothing is free."""
    used: set[Address] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._network = ip_network(self.subnet.subnet)
        self._span = ip_network(self.subnet.ip_range or self.subnet.subnet)
        reserved = [self.subnet.gateway, *self.subnet.auxiliary.values()]
        self._reserved = {ip_address(text.partition("/")[0]) for text in reserved if text}

    def take(self, wish: str = "") -> Address:
        """Reserve the address *wish*, or the lowest free one.

        Raises InvalidParameter for a wish outside the subnet, Forbidden for one in use,
        InternalError when the subnet is full.
        """
        address = self._wished(wish) if wish else self._lowest()
        self.used.add(address)
        return address

    def _wished(self, wish: str) -> Address:
        address = _address("IP", wish)
        if address not in self._network:
            raise InvalidParameter(
                "invalid endpoint settings:\n"
                f"no configured subnet or ip-range contain the IP address {wish}"
            )
        if address in self.used or address in self._reserved or address in ends(self._network):
            raise Forbidden("Address already in use")
        return address

    def _lowest(self) -> Address:
        first = int(self._span.network_address)
        reserved = self._reserved | ends(self._network)
        for number in range(first, first + min(self._span.num_addresses, MAX_SCAN)):
            address = type(self._span.network_address)(number)
            if address not in self.used and address not in reserved:
                return address
        raise InternalError(
            f"no available IPv{self._network.version} addresses on this network's "
            f"address pools: {self.owner or self._network}"
        )

    def give(self, address: str) -> None:
        """Free an address; nothing happens if it is free."""
        self.used.discard(ip_address(address))


def interface(address: str, subnet: Subnet) -> str:
    """Return ``address/prefix`` of an address in a subnet."""
    return str(ip_interface(f"{address}/{subnet.subnet.partition('/')[2]}"))
