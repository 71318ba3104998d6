"""From what a client asks of a new network to the row: Docker's checks, defaults and sentences."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network

import msgspec

from hyperstack.config import Config
from hyperstack.errors import Conflict, Forbidden, InvalidParameter, NotFound
from hyperstack.ids import NetworkId, new_id
from hyperstack.network import asked, host, ipam
from hyperstack.network.rows import (
    BRIDGE_NAME,
    DEFAULT_BRIDGE,
    ENABLE_IPV4,
    ENABLE_IPV6,
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    Network,
    Subnet,
)
from hyperstack.network.rtnetlink import Network as AddressRange

PREDEFINED = ("bridge", "host", "none")
MAX_NETWORKS = 1000
MAX_NAME = 4096
_DRIVERS = {
    "host": Forbidden('only one instance of "host" network is allowed'),
    "null": Forbidden('only one instance of "null" network is allowed'),
    "overlay": Forbidden(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
        "connect this node to swarm and try again."
    ),
}


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What a client asks for; empty and None are "not said". See ``rows.Network``."""

    name: str
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam_driver: str = ""
    ipam_options: Mapping[str, str] | None = None
    subnets: tuple[Subnet, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def check(spec: NetworkSpec, present: Collection[Network]) -> None:
    """Refuse what Docker refuses and what this engine has not. Raises HyperError."""
    if not spec.name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if len(spec.name) > MAX_NAME:
        raise InvalidParameter(f"invalid name: longer than {MAX_NAME} characters")
    if spec.name in PREDEFINED or spec.name == "default":
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network ")
    if any(network.name == spec.name for network in present):
        raise Conflict(f"network with name {spec.name} already exists")
    if spec.config_only:
        _check_plan(spec)
        return
    if spec.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if spec.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    asked.check_subnets(spec.subnets, ipv6=bool(spec.enable_ipv6))
    if spec.driver in _DRIVERS:
        raise _DRIVERS[spec.driver]
    if spec.driver not in ("", "bridge"):
        raise NotFound(f'plugin "{spec.driver}" not found')
    if len(present) >= MAX_NETWORKS:
        raise InvalidParameter(f"a host can have at most {MAX_NETWORKS} networks")


def _check_plan(spec: NetworkSpec) -> None:
    """Refuse what a network that is only a configuration can't say."""
    if spec.config_from:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if spec.ingress or spec.internal or spec.attachable or spec.scope:
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator "
            "fields like [ ingress | internal | attachable | scope ] are not supported."
        )
    asked.check_subnets(spec.subnets, ipv6=bool(spec.enable_ipv6))


def _check_driver(spec: NetworkSpec) -> None:
    """Check what may come from a configuration: IPAM's driver and the bridge driver's options."""
    if spec.ipam_driver == "null":
        raise InvalidParameter("ipv4 pool is empty")
    if spec.ipam_driver not in ("", "default"):
        raise NotFound(f'plugin "{spec.ipam_driver}" not found')
    asked.check_options(spec.options, internal=spec.internal)


def _check_bridge(made: Network, present: Collection[Network]) -> None:
    for other in present:
        if other.is_bridge and other.bridge == made.bridge:
            raise Forbidden(
                f"cannot create network {made.id} ({made.bridge}): conflicts with network "
                f"{other.id} ({other.bridge}): networks have same bridge name"
            )


def inherit(spec: NetworkSpec, present: Collection[Network]) -> NetworkSpec:
    """Fill a request from the configuration network that it names. Raises NotFound, Forbidden."""
    if not spec.config_from:
        return spec
    found = next((n for n in present if n.name == spec.config_from and n.config_only), None)
    if found is None:
        raise NotFound(f'configuration network "{spec.config_from}" does not exist')
    written = Forbidden(
        "user specified configurations are not supported if the network depends on a "
        "configuration network"
    )
    if spec.ipam_driver not in ("", "default") or spec.subnets or spec.ipam_options:
        raise written
    if spec.enable_ipv4 is False or spec.enable_ipv6:
        raise written
    if spec.options:
        raise Forbidden(
            "network driver options are not supported if the network depends on a configuration "
            "network"
        )
    if spec.labels:
        raise written
    return replace(
        spec,
        enable_ipv4=found.enable_ipv4,
        enable_ipv6=found.enable_ipv6,
        ipam_driver=found.ipam_driver,
        ipam_options=found.ipam_options,
        subnets=found.asked,
        options=found.options,
        labels=found.labels,
    )


