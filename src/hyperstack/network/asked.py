"""What a client writes of a network's subnets and driver options: checks in Docker's sentences.

Follows moby's ``api/types/network/ipam.go`` (``ValidateIPAM``) and libnetwork's bridge driver
(``parseNetworkOptions``). Pure: what is there already is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.network.rows import (
    BRIDGE_NAME,
    DEFAULT_BRIDGE,
    GATEWAY_MODES,
    HOST_BINDING,
    HOST_IPV4,
    HOST_IPV6,
    ICC,
    INHIBIT_IPV4,
    MASQUERADE,
    MTU,
    Subnet,
    go_bool,
)

Range = IPv4Network | IPv6Network

MAX_MTU = 65535
MIN_MTU = 68
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")
_LENGTH = re.compile(r"(?:0|[1-9][0-9]{0,2})\Z")
_BRIDGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
MAX_BRIDGE = 15
"""Bytes of an interface's name, by the kernel."""


def joined(head: str, errors: Sequence[str]) -> str:
    """Word several failures below one head, as Docker's multi-errors are written."""
    if len(errors) == 1:
        return f"{head}:\n{errors[0]}"
    return f"{head}:\n" + "\n".join(f"* {error}" for error in errors)


def cidr(text: str) -> Range | None:
    """Read an address block as Go does: with its length, in plain digits. None if it is none."""
    address, slash, length = text.partition("/")
    if not slash or not _LENGTH.match(length) or "%" in address:
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def check_subnets(subnets: Sequence[Subnet], *, ipv6: bool) -> None:
    """Raise InvalidParameter with all that is wrong with what a client wrote."""
    errors = [error for subnet in subnets for error in _faults(subnet, ipv6=ipv6)]
    if errors:
        raise InvalidParameter(joined("invalid network config", errors))


def _faults(asked: Subnet, *, ipv6: bool) -> Iterator[str]:
    subnet = cidr(asked.subnet)
    if subnet is None:
        yield f"invalid subnet {asked.subnet}: invalid CIDR block notation"
        return
    if subnet.version == 6 and not ipv6:
        return  # what a network without IPv6 never uses is not looked at
    if str(ip_address(asked.subnet.partition("/")[0])) != str(subnet.network_address):
        yield f"invalid subnet {asked.subnet}: it should be {subnet}"
    if asked.ip_range:
        yield from _range_faults(asked.ip_range, subnet)
    if asked.gateway:
        head = f"invalid gateway {asked.gateway}"
        yield from (f"{head}: {e}" for e in _outside(asked.gateway, subnet))
    for name, address in asked.auxiliary.items():
        yield from (f"invalid auxiliary address {name}: {e}" for e in _outside(address, subnet))


def _range_faults(text: str, subnet: Range) -> Iterator[str]:
    head = f"invalid ip-range {text}"
    span = cidr(text)
    if span is None:
        yield f"{head}: invalid CIDR block notation"
        return
    if span.version != subnet.version:
        yield f"{head}: parent subnet is an IPv{subnet.version} block"
        return
    if str(ip_address(text.partition("/")[0])) != str(span.network_address):
        yield f"{head}: it should be {span}"
    if span.prefixlen < subnet.prefixlen:
        yield f"{head}: CIDR block is bigger than its parent subnet {subnet}"
    elif span.network_address not in subnet:
        yield f"{head}: parent subnet {subnet} doesn't contain ip-range"


def _outside(text: str, subnet: Range) -> Iterator[str]:
    try:
        address = ip_address(text)
    except ValueError:
        yield "invalid address"
        return
    if address.version != subnet.version:
        yield f"parent subnet is an IPv{subnet.version} block"
    elif address not in subnet:
        yield f"parent subnet {subnet} doesn't contain this address"


def enabled(options: Mapping[str, str], key: str, said: bool | None, default: bool) -> bool:
    """Tell whether an IP version is on: by its own field, else by the daemon-wide option's name.

    Raises InvalidParameter.
    """
    option = options.get(key)
    if said is not None or option is None:
        return default if said is None else said
    value = go_bool(option)
    if value is None:
        raise InvalidParameter(f'driver-opt "{key}" is not a valid bool')
    return value


def check_options(options: Mapping[str, str], *, internal: bool) -> None:
    """Check the bridge driver's options. Raises HyperError in Docker's words."""
    for key in (ICC, MASQUERADE, DEFAULT_BRIDGE, INHIBIT_IPV4):
        if key in options and go_bool(options[key]) is None:
            value = options[key]
            raise InvalidParameter(
                f"failed to parse {key} value: {value} "
                f'(strconv.ParseBool: parsing "{value}": invalid syntax)'
            )
    for key, versions in ((HOST_BINDING, (4, 6)), (HOST_IPV4, (4,)), (HOST_IPV6, (6,))):
        if key in options and _version(options[key]) not in versions:
            raise InvalidParameter(f"failed to parse {key} value: {options[key]} (nil ip)")
    for key in GATEWAY_MODES.values():
        _check_mode(key, options.get(key), internal=internal)
    _check_mtu(options.get(MTU))
    _check_bridge(options.get(BRIDGE_NAME) or "")


def _version(text: str) -> int | None:
    try:
        return None if "%" in text else ip_address(text).version
    except ValueError:
        return None


def _check_mode(key: str, mode: str | None, *, internal: bool) -> None:
    if mode in (None, "nat", "nat-unprotected", "routed"):
        return
    if mode == "isolated":
        if not internal:
            raise InternalError("gateway mode 'isolated' can only be used for an internal network")
        return
    raise InvalidParameter(f"failed to parse {key} value: {mode} (unknown gateway mode {mode})")


def _check_mtu(text: str | None) -> None:
    if text is None:
        return
    if not _INTEGER.match(text):
        raise InvalidParameter(
            f'failed to parse {MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)'
        )
    if int(text) < 0:
        raise InvalidParameter(f"invalid MTU number: {int(text)}")
    if int(text) and not MIN_MTU <= int(text) <= MAX_MTU:
        raise InternalError("invalid argument")


def _check_bridge(name: str) -> None:
    if len(name.encode()) > MAX_BRIDGE:
        raise InternalError("numerical result out of range")
    if name and not _BRIDGE.match(name):
        raise InternalError("invalid argument")
