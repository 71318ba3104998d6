"""Containers that join another's namespaces: ``--network``, ``--pid`` and ``--ipc container:X``.

What such a mode refers to, what can't be had with it, and in which sandbox a container has to start
for it: the one of the containers that it joins. Sentences and statuses are those of dockerd 28.5;
``siblings`` does what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.sandbox import Sandbox
from hyperstack.engine.table import Table
from hyperstack.errors import Conflict, HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.guest import messages
from hyperstack.guest.messages import Namespace
from hyperstack.ids import ContainerId
from hyperstack.model import Container, ContainerConfig, HostConfig, Status

PREFIX = "container:"
SHAREABLE = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The sandbox that a container joins, what it shares there, and whose network it has."""

    sandbox: Sandbox
    joins: tuple[messages.Join, ...]
    network: Container | None = None


def reference(mode: str) -> str | None:
    """Return whom a mode names (``container:X``), None if it names nobody."""
    return mode.removeprefix(PREFIX) if mode.startswith(PREFIX) else None


def check(config: ContainerConfig, host: HostConfig) -> None:
    """Refuse modes that don't exist, or can't be had together. Raises InvalidParameter."""
    _check_modes(host)
    mode = host.network_mode
    if mode in ("container", PREFIX):
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if host.links and (mode == "host" or reference(mode)):
        kind = "host type networking" if mode == "host" else "container type network"
        raise InvalidParameter(
            f"conflicting options: {kind} can't be used with links. This would result in undefined "
            "behavior"
        )
    if not reference(mode):
        return
    for given, what in (
        (config.hostname, "hostname and the network mode"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if given:
            raise InvalidParameter(f"conflicting options: {what}")


def _check_modes(host: HostConfig) -> None:
    """A user namespace's mode may be anything, as with a dockerd that remaps nobody."""
    for option, mode, allowed in (
        ("IPC mode", host.ipc_mode, ("", "private", "shareable", "none", "host", PREFIX)),
        ("PID mode", host.pid_mode, ("", "host")),
        ("UTS mode", host.uts_mode, ("", "host")),
        ("cgroup namespace mode", host.cgroupns_mode, ("", "private", "host")),
    ):
        joins = option in ("IPC mode", "PID mode") and reference(mode)
        if mode not in allowed and not joins:
            raise InvalidParameter(f"invalid {option}: {mode}")


def settle(table: Table, host: HostConfig) -> HostConfig:
    """Write the full ids of those who are joined into the modes, so that a rename changes nothing.

    Raises InvalidParameter, as dockerd, if ``--pid`` or ``--ipc`` name nobody; a network's owner
    may come to be later.
    """
    modes: dict[str, str] = {}
    for key in ("pid_mode", "ipc_mode"):
        if name := reference(getattr(host, key)):
            try:
                modes[key] = PREFIX + table.get(name).id
            except NotFound as error:
                raise InvalidParameter(error.message) from error
    if name := reference(host.network_mode):
        try:
            modes["network_mode"] = PREFIX + table.get(name).id
        except HyperError:
            pass  # the start will say so
    return msgspec.structs.replace(host, **modes)


def named(table: Table, container: Container) -> Iterator[Container]:
    """Yield those whose namespaces *container* wants, as far as they exist."""
    host = container.host
    for mode in (host.network_mode, host.pid_mode, host.ipc_mode):
        if (name := reference(mode)) and (other := _lookup(table, name)) is not None:
            yield other


def _lookup(table: Table, name: str) -> Container | None:
    try:
        return table.get(name)
    except HyperError:
        return None


def followers(core: Core, container: Container) -> list[Container]:
    """Return the containers that want to join *container*, or one that does, running or not."""
    found: dict[ContainerId, Container] = {}
    around = {container.id}
    while True:
        new = {
            other.id: other
            for other in core.table
            if other.id not in found
            and other.id != container.id
            and any(target.id in around for target in named(core.table, other))
        }
        if not new:
            return list(found.values())
        found.update(new)
        around = set(new)


def shares_network(core: Core, container: Container, owner: ContainerId) -> bool:
    """Tell whether a container has *owner*'s network, directly or by another's."""
    seen: set[ContainerId] = set()
    while (name := reference(container.host.network_mode)) and container.id not in seen:
        seen.add(container.id)
        other = _lookup(core.table, name)
        if other is None:
            return False
        if other.id == owner:
            return True
        container = other
    return False


async def find(core: Core, container: Container) -> Joined | None:
    """Say where *container* has to start; None if it joins nobody.

    Raises in dockerd's words if one whom it joins does not run, and InvalidParameter if those it
    joins are in different sandboxes.
    """
    host = container.host
    for target in named(core.table, container):
        await _settled(core, container, target)
    # From here on nothing is waited for, so that all of it is true when the caller acts on it.
    found: list[tuple[Namespace, Live]] = []
    for flag, mode, seek in (
        (Namespace.NET, host.network_mode, _network),
        (Namespace.IPC, host.ipc_mode, _ipc),
        (Namespace.PID, host.pid_mode, _pid),
    ):
        if (name := reference(mode)) is not None:
            found.append((flag, seek(core, container, name)))
    if not found:
        return None
    sandboxes = {live.sandbox.id: live.sandbox for _, live in found}
    if len(sandboxes) > 1:
        raise InvalidParameter(
            "a container can join several others only if they share a virtual machine: "
            + ", ".join(sorted({live.container.name for _, live in found}))
            + " do not"
        )
    return Joined(
        sandbox=found[0][1].sandbox,
        joins=tuple(messages.Join(namespace=f, container=v.container.id) for f, v in found),
        network=next((v.container for f, v in found if f == Namespace.NET), None),
    )


async def _settled(core: Core, container: Container, target: Container) -> None:
    """Wait for a start of the target that is under way, unless that start waits for us."""
    if target.id != container.id and container not in _ahead(core, target):
        await core.settled(target.id)


def _ahead(core: Core, target: Container) -> list[Container]:
    """Return those whom *target* itself joins, directly or by others."""
    found: list[Container] = []
    left = [target]
    while left:
        for other in named(core.table, left.pop()):
            if other not in found:
                found.append(other)
                left.append(other)
    return found


def _running(core: Core, target: Container) -> Live | None:
    """Return a target that runs. Raises Conflict if it is about to run again."""
    if target.state.status == Status.RESTARTING:
        raise Conflict(f"Container {target.id} is restarting, wait until the container is running")
    live = core.live.get(target.id)
    up = live is not None and target.state.status.is_up and not live.ended.done()
    return live if up and live is not None and not live.sandbox.dying else None


def _network(core: Core, container: Container, name: str) -> Live:
    try:
        target = core.table.get(name)
    except HyperError as error:
        raise InternalError(f"joining network namespace of container: {error.message}") from error
    if target.id == container.id:
        raise InternalError("cannot join own network namespace")
    try:
        live = _running(core, target)
    except Conflict as error:
        raise Conflict(f"cannot join network namespace of container: {error.message}") from error
    if live is None:
        raise Conflict(
            "cannot join network namespace of a non running container: container "
            f"{target.name} is {target.state.status.value}"
        )
    return live


def _ipc(core: Core, container: Container, name: str) -> Live:
    words = "failed to join IPC namespace"
    if not name:
        raise InvalidParameter(f'{words}: invalid name or ID supplied: ""')
    try:
        target = core.table.get(name)
    except HyperError as error:
        raise InvalidParameter(f"{words}: {error.message}") from error
    try:
        live = _running(core, target)
    except Conflict as error:
        raise Conflict(f"{words}: {error.message}") from error
    if live is None:
        raise Conflict(f"{words}: container {target.id} is not running")
    if target.host.ipc_mode in ("private", "none", ""):
        raise InvalidParameter(f"{words}: container {target.id}: {SHAREABLE}")
    return live


def _pid(core: Core, container: Container, name: str) -> Live:
    words = "failed to join PID namespace"
    try:
        target = core.table.get(name)
        live = _running(core, target)
    except HyperError as error:
        raise InternalError(f"{words}: {error.message}") from error
    if live is None:
        raise InternalError(f"{words}: container {target.id} is not running")
    return live
