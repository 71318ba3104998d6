"""What a container may wish of one network: Docker's checks of ``EndpointSettings``.

Follows moby's ``validateEndpointSettings`` (``daemon/container_operations.go``) and
``EndpointIPAMConfig.Validate`` and ``IsInRange`` (``api/types/network/endpoint.go``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

import msgspec

from hyperstack.errors import HyperError, InternalError, InvalidParameter
from hyperstack.model import ContainerConfig, EndpointSettings, HostConfig
from hyperstack.network.asked import joined
from hyperstack.network.book import Book
from hyperstack.network.rows import Network
from hyperstack.network.settle import PREDEFINED

INTERFACE = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
MOST_INTERFACES = 64
_MAC = re.compile(
    r"(?:([0-9A-Fa-f]{2}([:-]))([0-9A-Fa-f]{2}\2){4}[0-9A-Fa-f]{2}|([0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4})\Z"
)
"""The ways of writing six bytes that Go's ``net.ParseMAC`` reads."""
# The CLI writes options in small letters.
_SYSCTL = re.compile(
    r"(net\.(?:ipv4|ipv6|mpls)\.[^./=]+\.)(?:IFNAME|ifname)(\.[^/=]+)=(.*)\Z", re.DOTALL
)
MOST_LINK_LOCAL = 64
_INTERFACE = re.compile(r"[^\s/:\x00-\x1f]{1,15}\Z")
_USER_NETWORK = (
    "user specified IP address is supported only when connecting to networks with user "
    "configured subnets"
)


def check_all(book: Book, wishes: Mapping[str, EndpointSettings]) -> None:
    """Check the wishes of a container to be made; networks need not exist yet.

    Raises InvalidParameter.
    """
    for name, wish in sorted(wishes.items()):
        try:
            check(book.find(name), name, wish)
        except InvalidParameter as error:
            raise InvalidParameter(f"invalid config for network {name}: {error.message}") from error


def check(network: Network | None, name: str, wish: EndpointSettings) -> None:
    """Check a wish for one network, None if there is none of that *name* yet.

    Raises InvalidParameter in Docker's words.
    """
    if errors := list(_faults(network, name, wish)):
        raise InvalidParameter(joined("invalid endpoint settings", errors))
    if wish.mac_address and not _MAC.match(wish.mac_address):
        raise InvalidParameter(f"invalid MAC address {wish.mac_address}")


def _faults(network: Network | None, name: str, wish: EndpointSettings) -> Iterator[str]:
    predefined = name in (*PREDEFINED, "default")
    if predefined and (wish.ipv4_address or wish.ipv6_address):
        yield "user specified IP address is supported on user defined networks only"
    if predefined and wish.aliases:
        yield ("network-scoped alias is supported only for containers in user defined networks")
    for version, text in ((4, wish.ipv4_address), (6, wish.ipv6_address)):
        if text and _version(text) != version:
            yield f"invalid IPv{version} address: {text}"
    for text in wish.link_local_ips:
        if _version(text) is None:
            yield f"invalid link-local IP address: {text}"
    if network is not None:
        for version, text in ((4, wish.ipv4_address), (6, wish.ipv6_address)):
            yield from _outside(network, version, text)
    for sysctl in filter(None, wish.driver_opts.get(SYSCTLS, "").split(",")):
        if not _SYSCTL.match(sysctl):
            yield (
                f"unrecognised network interface sysctl '{sysctl}'; represent "
                "'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )


def _version(text: str) -> int | None:
    try:
        return None if "%" in text else ip_address(text).version
    except ValueError:
        return None


def _outside(network: Network, version: int, text: str) -> Iterator[str]:
    if not text:
        return
    subnets = [s.ip_range or s.subnet for s in network.asked if s.version == version]
    whole = [s.subnet for s in network.asked if s.version == version]
    if not whole:
        yield _USER_NETWORK
    elif _version(text) != version or not any(
        ip_address(text) in ip_network(span) for span in (*subnets, *whole)
    ):
        yield f"no configured subnet or ip-range contain the IP address {text}"


def interface(wish: EndpointSettings, network: Network, taken: set[str]) -> str:
    """Return the name of a new interface: the wish's, else the network's with a free number.

    Raises InternalError for a name that no interface can have.
    """
    wanted = wish.driver_opts.get(INTERFACE, "")
    name = wanted or next(
        f"{network.prefix}{n}"
        for n in range(MOST_INTERFACES + 1)
        if f"{network.prefix}{n}" not in taken
    )
    if not _INTERFACE.match(name) or name in (".", "..", "lo") or len(name.encode()) > 15:
        raise _unusable(name, "invalid argument")
    if name in taken:
        raise _unusable(name, "file exists")
    return name


def link_local(wish: EndpointSettings) -> tuple[str, ...]:
    """Return the further addresses of an interface. Raises InvalidParameter, as Docker's driver."""
    found = tuple(str(ip_address(text)) for text in wish.link_local_ips)
    for address in found:
        if not ip_address(address).is_link_local:
            raise InvalidParameter(f"invalid link local IP address: {address}")
    if len(found) > MOST_LINK_LOCAL:
        raise InvalidParameter(f"an interface can have at most {MOST_LINK_LOCAL} such addresses")
    return found


def sysctls(wish: EndpointSettings, interface: str) -> dict[str, str]:
    """Return the kernel parameters that a wish, which was checked, sets for its interface."""
    texts = filter(None, wish.driver_opts.get(SYSCTLS, "").split(","))
    matches = filter(None, map(_SYSCTL.match, texts))
    return {f"{match[1]}{interface}{match[2]}": match[3] for match in matches}


def _unusable(name: str, why: str) -> HyperError:
    return InternalError(
        f'failed to add interface to sandbox: error renaming it to "{name}": {why}'
    )


def settle(
    book: Book, config: ContainerConfig, host: HostConfig, networks: Mapping[str, EndpointSettings]
) -> dict[str, EndpointSettings]:
    """Return the networks that a new container is to join, by name: those asked for, else the one
    of its network mode (moby, ``updateContainerNetworkSettings``).

    Raises InvalidParameter in Docker's words.
    """
    mode = host.network_mode
    if config.network_disabled or mode.startswith("container:"):
        check_all(book, networks)
        return {}
    main = book.find(mode)
    name = mode if main is None else main.name
    found: dict[str, EndpointSettings] = {}
    for key, wish in networks.items():
        own = key == "default" if name == "bridge" else main is not None and key == main.id
        found[name if own else key] = wish
    found = found or {name: EndpointSettings()}
    if config.mac_address and name in found:
        found[name] = _with_mac(found[name], config.mac_address)
    check_all(book, found)
    return found


def with_mac(
    book: Book, config: ContainerConfig, host: HostConfig, wanted: Mapping[str, EndpointSettings]
) -> ContainerConfig:
    """Return a new container's configuration with the MAC that its main network has for it."""
    main = book.find(host.network_mode)
    wish = wanted.get(host.network_mode if main is None else main.name, EndpointSettings())
    return msgspec.structs.replace(config, mac_address=wish.mac_address)


def _with_mac(wish: EndpointSettings, mac: str) -> EndpointSettings:
    """Carry the MAC of old clients, which is the container's, to its main network."""
    if wish.mac_address and wish.mac_address != mac:
        raise InvalidParameter(
            "the container-wide MAC address must match the endpoint-specific MAC address for the "
            "main network, or be left empty"
        )
    return msgspec.structs.replace(wish, mac_address=mac)
