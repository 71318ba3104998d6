"""What a create body means to clients of older API versions (moby, ``postContainersCreate``).

A field that a version did not have is not taken from a client that speaks it, defaults are those
that it knew, and what moved to another place is moved. Mounts are ``mounts.as_of``'s.
"""

from __future__ import annotations

from msgspec.structs import replace

from hyperstack.api.docker.request import Request
from hyperstack.api.docker.schema.create import CreateBody
from hyperstack.engine.validate import is_mac
from hyperstack.errors import InvalidParameter
from hyperstack.model import EndpointSettings, HostConfig

MAC_MOVED = (
    "The container-wide MacAddress field is now deprecated. It should be specified in "
    "EndpointsConfig instead."
)


def as_meant(request: Request, body: CreateBody) -> tuple[CreateBody, list[str]]:
    """Return the body in the newest version's words, and warnings. Raises InvalidParameter."""
    host, config, networks = _host(request, body.host), body.config, body.networks
    if config.healthcheck is not None and not request.at_least("1.44"):
        config = replace(config, healthcheck=replace(config.healthcheck, start_interval=0))
    if len(networks) > 1 and not request.at_least("1.44"):
        names = ", ".join(sorted(networks))
        raise InvalidParameter(
            f"Container cannot be created with multiple network endpoints: {names}"
        )
    return _mac(request, CreateBody(config=config, host=host, networks=networks))


def _host(request: Request, host: HostConfig) -> HostConfig:
    changes: dict[str, object] = {}
    if not request.at_least("1.25"):
        changes["auto_remove"] = False
    if not request.at_least("1.40"):
        changes["kernel_memory_tcp"] = 0
        changes["ipc_mode"] = host.ipc_mode or "shareable"
    if request.at_least("1.42"):
        changes["kernel_memory"] = 0
    if not request.at_least("1.43"):
        changes["annotations"] = {}
    return replace(host, **changes)


def _mac(request: Request, body: CreateBody) -> tuple[CreateBody, list[str]]:
    """Move a container's MAC address to its main network's, where it is since API 1.44."""
    address, mode = body.config.mac_address, body.host.network_mode
    old = not request.at_least("1.44")
    if old and not address:
        networks = {name: replace(wish, mac_address="") for name, wish in body.networks.items()}
        return CreateBody(config=body.config, host=body.host, networks=networks), []
    if not address:
        return body, []
    if mode in ("host", "none") or mode.startswith("container:"):
        if old:
            raise InvalidParameter("conflicting options: mac-address and the network mode")
        return body, [MAC_MOVED]
    main = "bridge" if mode in ("", "default") else mode
    place = main if main in body.networks else ("default" if "default" in body.networks else main)
    wish = body.networks.get(place, EndpointSettings())
    if not is_mac(address):
        raise InvalidParameter(f"invalid config for network {main}: invalid MAC address {address}")
    if not old and wish.mac_address not in ("", address):
        raise InvalidParameter(
            "the container-wide MAC address must match the endpoint-specific MAC address for the "
            "main network, or be left empty"
        )
    networks = {**body.networks, place: replace(wish, mac_address=address)}
    config = replace(body.config, mac_address="")
    moved = CreateBody(config=config, host=body.host, networks=networks)
    return moved, [] if old else [MAC_MOVED]
