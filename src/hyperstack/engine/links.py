"""``--link`` on the default bridge: names, variables and lines of /etc/hosts for other containers.

Follows moby's ``daemon/links`` and ``daemon/container_operations_unix.go``. A link is kept with its
parent, by alias; as Docker, containers on user-defined networks have none of this: they find each
other by DNS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from hyperstack.engine.core import Core
from hyperstack.engine.table import Table
from hyperstack.errors import Conflict, HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.model import Container, HostConfig, Link

MOST_PORTS = 4096
"""Ports of a linked container that get variables."""
_MODES = ("", "default", "bridge")
_HIDDEN = ("HOME", "PATH")
"""Variables of a linked container that its parent is not told."""


def register(table: Table, host: HostConfig, name: str) -> tuple[HostConfig, dict[str, Link]]:
    """Return a new container's links, and its configuration with them as inspect shows them.

    Raises InvalidParameter or InternalError in Docker's words.
    """
    if host.network_mode not in _MODES:
        return msgspec.structs.replace(host, links=()), {}
    found: dict[str, Link] = {}
    for text in host.links:
        reference, alias = _parse(text)
        try:
            if not reference:
                raise InvalidParameter('invalid name or ID supplied: ""')
            child = table.get(reference)
        except HyperError as error:
            raise InvalidParameter(
                f"could not get container for {reference}: {error.message}"
            ) from error
        if child.host.network_mode == "host":
            raise InvalidParameter(
                "conflicting options: host type networking can't be used with links. This would "
                "result in undefined behavior"
            )
        found.setdefault(alias, Link(container=child.id, name=child.name))
    return msgspec.structs.replace(host, links=shown(name, found)), found


def _parse(text: str) -> tuple[str, str]:
    """Read ``name``, ``name:alias`` or ``/name:/parent/alias``."""
    if not text:
        raise InternalError("empty string specified for links")
    words = text.split(":")
    if len(words) > 2:
        raise InternalError(f"bad format for links: {text}")
    name, alias = words[0], words[-1]
    if alias.startswith("/"):
        alias = alias.rpartition("/")[2]
    return name, alias or name


def shown(parent: str, links: dict[str, Link]) -> tuple[str, ...]:
    """Return links as ``HostConfig.Links`` shows them."""
    return tuple(f"/{link.name}:/{parent}/{alias}" for alias, link in links.items())


def names_of(table: Table, container: Container) -> list[str]:
    """Return the names that a container has by links of others, ``/parent/alias``."""
    return [
        f"/{parent.name}/{alias}"
        for parent in table
        for alias, link in parent.links.items()
        if link.container == container.id
    ]


def _address(core: Core, child: Container) -> str:
    book = core.networks.book
    for endpoint in book.of(child.id):
        network = book.by_id(endpoint.network)
        if network is not None and network.is_default:
            return endpoint.ipv4 or endpoint.ipv6
    return ""


def _children(core: Core, parent: Container) -> Iterator[tuple[str, Container]]:
    """Yield aliases and the containers that they mean, those that are gone left out."""
    for alias, link in parent.links.items():
        child = core.table.find(link.container)
        if child is not None:
            yield alias, child


def hosts(core: Core, parent: Container) -> list[tuple[str, str]]:
    """Return the lines of *parent*'s /etc/hosts for its links: address and names."""
    return [
        (address, " ".join(dict.fromkeys((alias, child.config.hostname, child.name))))
        for alias, child in _children(core, parent)
        if (address := _address(core, child))
    ]


def environment(core: Core, parent: Container) -> tuple[str, ...]:
    """Return the variables that tell a container's processes of its links.

    Raises Conflict if a linked container does not run, InternalError if it left the bridge.
    """
    made: list[str] = []
    for alias, link in parent.links.items():
        child = core.table.find(link.container)
        if child is None or not child.state.status.is_up:
            raise Conflict(
                f"Cannot link to a non running container: /{link.name} AS /{parent.name}/{alias}"
            )
        address = _address(core, child)
        if not address:
            raise InternalError(f"container {child.id} not attached to default bridge network")
        made += variables(parent.name, alias, child, address)
    return tuple(made)


def variables(parent: str, alias: str, child: Container, address: str) -> list[str]:
    """Return what one link adds to the environment, in Docker's order."""
    head = alias.upper().replace("-", "_")
    ports = _ports(child.config.exposed_ports)
    made = [f"{head}_PORT={ports[0][1]}://{address}:{ports[0][0]}"] if ports else []
    start = end = (0, "")
    for place, (number, protocol) in enumerate(ports):
        one = f"{head}_PORT_{number}_{protocol.upper()}"
        made += [
            f"{one}={protocol}://{address}:{number}",
            f"{one}_ADDR={address}",
            f"{one}_PORT={number}",
            f"{one}_PROTO={protocol}",
        ]
        if place and (number, protocol) == (end[0] + 1, end[1]):
            end = (number, protocol)
            if place < len(ports) - 1:
                continue
        if start != end:
            made += _run(head, address, start, end)
        start = end = (number, protocol)
    made.append(f"{head}_NAME=/{parent}/{alias}")
    for entry in child.config.env:
        key, _, value = entry.partition("=")
        if key not in _HIDDEN:
            made.append(f"{head}_ENV_{key}={value}")
    return made


def _run(head: str, address: str, start: tuple[int, str], end: tuple[int, str]) -> list[str]:
    first, protocol = start
    one = f"{head}_PORT_{first}_{protocol.upper()}"
    return [
        f"{one}_START={protocol}://{address}:{first}",
        f"{one}_PORT_START={first}",
        f"{one}_END={protocol}://{address}:{end[0]}",
        f"{one}_PORT_END={end[0]}",
    ]


def _ports(exposed: Sequence[str]) -> list[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for text in exposed:
        numbers, _, protocol = text.partition("/")
        first, _, last = numbers.partition("-")
        span = range(int(first), int(last or first) + 1)
        found.update((number, protocol or "tcp") for number in span[:MOST_PORTS])
    ordered = sorted(found, key=lambda port: (port[1] != "tcp", port[0]))
    return ordered[:MOST_PORTS]


def parents(core: Core, child: Container) -> list[Container]:
    """Return the containers that have a link to *child*."""
    return [
        parent
        for parent in core.table
        if any(link.container == child.id for link in parent.links.values())
    ]


async def remove(core: Core, reference: str) -> Container:
    """Remove a link, ``parent/alias``, and return the parent.

    Raises Conflict for a container's own name, NotFound.
    """
    name, slash, alias = reference.strip("/").rpartition("/")
    if not slash:
        core.table.get(reference)
        raise InternalError("Conflict, cannot remove the default link name of the container")
    parent = core.table.get(name)
    if alias not in parent.links:
        raise NotFound(f"No such container: {reference}")
    async with core.table.lock(parent.id):
        parent.links = {a: link for a, link in parent.links.items() if a != alias}
        parent.host = msgspec.structs.replace(parent.host, links=shown(parent.name, parent.links))
        await core.table.save(parent)
    return parent


async def renamed(core: Core, container: Container) -> None:
    """Carry a container's new name into the links that show it."""
    for parent in (container, *parents(core, container)):
        links = {
            alias: Link(container=link.container, name=container.name)
            if link.container == container.id
            else link
            for alias, link in parent.links.items()
        }
        if parent.links:
            parent.links = links
            parent.host = msgspec.structs.replace(parent.host, links=shown(parent.name, links))
            await core.table.save(parent)
