"""What the daemon knows of networks and endpoints, in memory: lookups and address reservations."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from hyperstack.errors import InvalidParameter, NotFound
from hyperstack.ids import ContainerId, EndpointId, NetworkId
from hyperstack.network.ipam import Pool
from hyperstack.network.rows import Endpoint, Network


class Book:
    """The networks and endpoints of one daemon; no call waits."""

    def __init__(self) -> None:
        self._networks: dict[NetworkId, Network] = {}
        self._endpoints: dict[EndpointId, Endpoint] = {}
        self._of: dict[ContainerId, dict[EndpointId, Endpoint]] = {}
        self._on: dict[NetworkId, dict[EndpointId, Endpoint]] = {}
        self._pools: dict[tuple[NetworkId, int], Pool] = {}

    def put(self, network: Network) -> None:
        """Add a network, or replace the row of one without changing its subnets in use."""
        self._networks[network.id] = network
        for subnet in network.subnets:
            key = (network.id, subnet.version)
            pool = self._pools.get(key)
            if pool is None or pool.subnet != subnet:
                self._pools[key] = Pool(subnet=subnet, owner=f"{network.name} ({network.id})")

    def drop(self, network: Network) -> None:
        """Forget a network."""
        self._networks.pop(network.id, None)
        self._on.pop(network.id, None)
        for key in [key for key in self._pools if key[0] == network.id]:
            del self._pools[key]

    def networks(self) -> list[Network]:
        """Return all networks, newest first, as Docker lists them."""
        return sorted(self._networks.values(), key=lambda n: n.created_ns, reverse=True)

    def bridges(self) -> list[Network]:
        """Return the networks that have a bridge."""
        return [network for network in self._networks.values() if network.is_bridge]

    def network(self, reference: str) -> Network:
        """Find a network by name, full id or unique prefix of an id.

        Raises NotFound, or InvalidParameter when a prefix fits several.
        """
        found = self._networks.get(NetworkId(reference)) or self.named(reference)
        if found is not None:
            return found
        matches = self.beginning(reference)
        if len(matches) > 1:
            raise InvalidParameter(
                f"network {reference} is ambiguous ({len(matches)} matches found "
                "based on ID prefix)"
            )
        if not matches:
            raise NotFound(f"network {reference} not found")
        return matches[0]

    def beginning(self, reference: str) -> list[Network]:
        """Return the networks whose ids begin so."""
        return [n for i, n in self._networks.items() if i.startswith(reference)]

    def find(self, reference: str) -> Network | None:
        """Return the network that ``network`` finds, None if that would raise."""
        try:
            return self.network(reference)
        except (NotFound, InvalidParameter):
            return None

    def named(self, name: str) -> Network | None:
        """Return the network of exactly this name."""
        return next((n for n in self._networks.values() if n.name == name), None)

    def knows(self, network: NetworkId) -> bool:
        """Tell whether there is such a network."""
        return network in self._networks

    def by_id(self, network: NetworkId) -> Network | None:
        """Return the network of a full id."""
        return self._networks.get(network)

    def pool(self, network: Network, version: int) -> Pool | None:
        """Return the addresses of a network's subnet of an IP version."""
        return self._pools.get((network.id, version))

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint whose addresses are reserved, or replace its row."""
        self._endpoints[endpoint.id] = endpoint
        self._of.setdefault(endpoint.container, {})[endpoint.id] = endpoint
        self._on.setdefault(endpoint.network, {})[endpoint.id] = endpoint

    def restore(self, endpoint: Endpoint) -> None:
        """Add an endpoint of an earlier daemon and reserve its addresses."""
        self.add(endpoint)
        for address in _addresses(endpoint):
            pool = self._pools.get((endpoint.network, address.version))
            if pool is not None:
                pool.used.add(address)

    def forget(self, endpoint: Endpoint) -> bool:
        """Remove an endpoint but keep its addresses reserved; False if it was gone."""
        if self._endpoints.pop(endpoint.id, None) is None:
            return False
        for index in (self._of.get(endpoint.container), self._on.get(endpoint.network)):
            if index is not None:
                index.pop(endpoint.id, None)
        if not self._of.get(endpoint.container):
            self._of.pop(endpoint.container, None)
        return True

    def free(self, endpoint: Endpoint) -> None:
        """Give a forgotten endpoint's addresses back."""
        for address in _addresses(endpoint):
            pool = self._pools.get((endpoint.network, address.version))
            if pool is not None:
                pool.give(str(address))

    def endpoints(self) -> list[Endpoint]:
        """Return all endpoints."""
        return list(self._endpoints.values())

    def of(self, container: ContainerId) -> list[Endpoint]:
        """Return a container's endpoints, in the order they were made."""
        return list(self._of.get(container, {}).values())

    def on(self, network: NetworkId) -> list[Endpoint]:
        """Return the endpoints on a network, in the order they were made."""
        return list(self._on.get(network, {}).values())

    def has(self, endpoint: EndpointId) -> bool:
        """Tell whether there is such an endpoint."""
        return endpoint in self._endpoints


def _addresses(
    endpoint: Endpoint,
) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    candidates: Iterable[str] = (endpoint.ipv4, endpoint.ipv6)
    return (ipaddress.ip_address(text) for text in candidates if text)
