"""Networks and endpoints as the database keeps them: JSON of these structs, one row each.

A network's row is written before its bridge is made and removed after it. An endpoint's row is
written while its devices are made, whose names come from its id; the sandbox it belongs to is not
booted before the row is durable.
"""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import msgspec

from hyperstack.ids import ContainerId, EndpointId, NetworkId
from hyperstack.store.database import Database

MTU = "com.docker.network.driver.mtu"
BRIDGE_NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
HOST_IPV4 = "com.docker.network.host_ipv4"
HOST_IPV6 = "com.docker.network.host_ipv6"
INHIBIT_IPV4 = "com.docker.network.bridge.inhibit_ipv4"
GATEWAY_MODES = {
    4: "com.docker.network.bridge.gateway_mode_ipv4",
    6: "com.docker.network.bridge.gateway_mode_ipv6",
}
ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
INTERFACE_PREFIX = "com.docker.network.container_iface_prefix"
HOST_ACCESS = "hyper.network.host_access"
"""Option of ours: ``true`` lets containers of the network reach services of the host."""


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """One address pool of a network; ``subnet`` and ``ip_range`` in CIDR, others addresses."""

    subnet: str
    ip_range: str = ""
    gateway: str = ""
    auxiliary: dict[str, str] = {}

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_interface(self.subnet).version

    @property
    def gateway_interface(self) -> IPv4Interface | IPv6Interface:
        """The gateway with the subnet's prefix length: what the bridge has."""
        return ip_interface(f"{self.gateway}/{self.subnet.partition('/')[2]}")


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network. ``subnets`` are what was settled; ``asked`` is what the user wrote."""

    id: NetworkId
    name: str
    created_ns: int
    driver: str = "bridge"
    scope: str = "local"
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    subnets: tuple[Subnet, ...] = ()
    asked: tuple[Subnet, ...] = ()
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    bridge: str = ""
    """Name of the bridge on the host; empty for ``none`` and ``host``."""
    bip: str = ""
    """Default bridge: the configuration that its subnet was taken from."""
    config_only: bool = False
    """Whether it is only a configuration, from which other networks are made."""
    config_from: str = ""
    """Name of the configuration that it was made from."""

    @property
    def is_default(self) -> bool:
        """Whether this is the network ``bridge``, which has no DNS and no aliases."""
        return self.name == "bridge"

    @property
    def is_bridge(self) -> bool:
        """Whether containers get a NIC on it."""
        return self.driver == "bridge" and not self.config_only

    @property
    def icc(self) -> bool:
        """Whether its containers may talk to each other."""
        return go_bool(self.options.get(ICC, "")) is not False

    def mode(self, version: int) -> str:
        """How what is outside reaches its containers: nat, nat-unprotected, routed or isolated."""
        return self.options.get(GATEWAY_MODES[version]) or "nat"

    def masquerade(self, version: int) -> bool:
        """Whether its containers leave the host under the host's address."""
        if self.internal or self.mode(version) == "routed":
            return False
        return go_bool(self.options.get(MASQUERADE, "")) is not False

    @property
    def host_access(self) -> bool:
        """Whether its containers may talk to the host."""
        return go_bool(self.options.get(HOST_ACCESS, "")) is True

    def mtu(self, default: int) -> int:
        """The MTU of its bridge and NICs in bytes."""
        text = self.options.get(MTU, "").lstrip("+")
        return int(text) if text.isdigit() and 68 <= int(text) <= 65535 else default

    @property
    def gateways(self) -> tuple[Subnet, ...]:
        """The subnets whose gateway is an address of the bridge."""
        return tuple(
            s
            for s in self.subnets
            if s.gateway
            and self.mode(s.version) != "isolated"
            and not (s.version == 4 and go_bool(self.options.get(INHIBIT_IPV4, "")))
        )

    def source(self, version: int) -> str:
        """The host's address as which its containers leave the host; empty: the way out's."""
        return self.options.get(HOST_IPV4 if version == 4 else HOST_IPV6, "")

    @property
    def prefix(self) -> str:
        """What the names of its interfaces in containers begin with."""
        return self.options.get(INTERFACE_PREFIX) or "eth"

    def pool(self, version: int) -> Subnet | None:
        """Return its subnet of an IP version."""
        return next((subnet for subnet in self.subnets if subnet.version == version), None)


def go_bool(text: str) -> bool | None:
    """Read a bool as Go's ``strconv.ParseBool`` does; None if it is none."""
    if text in ("1", "t", "T", "true", "True", "TRUE"):
        return True
    return False if text in ("0", "f", "F", "false", "False", "FALSE") else None


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """One port of the host that leads to a port of an endpoint."""

    protocol: str
    port: int
    """The container's."""
    host_ip: str
    host_port: int
    """0: the container's own port, at its own address, is what is open (gateway mode routed)."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A container's NIC on one network."""

    id: EndpointId
    network: NetworkId
    container: ContainerId
    sandbox: str
    mac: str
    interface: str = "eth0"
    """Name in the container."""
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()
    """Further addresses that reach nobody but neighbours."""
    publications: tuple[Publication, ...] = ()
    exposed: tuple[str, ...] = ()
    """Ports of the container that are exposed and not published, ``80/tcp``."""

    @property
    def veth(self) -> str:
        """Name of the end on the bridge."""
        return f"{VETH}{self.id[:12]}"

    @property
    def tap(self) -> str:
        """Name of the guest's tap in the sandbox's namespace."""
        return f"nic{self.id[:11]}"

    @property
    def peer(self) -> str:
        """Name of the veth's end in the sandbox's namespace."""
        return f"net{self.id[:11]}"


VETH = "hv"
"""What names of our veths on the host begin with; 12 digits of the endpoint's id follow."""

_encoder = msgspec.json.Encoder()
_network = msgspec.json.Decoder(Network)
_endpoint = msgspec.json.Decoder(Endpoint)


def load_networks(db: Database) -> list[Network]:
    """Read every network."""
    rows = db.read(lambda c: c.execute("SELECT data FROM networks").fetchall())
    return [_network.decode(row[0]) for row in rows]


def load_endpoints(db: Database) -> list[Endpoint]:
    """Read every endpoint that an earlier daemon had."""
    rows = db.read(lambda c: c.execute("SELECT data FROM endpoints").fetchall())
    return [_endpoint.decode(row[0]) for row in rows]


async def put_network(db: Database, network: Network) -> None:
    """Insert or replace a network's row, durably."""
    row = (network.id, network.name, _encoder.encode(network))

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO networks (id, name, data) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, data = excluded.data",
            row,
        )

    await db.write(write)


async def delete_network(db: Database, network: NetworkId) -> None:
    """Forget a network."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM networks WHERE id = ?", (network,))

    await db.write(write)


async def put_endpoint(db: Database, endpoint: Endpoint) -> None:
    """Insert or replace an endpoint's row, durably."""
    row = (endpoint.id, _encoder.encode(endpoint))

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO endpoints (id, data) VALUES (?, ?) "
            "ON CONFLICT (id) DO UPDATE SET data = excluded.data",
            row,
        )

    await db.write(write)


async def delete_endpoints(db: Database, endpoints: list[EndpointId]) -> None:
    """Forget endpoints."""

    def write(connection: sqlite3.Connection) -> None:
        connection.executemany("DELETE FROM endpoints WHERE id = ?", [(e,) for e in endpoints])

    await db.write(write)
