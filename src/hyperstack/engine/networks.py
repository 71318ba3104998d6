"""Networks as clients see them: list, inspect, create, remove, prune, connect, disconnect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hyperstack.engine import networking
from hyperstack.engine.core import Core
from hyperstack.engine.listing import Filters, label_test
from hyperstack.engine.live import Live
from hyperstack.engine.rows import put_sandbox
from hyperstack.engine.sandbox import Sandbox
from hyperstack.engine.until import parse_until
from hyperstack.errors import (
    Conflict,
    Forbidden,
    HyperError,
    InternalError,
    InvalidParameter,
    NotFound,
)
from hyperstack.guest import messages
from hyperstack.ids import ContainerId, EndpointId
from hyperstack.model import Container, EndpointSettings, EndpointState, Status
from hyperstack.network import ipam
from hyperstack.network.rows import Endpoint, Network
from hyperstack.network.settle import PREDEFINED, NetworkSpec

_KEYS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})


@dataclass(frozen=True, kw_only=True)
class Member:
    """A running container on a network; addresses are ``address/prefix`` or empty."""

    container: ContainerId
    name: str
    endpoint: EndpointId
    mac: str
    ipv4: str
    ipv6: str


@dataclass(frozen=True, kw_only=True)
class NetworkView:
    """A network and the running containers on it."""

    network: Network
    members: tuple[Member, ...]


class NetworkService:
    """What clients may do with networks."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def _view(self, network: Network) -> NetworkView:
        members = [self._member(endpoint, network) for endpoint in
                   self._core.networks.book.on(network.id)]  # fmt: skip
        return NetworkView(network=network, members=tuple(members))

    def _member(self, endpoint: Endpoint, network: Network) -> Member:
        container = self._core.table.find(endpoint.container)
        four, six = network.pool(4), network.pool(6)
        return Member(
            container=endpoint.container,
            name=container.name if container is not None else "",
            endpoint=endpoint.id,
            mac=endpoint.mac,
            ipv4=ipam.interface(endpoint.ipv4, four) if four and endpoint.ipv4 else "",
            ipv6=ipam.interface(endpoint.ipv6, six) if six and endpoint.ipv6 else "",
        )

    def inspect(self, reference: str) -> NetworkView:
        """Find a network by name, id or unique prefix. Raises NotFound, InvalidParameter."""
        return self._view(self._core.networks.get(reference))

    def list(self, filters: Filters) -> list[NetworkView]:
        """List networks, newest first. Raises InvalidParameter for filters Docker refuses."""
        for key in filters:
            if key not in _KEYS:
                raise InvalidParameter(f"invalid filter '{key}'")
        tests = [_TESTS[key](values) for key, values in filters.items() if key in _TESTS]
        dangling = _boolean("dangling", filters.get("dangling", []))
        found = [n for n in self._core.networks.book.networks() if all(t(n) for t in tests)]
        if dangling is not None:
            used = self._used()
            found = [
                n for n in found if (n.name not in used and n.name not in PREDEFINED) is dangling
            ]
        return [self._view(network) for network in found]

    def _used(self) -> set[str]:
        """Return the names of networks that any container, running or not, is to be on."""
        book = self._core.networks.book
        running = {e.network for e in book.endpoints()}
        names = {name for container in self._core.table for name in container.networks}
        ids = {n.name for n in book.networks() if n.id in names}
        return names | ids | {n.name for n in book.networks() if n.id in running}

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network. Raises HyperError in Docker's words."""
        return await self._core.networks.create(spec)

    async def remove(self, reference: str) -> None:
        """Remove a network that no running container is on. Raises NotFound, Forbidden."""
        names = {container.id: container.name for container in self._core.table}
        await self._core.networks.remove(reference, names)

    async def prune(self, filters: Filters) -> tuple[str, ...]:
        """Remove the user's networks that no container uses; return their names."""
        for key in filters:
            if key not in ("until", "label", "label!"):
                raise InvalidParameter(f"invalid filter '{key}'")
        until = parse_until(filters.get("until", []), time.time_ns())
        wanted = label_test(filters.get("label", []))
        unwanted = [label_test([value]) for value in filters.get("label!", [])]
        used = self._used()
        removed: list[str] = []
        for network in self._core.networks.book.networks():
            if network.name in PREDEFINED or network.name in used:
                continue
            if until is not None and network.created_ns >= until:
                continue
            if not wanted(network.labels) or any(test(network.labels) for test in unwanted):
                continue
            try:
                await self.remove(network.id)
            except HyperError:
                continue  # a container has joined it meanwhile
            removed.append(network.name)
        self._core.events.publish("network", "prune", "", {"reclaimed": "0"})
        return tuple(removed)

    async def connect(
        self, reference: str, container_reference: str, wish: EndpointSettings
    ) -> None:
        """Connect a container, running or not, to a network. Raises HyperError."""
        core = self._core
        network = core.networks.get(reference)
        container = core.table.get(container_reference)
        async with core.table.lock(container.id):
            _check_connect(network, container)
            live = core.live.get(container.id)
            if live is not None:
                await self._plug(live, network, wish)
            container.networks = {**container.networks, network.name: wish}
            if live is not None:
                self._name(live.container, network)
                await networking.rewrite_hosts(core, container, live.sandbox)
            await core.table.save(container)

    async def _plug(self, live: Live, network: Network, wish: EndpointSettings) -> None:
        core, container, sandbox = self._core, live.container, live.sandbox
        attachment = networking.attachment_of(
            core,
            container,
            network,
            wish,
            sandbox=sandbox.id,
            uid=sandbox.row.uid,
            interface=_free_interface(core.networks.book.of(container.id)),
            publish=False,
        )
        endpoint = await core.networks.attach(attachment)
        tap = networking.tap_of(core, endpoint, network)
        gateways = _lacking_gateways(core, container, endpoint)
        nic = networking.nic_of(core, endpoint, network, gateways)
        try:
            await sandbox.machine.add_nic(tap)
            change = messages.NicChange(container=container.id, nic=nic)
            await sandbox.call(messages.Op.NIC_ADD, change)
        except BaseException:
            await core.networks.disconnect(endpoint)
            raise
        await _remember(core, sandbox)
        container.state.endpoints[network.name] = networking.state_of(endpoint, network, container)

    def _name(self, container: Container, network: Network) -> None:
        """Write the names of a new endpoint, which depend on the wish, into the state."""
        for endpoint in self._core.networks.book.of(container.id):
            if endpoint.network == network.id:
                state = networking.state_of(endpoint, network, container)
                container.state.endpoints[network.name] = state

    async def disconnect(self, reference: str, container_reference: str, *, force: bool) -> None:
        """Take a container off a network. Raises NotFound, or if it is not on that network."""
        core = self._core
        network = core.networks.get(reference)
        try:
            container = core.table.get(container_reference)
        except NotFound:
            if not force:
                raise
            return
        async with core.table.lock(container.id):
            name = _key(container, network)
            if name is None and network.name not in container.state.endpoints:
                raise InternalError(
                    f"container {container.id} is not connected to network {network.name}"
                )
            live = core.live.get(container.id)
            if live is not None:
                await self._unplug(live, network)
                await networking.rewrite_hosts(core, container, live.sandbox)
            container.networks = {k: w for k, w in container.networks.items() if k != name}
            container.state.endpoints.pop(network.name, None)
            await core.table.save(container)

    async def _unplug(self, live: Live, network: Network) -> None:
        core, container, sandbox = self._core, live.container, live.sandbox
        for endpoint in core.networks.book.of(container.id):
            if endpoint.network != network.id:
                continue
            nic = networking.nic_of(core, endpoint, network, {})
            try:
                change = messages.NicChange(container=container.id, nic=nic)
                await sandbox.call(messages.Op.NIC_REMOVE, change)
                await sandbox.machine.remove_nic(endpoint.tap)
            finally:
                await core.networks.disconnect(endpoint)
                await _remember(core, sandbox)
        container.state.endpoints.pop(network.name, None)
        container.state.ports = networking.ports_of(core.networks.book.of(container.id))


