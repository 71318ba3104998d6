"""Networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
from hyperstack.network.rows import Network, Subnet
from hyperstack.network.settle import NetworkSpec

if TYPE_CHECKING:
    from hyperstack.engine.networks import Member


def _values(**values: Any) -> dict[str, Any]:
    return values


def _subnet(**values: Any) -> Subnet:
    return Subnet(**{"subnet": "", **values})


_SUBNET: Schema[Subnet] = Schema(
    "IPAMConfig",
    _subnet,
    (
        Field("Subnet", "subnet", STRING, omit=True),
        Field("IPRange", "ip_range", STRING, omit=True),
        Field("Gateway", "gateway", STRING, omit=True),
        Field("AuxiliaryAddresses", "auxiliary", NIL_STRING_MAP, omit=True),
    ),
)
_IPAM: Schema[dict[str, Any]] = Schema(
    "IPAM",
    _values,
    (
        Field("Driver", "ipam_driver", STRING),
        Field("Options", "ipam_options", STRING_MAP),
        Field("Config", "subnets", List(Object(_SUBNET), go_type="[]network.IPAMConfig")),
    ),
)
_CREATE: Schema[dict[str, Any]] = Schema(
    "CreateRequest",
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
        Field("Options", "options", STRING_MAP),
        Field("Labels", "labels", STRING_MAP),
    ),
)


def read_create(raw: Any) -> NetworkSpec:
    """Read what a client wants made. Raises InvalidParameter."""
    values = _CREATE.read(raw if raw is not None else {})
    ipam = values.pop("ipam", {})
    return NetworkSpec(**{"name": "", **values, **ipam})


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
            "Options": dict(sorted(found.ipam_options.items())) or None,
            "Config": [_SUBNET.write(subnet) for subnet in found.subnets],
        },
        "Internal": found.internal,
        "Attachable": found.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
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
