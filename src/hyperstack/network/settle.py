"""From what a client asks of a new network to the row: Docker's checks, defaults and sentences."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network

import msgspec

from hyperstack.config import Config
from hyperstack.errors import Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedHere
from hyperstack.ids import NetworkId, new_id
from hyperstack.network import host, ipam
from hyperstack.network.rows import (
    BRIDGE_NAME,
    DEFAULT_BRIDGE,
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
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_BRIDGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,14}\Z")


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
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam_driver: str = ""
    ipam_options: Mapping[str, str] = field(default_factory=dict)
    subnets: tuple[Subnet, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def check(spec: NetworkSpec, present: Collection[Network]) -> None:
    """Refuse what Docker refuses and what this engine has not. Raises HyperError."""
    if not spec.name.strip():
        raise InvalidParameter("network name cannot be empty")
    if spec.name in PREDEFINED or spec.name == "default":
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network ")
    if spec.name.startswith("container:") or not _NAME.match(spec.name):
        raise InvalidParameter(
            f"invalid network name {spec.name}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed"
        )
    if any(network.name == spec.name for network in present):
        raise Conflict(f"network with name {spec.name} already exists")
    if spec.driver not in ("", "default", "bridge"):
        if spec.driver in ("host", "null", "none"):
            raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
        raise NotFound(f'plugin "{spec.driver}" not found')
    if spec.ingress or spec.scope not in ("", "local"):
        raise NotImplementedHere("this engine has no swarm: networks have the scope local")
    if spec.config_only:
        raise NotImplementedHere("configuration-only networks are not supported")
    if spec.ipam_driver not in ("", "default"):
        raise NotFound(f'plugin "{spec.ipam_driver}" not found')
    if spec.enable_ipv4 is False and not spec.enable_ipv6:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    if len(present) >= MAX_NETWORKS:
        raise InvalidParameter(f"a host can have at most {MAX_NETWORKS} networks")
    _check_options(spec.options, present)


def _check_options(options: Mapping[str, str], present: Collection[Network]) -> None:
    mtu = options.get(MTU)
    if mtu is not None and not (mtu.isdigit() and 68 <= int(mtu) <= 65535):
        raise InvalidParameter(f'invalid value for {MTU}: "{mtu}"')
    for key in (ICC, MASQUERADE):
        value = options.get(key)
        if value is not None and value.lower() not in ("0", "1", "t", "f", "true", "false"):
            raise InvalidParameter(f'failed to parse {key} value: "{value}"')
    bridge = options.get(BRIDGE_NAME)
    if bridge is not None:
        if not _BRIDGE.match(bridge):
            raise InvalidParameter(f'invalid bridge name: "{bridge}"')
        holder = next((n for n in present if n.bridge == bridge), None)
        if holder is not None:
            raise Forbidden(
                f"cannot create network: bridge name conflict: {bridge} belongs to {holder.name}"
            )


def network(spec: NetworkSpec, config: Config, present: Collection[Network]) -> Network:
    """Make the row of a user's network that passed ``check``; blocking (asks for routes).

    Raises InvalidParameter or Forbidden for addresses that can't be had.
    """
    identifier = NetworkId(new_id())
    ipv6 = spec.enable_ipv6 or (
        spec.enable_ipv6 is None and any(":" in subnet.subnet for subnet in spec.subnets)
    )
    ipv4 = spec.enable_ipv4 is not False
    ours = ranges(present)
    subnets = _subnets(spec.subnets, config, ours, ipv4=ipv4, ipv6=bool(ipv6))
    return Network(
        id=identifier,
        name=spec.name,
        created_ns=time.time_ns(),
        internal=spec.internal,
        attachable=spec.attachable,
        enable_ipv4=ipv4,
        enable_ipv6=bool(ipv6),
        ipam_options=dict(spec.ipam_options),
        subnets=subnets,
        options=dict(spec.options),
        labels=dict(spec.labels),
        bridge=spec.options.get(BRIDGE_NAME) or f"br-{identifier[:12]}",
    )


def ranges(networks: Collection[Network]) -> list[AddressRange]:
    """Return the subnets that networks have."""
    return [ip_network(s.subnet) for network in networks for s in network.subnets]


def _subnets(
    asked: tuple[Subnet, ...],
    config: Config,
    ours: list[AddressRange],
    *,
    ipv4: bool,
    ipv6: bool,
) -> tuple[Subnet, ...]:
    settled: list[Subnet] = []
    for subnet in asked:
        if not subnet.subnet:
            if subnet.gateway or subnet.ip_range or subnet.auxiliary:
                raise InvalidParameter(
                    "invalid network config:\ninvalid subnet: a gateway, range or auxiliary "
                    "address needs a subnet"
                )
            continue
        made = ipam.settle(subnet)
        if ipam.overlaps(ip_network(made.subnet), ours):
            raise Forbidden(
                "invalid pool request: Pool overlaps with other one on this address space"
            )
        if any(made.version == other.version for other in settled):
            raise InvalidParameter(
                f"bridge driver doesn't support multiple IPv{made.version} subnets"
            )
        settled.append(made)
    given = {subnet.version for subnet in settled}
    if ipv4 and 4 not in given:
        free = ipam.choose_subnet(config.default_address_pools, [*ours, *host.taken_networks()])
        settled.insert(0, ipam.settle(Subnet(subnet=str(free))))
    if ipv6 and 6 not in given:
        free6 = ipam.choose_subnet6(host.machine_id(), [*ours, *host.taken_networks()])
        settled.append(ipam.settle(Subnet(subnet=str(free6))))
    wanted = {4: ipv4, 6: ipv6}
    return tuple(subnet for subnet in settled if wanted[subnet.version])


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
    asked = f"{config.bip} {config.fixed_cidr or ''}".strip()
    if before is not None and before.bip == asked and before.bridge == config.bridge_name:
        return msgspec.structs.replace(before, options=_default_options(config))
    subnet = _default_subnet(config, [*ranges(others), *host.taken_networks(config.bridge_name)])
    return Network(
        id=before.id if before else NetworkId(new_id()),
        name="bridge",
        created_ns=before.created_ns if before else time.time_ns(),
        subnets=(subnet,),
        options=_default_options(config),
        bridge=config.bridge_name,
        bip=asked,
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
