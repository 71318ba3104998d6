"""Networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from hyperstack.api.docker.gojson import (
    BOOL,
    NIL_STRING_MAP,
    STRING,
    STRING_MAP,
    Field,
    List,
    Nullable,
    Object,
    Schema,
)
from hyperstack.api.docker.gotime import rfc3339nano
from hyperstack.api.docker.schema.endpoint import EndpointKind
from hyperstack.network.rows import Network, Subnet
from hyperstack.network.settle import NetworkSpec

if TYPE_CHECKING:
    from hyperstack.engine.networks import Member


def _values(**values: Any) -> dict[str, Any]:
    return values


def _subnet(**values: Any) -> Subnet:
    return Subnet(**{"subnet": "", **values})


_SUBNET: Schema[Subnet] = Schema(
    "network.IPAMConfig",
    _subnet,
    (
        Field("Subnet", "subnet", STRING, omit=True),
        Field("IPRange", "ip_range", STRING, omit=True),
        Field("Gateway", "gateway", STRING, omit=True),
        Field("AuxiliaryAddresses", "auxiliary", NIL_STRING_MAP, omit=True),
    ),
)
_IPAM: Schema[dict[str, Any]] = Schema(
    "network.IPAM",
    _values,
    (
        Field("Driver", "ipam_driver", STRING),
        Field("Options", "ipam_options", Nullable(STRING_MAP)),
        Field("Config", "subnets", List(Object(_SUBNET), go_type="[]network.IPAMConfig")),
    ),
)
_CONFIG_FROM: Schema[dict[str, Any]] = Schema(
    "network.ConfigReference", _values, (Field("Network", "network", STRING),)
)
_CREATE: Schema[dict[str, Any]] = Schema(
    "network.CreateRequest",
    _values,
    (
        Field("Name", "name", STRING),
        Field("Driver", "driver", STRING),
        Field("Scope", "scope", STRING),
        Field("EnableIPv4", "enable_ipv4", Nullable(BOOL)),
        Field("EnableIPv6", "enable_ipv6", Nullable(BOOL)),
        Field("IPAM", "ipam", Nullable(Object(_IPAM))),
        Field("Internal", "internal", BOOL),
        Field("Attachable", "attachable", BOOL),
        Field("Ingress", "ingress", BOOL),
        Field("ConfigOnly", "config_only", BOOL),
        Field("ConfigFrom", "config_from", Nullable(Object(_CONFIG_FROM))),
        Field("Options", "options", STRING_MAP),
        Field("Labels", "labels", STRING_MAP),
    ),
)


CONNECT: Schema[dict[str, Any]] = Schema(
    "network.ConnectOptions",
    _values,
    (
        Field("Container", "container", STRING),
        Field("EndpointConfig", "wish", Nullable(EndpointKind())),
    ),
)
DISCONNECT: Schema[dict[str, Any]] = Schema(
    "network.DisconnectOptions",
    _values,
    (Field("Container", "container", STRING), Field("Force", "force", BOOL)),
)
_CHOOSES_IPV4 = (1, 48)
"""API version from which on clients may do without IPv4."""


def read_create(raw: Any, *, version: tuple[int, int]) -> NetworkSpec:
    """Read what a client wants made. Raises InvalidParameter."""
    values = _CREATE.read(raw if raw is not None else {})
    ipam = values.pop("ipam", {})
    source = values.pop("config_from", {}).get("network", "")
    if version < _CHOOSES_IPV4:
        values.pop("enable_ipv4", None)
    return NetworkSpec(**{"name": "", **values, **ipam, "config_from": source})


def _shown(found: Network) -> list[Subnet]:
    """Return what a user wrote, and the engine's choice for what he left open."""
    versions = {subnet.version for subnet in found.asked}
    chosen = (subnet for subnet in found.subnets if subnet.version not in versions)
    bare = [subnet for subnet in found.subnets if subnet not in found.gateways]
    hidden = {subnet.subnet for subnet in bare if found.internal}
    return [
        *found.asked,
        *(replace(s, gateway="") if s.subnet in hidden else s for s in chosen),
    ]


def network(found: Network, members: Sequence[Member]) -> dict[str, Any]:
    """Return a network and the running containers on it."""
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": rfc3339nano(found.created_ns),
        "Scope": found.scope,
        "Driver": found.driver,
        "EnableIPv4": found.enable_ipv4,
        "EnableIPv6": found.enable_ipv6,
        "IPAM": {
            "Driver": found.ipam_driver,
            "Options": None
            if found.ipam_options is None
            else dict(sorted(found.ipam_options.items())),
            "Config": [_SUBNET.write(subnet) for subnet in _shown(found)] or None,
        },
        "Internal": found.internal,
        "Attachable": found.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": found.config_from},
        "ConfigOnly": found.config_only,
        "Containers": {member.container: _member(member) for member in members},
        "Options": dict(sorted(found.options.items())),
        "Labels": dict(sorted(found.labels.items())),
    }


def _member(member: Member) -> dict[str, str]:
    return {
        "Name": member.name,
        "EndpointID": member.endpoint,
        "MacAddress": member.mac,
        "IPv4Address": member.ipv4,
        "IPv6Address": member.ipv6,
    }
