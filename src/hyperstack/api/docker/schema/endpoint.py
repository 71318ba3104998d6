"""``EndpointSettings``: a container's wish for a network, and what it got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperstack.api.docker.gojson import (
    INT,
    NIL_STRING_MAP,
    STRING,
    Field,
    Kind,
    Map,
    Schema,
    Strings,
    Where,
)
from hyperstack.model import Container, EndpointSettings, EndpointState
from hyperstack.network.settle import PREDEFINED

_NIL = Strings()
_NO_ADDRESSES = "ipam_config"
"""Among ``given_empty``: the client gave an ``IPAMConfig`` without any address."""


def _nothing(**_: Any) -> None:
    return None


_IPAM: Schema[None] = Schema(
    "network.EndpointIPAMConfig",
    _nothing,
    (
        Field("IPv4Address", "ipv4_address", STRING),
        Field("IPv6Address", "ipv6_address", STRING),
        Field("LinkLocalIPs", "link_local_ips", _NIL),
    ),
)
_SETTINGS: Schema[EndpointSettings] = Schema(
    "network.EndpointSettings",
    EndpointSettings,
    (
        Field("Links", "links", _NIL),
        Field("Aliases", "aliases", _NIL),
        Field("MacAddress", "mac_address", STRING),
        Field("DriverOpts", "driver_opts", NIL_STRING_MAP),
        Field("GwPriority", "gw_priority", INT),
    ),
)
# What a container got on a network: a client's is only looked at for its types.
_GOT: Schema[None] = Schema(
    "network.EndpointSettings",
    _nothing,
    (
        *(Field(key, key, STRING) for key in ("NetworkID", "EndpointID", "Gateway", "IPAddress")),
        *(Field(key, key, STRING) for key in ("IPv6Gateway", "GlobalIPv6Address")),
        *(Field(key, key, INT) for key in ("IPPrefixLen", "GlobalIPv6PrefixLen")),
        Field("DNSNames", "DNSNames", _NIL),
    ),
)


class EndpointKind(Kind):
    """``EndpointSettings`` in a body; what a container got on a network is ignored there."""

    go_type = "network.EndpointSettings"

    def read(self, value: Any, where: Where) -> EndpointSettings:
        """Read a wish."""
        if not isinstance(value, dict):
            raise where.mismatch(value, self.go_type)
        _GOT.values(value, where)
        values = _SETTINGS.values(value, where)
        for key, item in value.items():
            if key.lower() == "ipamconfig" and item is not None:
                place = where.field("EndpointSettings", "IPAMConfig")
                if not isinstance(item, dict):
                    raise place.mismatch(item, "network.EndpointIPAMConfig")
                asked = _IPAM.values(item, place)
                values.update(asked)
                if not any(asked.values()):
                    values["given_empty"] = (*values.get("given_empty", ()), _NO_ADDRESSES)
        return EndpointSettings(**values)


class _OptionalEndpoint(EndpointKind):
    def read(self, value: Any, where: Where) -> EndpointSettings:
        return EndpointSettings() if value is None else super().read(value, where)


class EndpointMap(Map):
    """Wishes by network name; null is a wish without particulars, as Compose sends it."""

    def __init__(self) -> None:
        super().__init__(_OptionalEndpoint(), go_type="map[string]*network.EndpointSettings")

    def _item(self, item: Any, where: Where) -> Any:
        return self._kind.read(item, where)


def _empty(wish: EndpointSettings, name: str, blank: Any) -> Any:
    """Return what shows for an empty list or map: null unless the client gave an empty one."""
    return blank if name in wish.given_empty else None


def ipam_config(wish: EndpointSettings) -> dict[str, Any] | None:
    """Return the addresses that were asked for, null if none were."""
    made: dict[str, Any] = {}
    if wish.ipv4_address:
        made["IPv4Address"] = wish.ipv4_address
    if wish.ipv6_address:
        made["IPv6Address"] = wish.ipv6_address
    if wish.link_local_ips:
        made["LinkLocalIPs"] = list(wish.link_local_ips)
    return made or ({} if _NO_ADDRESSES in wish.given_empty else None)


def shown_mac(wish: EndpointSettings, got: EndpointState) -> str:
    """Return the MAC that there is, or is to be; of a container that has run none is shown."""
    return got.mac_address or ("" if got.network_id else wish.mac_address)


def endpoint_settings(
    wish: EndpointSettings, got: EndpointState, *, alias: str = ""
) -> dict[str, Any]:
    """Return one entry of ``NetworkSettings.Networks``. *alias* is shown with the wish's."""
    aliases = list(wish.aliases)
    if alias and alias not in aliases:
        aliases.append(alias)
    return {
        "IPAMConfig": ipam_config(wish),
        "Links": list(wish.links) or _empty(wish, "links", []),
        "Aliases": aliases or _empty(wish, "aliases", []),
        "MacAddress": shown_mac(wish, got),
        "DriverOpts": dict(sorted(wish.driver_opts.items())) or _empty(wish, "driver_opts", {}),
        "GwPriority": wish.gw_priority,
        "NetworkID": got.network_id,
        "EndpointID": got.endpoint_id,
        "Gateway": got.gateway,
        "IPAddress": got.ip_address,
        "IPPrefixLen": got.prefix_length,
        "IPv6Gateway": got.ipv6_gateway,
        "GlobalIPv6Address": got.ipv6_address,
        "GlobalIPv6PrefixLen": got.ipv6_prefix_length,
        "DNSNames": list(got.dns_names) or None,
    }


def networks_of(container: Container, *, modern: bool) -> Mapping[str, Any]:
    """Return ``NetworkSettings.Networks``: every network wished for or joined, by name.

    Before API 1.44 (*modern*) short ids are aliases, on networks that have any.
    """
    names = {*container.networks, *container.state.endpoints}
    return {
        name: endpoint_settings(
            container.networks.get(name, EndpointSettings()),
            container.state.endpoints.get(name, EndpointState()),
            alias="" if modern or name in PREDEFINED else container.id[:12],
        )
        for name in sorted(names)
    }


def networks_listed(container: Container) -> Mapping[str, Any]:
    """Return the networks as lists show them: without names and options."""
    hidden = {"Links": None, "Aliases": None, "DriverOpts": None, "DNSNames": None}
    found = networks_of(container, modern=True)
    return {name: {**settings, **hidden} for name, settings in found.items()}
