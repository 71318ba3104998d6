"""Networks."""

from __future__ import annotations

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
    from hyperstack.engine.engine import Engine


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


def network(found: Network, containers: dict[str, Any]) -> dict[str, Any]:
    """Return a network; *containers* by id, as ``containers`` makes them."""
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
        "Containers": containers,
        "Options": dict(sorted(found.options.items())),
        "Labels": dict(sorted(found.labels.items())),
    }


def containers(engine: Engine, found: Network) -> dict[str, Any]:
    """Return the endpoints of running containers on a network, by the containers' ids."""
    made = {}
    for container in engine.core.table:
        for endpoint in container.state.endpoints.values():
            if endpoint.network_id != found.id or not container.state.status.is_up:
                continue
            made[container.id] = {
                "Name": container.name,
                "EndpointID": endpoint.endpoint_id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": _cidr(endpoint.ip_address, endpoint.prefix_length),
                "IPv6Address": _cidr(endpoint.ipv6_address, endpoint.ipv6_prefix_length),
            }
    return made


def _cidr(address: str, prefix: int) -> str:
    return f"{address}/{prefix}" if address else ""