async def _remember(core: Core, sandbox: Sandbox) -> None:
    """Store which NICs the machine has now, for the next daemon."""
    sandbox.row.machine = sandbox.machine.record
    await put_sandbox(core.db, sandbox.row)


def _key(container: Container, network: Network) -> str | None:
    """Return the name under which a container has a wish for a network."""
    return next((k for k in container.networks if k in (network.name, network.id)), None)


def _check_connect(network: Network, container: Container) -> None:
    mode = container.host.network_mode
    if network.driver == "host" or mode == "host":
        raise Forbidden(
            "container cannot be disconnected from host network or connected to host network "
        )
    if mode.startswith("container:"):
        raise InvalidParameter(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if network.driver == "null" or mode == "none":
        raise Forbidden(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )
    if container.state.status == Status.PAUSED:
        raise Conflict(
            f"Container {container.id} is paused, unpause the container before connecting"
        )
    if container.state.status in (Status.REMOVING, Status.DEAD):
        raise Conflict("container is marked for removal and cannot be connected to a network")
    on = container.state.endpoints.get(network.name, EndpointState())
    if on.endpoint_id or (_key(container, network) is not None and container.state.status.is_up):
        raise Forbidden(
            f"endpoint with name {container.name} already exists in network {network.name}"
        )


def _free_interface(endpoints: list[Endpoint]) -> str:
    taken = {endpoint.interface for endpoint in endpoints}
    return next(name for n in range(len(taken) + 1) if (name := f"eth{n}") not in taken)


def _lacking_gateways(core: Core, container: Container, new: Endpoint) -> dict[int, str]:
    """Give a new endpoint the default routes that no other endpoint of the container has."""
    book = core.networks.book
    found = {4: new.id, 6: new.id}
    for endpoint in book.of(container.id):
        network = book.by_id(endpoint.network)
        if endpoint.id == new.id or network is None or network.internal:
            continue
        if endpoint.ipv4:
            found.pop(4, None)
        if endpoint.ipv6:
            found.pop(6, None)
    return {version: str(identifier) for version, identifier in found.items()}


Test = Callable[[Network], bool]


def _name_test(values: list[str]) -> Test:
    return lambda n: any(value in n.name for value in values)


def _id_test(values: list[str]) -> Test:
    return lambda n: any(n.id.startswith(value) for value in values)


def _label_test(values: list[str]) -> Test:
    test = label_test(values)
    return lambda n: test(n.labels)


def _driver_test(values: list[str]) -> Test:
    return lambda n: n.driver in values


def _scope_test(values: list[str]) -> Test:
    return lambda n: n.scope in values


def _type_test(values: list[str]) -> Test:
    for value in values:
        if value not in ("builtin", "custom"):
            raise InvalidParameter(f"invalid filter 'type={value}'")
    return lambda n: ("builtin" if n.name in PREDEFINED else "custom") in values


_TESTS: dict[str, Callable[[list[str]], Test]] = {
    "name": _name_test,
    "id": _id_test,
    "label": _label_test,
    "driver": _driver_test,
    "scope": _scope_test,
    "type": _type_test,
}


def _boolean(key: str, values: list[str]) -> bool | None:
    """Read a filter of truth; None if it is not given. Raises InvalidParameter."""
    if not values:
        return None
    if len(values) > 1 or values[0].lower() not in ("0", "1", "t", "f", "true", "false"):
        raise InvalidParameter(f"invalid filter '{key}={values}'")
    return values[0].lower() in ("1", "t", "true")
