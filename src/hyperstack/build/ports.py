"""Ports as EXPOSE takes them: ``80``, ``80/udp``, ``8000-8010``, and with host ports in front.

The grammar is that of ``docker run -p``; of what it says only the container's ports count. The
words of errors are Docker's.
"""

from __future__ import annotations

import ipaddress
import re

from hyperstack.errors import InvalidParameter

_PROTOCOLS = ("tcp", "udp", "sctp")
_MOST = 65_535


def exposed(text: str) -> list[str]:
    """Return the ports of one word, ``80/tcp`` each. Raises InvalidParameter."""
    port, _, protocol = text.partition("/")
    protocol = protocol.partition("/")[0] or "tcp"
    address, host, inner = _parts(port)
    if address and not _is_address(address):
        raise InvalidParameter(f"Invalid ip address: {address}")
    if not inner:
        raise InvalidParameter(f"No port specified: {text}<empty>")
    found = _range(inner, "containerPort")
    if host:
        published = _range(host, "hostPort")
        if len(found) > 1 and len(published) != len(found):
            raise InvalidParameter(
                f"Invalid ranges specified for container and host Ports: {inner} and {host}"
            )
    if protocol.lower() not in _PROTOCOLS:
        raise InvalidParameter(f"Invalid proto: {protocol}")
    return [f"{number}/{protocol.lower()}" for number in found]


def _parts(text: str) -> tuple[str, str, str]:
    """Split ``address:host:container`` from its end."""
    *rest, inner = text.rsplit(":", 2)
    host = rest.pop() if rest else ""
    return (rest[0] if rest else ""), host, inner


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _range(text: str, what: str) -> range:
    """Return the numbers of ``80`` or ``80-90``; a second dash and what follows is nothing."""
    first, dash, last = text.partition("-")
    last = last.partition("-")[0] if dash else first
    if not (re.fullmatch(r"[0-9]{1,9}", first) and re.fullmatch(r"[0-9]{1,9}", last)):
        raise InvalidParameter(f"Invalid {what}: {text}")
    if not int(first) <= int(last) <= _MOST:
        raise InvalidParameter(f"Invalid {what}: {text}")
    return range(int(first), int(last) + 1)