def network(spec: NetworkSpec, config: Config, present: Collection[Network]) -> Network:
    """Make the row of a user's network that passed ``check``; blocking (asks for routes).

    Raises HyperError in Docker's words for addresses that can't be had.
    """
    identifier = NetworkId(new_id())
    if not spec.config_only:
        _check_driver(spec)
    ipv6 = asked.enabled(spec.options, ENABLE_IPV6, spec.enable_ipv6, default=False)
    ipv4 = asked.enabled(spec.options, ENABLE_IPV4, spec.enable_ipv4, default=True)
    if not (ipv4 or ipv6 or spec.config_only):
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    subnets: tuple[Subnet, ...] = ()
    if not spec.config_only:
        subnets = _subnets(spec.subnets, config, ranges(present), ipv4=ipv4, ipv6=ipv6)
    made = Network(
        id=identifier,
        name=spec.name,
        created_ns=time.time_ns(),
        driver="null" if spec.config_only else "bridge",
        scope=spec.scope or "local",
        internal=spec.internal,
        attachable=spec.attachable,
        enable_ipv4=ipv4,
        enable_ipv6=ipv6,
        ipam_driver=spec.ipam_driver or "default",
        ipam_options=None if spec.ipam_options is None else dict(spec.ipam_options),
        subnets=subnets,
        asked=spec.subnets,
        options=dict(spec.options),
        labels=dict(spec.labels),
        bridge="" if spec.config_only else _bridge(spec, identifier),
        config_only=spec.config_only,
        config_from=spec.config_from,
    )
    if made.is_bridge:
        _check_bridge(made, present)
    return made


def _bridge(spec: NetworkSpec, identifier: NetworkId) -> str:
    return spec.options.get(BRIDGE_NAME) or f"br-{identifier[:12]}"


def ranges(networks: Collection[Network]) -> list[AddressRange]:
    """Return the subnets that networks have."""
    return [ip_network(s.subnet) for network in networks for s in network.subnets]


def _subnets(
    given: tuple[Subnet, ...],
    config: Config,
    ours: list[AddressRange],
    *,
    ipv4: bool,
    ipv6: bool,
) -> tuple[Subnet, ...]:
    wanted = {4: ipv4, 6: ipv6}
    settled: list[Subnet] = []
    for subnet in given:
        if not wanted[subnet.version]:
            continue
        made = ipam.settle(subnet)
        before = [ip_network(other.subnet) for other in settled]
        if ipam.overlaps(ip_network(made.subnet), [*ours, *before]):
            raise Forbidden(
                "invalid pool request: Pool overlaps with other one on this address space"
            )
        if any(made.version == other.version for other in settled):
            raise Forbidden("bridge driver doesn't support multiple subnets")
        settled.append(made)
    versions = {subnet.version for subnet in settled}
    if ipv4 and 4 not in versions:
        free = ipam.choose_subnet(config.default_address_pools, [*ours, *host.taken_networks()])
        settled.insert(0, ipam.settle(Subnet(subnet=str(free))))
    if ipv6 and 6 not in versions:
        free6 = ipam.choose_subnet6(host.machine_id(), [*ours, *host.taken_networks()])
        settled.append(ipam.settle(Subnet(subnet=str(free6))))
    return tuple(settled)


def predefined(name: str, driver: str) -> Network:
    """Make the row of ``none`` or ``host``."""
    return Network(
        id=NetworkId(new_id()),
        name=name,
        created_ns=time.time_ns(),
        driver=driver,
        enable_ipv4=True,
    )


def default_bridge(config: Config, before: Network | None, others: Collection[Network]) -> Network:
    """Make or bring up to date the row of network ``bridge``; blocking (asks for routes).

    An earlier row keeps its subnet unless the configuration has changed since. A subnet that the
    host itself uses already gives way to one from the pools.
    """
    bip = f"{config.bip} {config.fixed_cidr or ''}".strip()
    if before is not None and before.bip == bip and before.bridge == config.bridge_name:
        return msgspec.structs.replace(before, options=_default_options(config))
    subnet = _default_subnet(config, [*ranges(others), *host.taken_networks(config.bridge_name)])
    return Network(
        id=before.id if before else NetworkId(new_id()),
        name="bridge",
        created_ns=before.created_ns if before else time.time_ns(),
        subnets=(subnet,),
        options=_default_options(config),
        bridge=config.bridge_name,
        bip=bip,
    )


def _default_subnet(config: Config, taken: list[AddressRange]) -> Subnet:
    try:
        gateway = ip_interface(config.bip)
    except ValueError as error:
        raise InvalidParameter(f"invalid bip {config.bip}: {error}") from error
    if ipam.overlaps(gateway.network, taken):
        free = ipam.choose_subnet(config.default_address_pools, taken)
        return ipam.settle(Subnet(subnet=str(free)))
    return ipam.settle(
        Subnet(
            subnet=str(gateway.network),
            gateway=str(gateway.ip),
            ip_range=config.fixed_cidr or "",
        )
    )


def _default_options(config: Config) -> dict[str, str]:
    return {
        DEFAULT_BRIDGE: "true",
        ICC: "true" if config.icc else "false",
        MASQUERADE: "true",
        HOST_BINDING: config.default_publish_address,
        BRIDGE_NAME: config.bridge_name,
        MTU: str(config.mtu),
    }
