"""Networks as clients see them: list, inspect, create, remove, prune, connect, disconnect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hyperstack.engine import networking, wishes
from hyperstack.engine.core import Core
from hyperstack.engine.listing import Filters, label_test, matches
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
    NotImplementedHere,
)
from hyperstack.guest import messages
from hyperstack.ids import ContainerId, EndpointId
from hyperstack.model import Container, EndpointSettings, EndpointState, Status
from hyperstack.network import ipam, ports
from hyperstack.network.rows import Endpoint, Network
from hyperstack.network.settle import PREDEFINED, NetworkSpec

log = logging.getLogger(__name__)

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
        if not network.is_bridge:
            members = list(self._without_nic(network))
        return NetworkView(network=network, members=tuple(members))

    def _without_nic(self, network: Network) -> Iterator[Member]:
        """Yield those who are on ``none``."""
        for container in self._core.table:
            got = container.state.endpoints.get(network.name)
            if got is not None and got.endpoint_id:
                yield Member(
                    container=container.id,
                    name=container.name,
                    endpoint=EndpointId(got.endpoint_id),
                    mac="",
                    ipv4="",
                    ipv6="",
                )

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
        book = self._core.networks.book
        matches = book.beginning(reference)
        if len(matches) > 1 and book.named(reference) is None:
            # The same words in another order than where a network is looked for to change it.
            raise InvalidParameter(
                f"{len(matches)} matches found based on ID prefix: network {reference} is ambiguous"
            )
        return self._view(book.network(reference))

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
        container = _container(core, container_reference)
        async with core.table.lock(container.id):
            live = core.live.get(container.id)
            _check_state(container)
            network = core.networks.get(reference) if live else core.networks.book.find(reference)
            if network is None:
                container.networks = {**container.networks, reference: wish}
                await core.table.save(container)
                return
            wishes.check(network, network.name, wish)
            _check_connect(network, container)
            if live is not None:
                await self._plug(live, network, wish)
            elif _key(container, network) is not None:
                return
            container.networks = {**container.networks, network.name: wish}
            await self._connected(container, network, live)
            await core.table.save(container)

    async def _connected(self, container: Container, network: Network, live: Live | None) -> None:
        """Tell the container, if it runs, and its row of the names that it has now."""
        if live is None:
            if not network.is_default:
                names = networking.dns_names(container, network)
                container.state.endpoints[network.name] = EndpointState(dns_names=names)
            return
        self._name(container, network)
        await networking.rewrite_hosts(self._core, container, live.sandbox)
        if network.is_bridge and not network.is_default:
            await networking.resolve_names(self._core, container, live.sandbox)

    async def _plug(self, live: Live, network: Network, wish: EndpointSettings) -> None:
        core, container, sandbox = self._core, live.container, live.sandbox
        if not network.is_bridge:
            container.state.endpoints[network.name] = networking.without_nic(network)
            return
        if wish.driver_opts.get(wishes.SYSCTLS):
            raise NotImplementedHere(
                "sysctls of an endpoint are set when its container starts; this one runs already"
            )
        taken = {endpoint.interface for endpoint in core.networks.book.of(container.id)}
        attachment = networking.attachment_of(
            core,
            container,
            network,
            wish,
            sandbox=sandbox.id,
            uid=sandbox.row.uid,
            interface=wishes.interface(wish, network, taken),
            publish=False,
        )
        endpoint = await core.networks.attach(attachment)
        tap = networking.tap_of(core, endpoint, network)
        gateways = networking.gateways_of(core, container, {network.name: wish})
        nic = networking.nic_of(core, endpoint, network, gateways)
        try:
            await sandbox.machine.add_nic(tap)
            change = messages.NicChange(container=container.id, nic=nic)
            await sandbox.call(messages.Op.NIC_ADD, change)
        except BaseException:
            undo = self._take_away(live, endpoint, nic)
            await core.tasks.carry_through(f"undo of a connect of {container.name}", undo)
            raise
        await _remember(core, sandbox)
        container.state.endpoints[network.name] = networking.state_of(endpoint, network, container)
        await self._republish(live, {network.name: wish})

    def _name(self, container: Container, network: Network) -> None:
        """Write the names of a new endpoint, which depend on the wish, into the state."""
        for endpoint in self._core.networks.book.of(container.id):
            if endpoint.network == network.id:
                state = networking.state_of(endpoint, network, container)
                container.state.endpoints[network.name] = state

    async def disconnect(self, reference: str, container_reference: str, *, force: bool) -> None:
        """Take a container off a network. Raises NotFound, or if it is not on that network."""
        core = self._core
        if force and not container_reference:
            core.networks.get(reference)
            raise InvalidParameter("invalid name: name is empty")
        try:
            container = _container(core, container_reference)
        except NotFound:
            if force:
                core.networks.get(reference)
                raise NotFound(f"endpoint {container_reference} not found") from None
            raise
        async with core.table.lock(container.id):
            live = core.live.get(container.id)
            _check_state(container)
            if live is None and reference in container.networks:
                network = core.networks.book.find(reference)
            else:
                network = core.networks.get(reference)
            key = reference if network is None else _key(container, network)
            _check_disconnect(container, network, key, up=live is not None)
            name = reference if network is None else network.name
            try:
                if live is not None and network is not None:
                    await self._unplug(live, network)
                    await networking.rewrite_hosts(core, container, live.sandbox)
            finally:
                container.networks = {k: w for k, w in container.networks.items() if k != key}
                container.state.endpoints.pop(name, None)
                await core.table.save(container)

    async def _unplug(self, live: Live, network: Network) -> None:
        core, container = self._core, live.container
        for endpoint in core.networks.book.of(container.id):
            if endpoint.network == network.id:
                nic = networking.nic_of(core, endpoint, network, {})
                await self._take_away(live, endpoint, nic)
        container.state.endpoints.pop(network.name, None)
        await self._reroute(live)
        await self._republish(live, {})

    async def _take_away(self, live: Live, endpoint: Endpoint, nic: messages.Nic) -> None:
        """Take a card from a running container. A guest that keeps it has a card without a wire."""
        core, sandbox = self._core, live.sandbox
        change = messages.NicChange(container=live.container.id, nic=nic)
        try:
            await sandbox.call(messages.Op.NIC_REMOVE, change)
        except HyperError as error:
            log.warning("interface %s of %s: %s", nic.name, live.container.name, error)
        try:
            if f"nic:{endpoint.tap}" in sandbox.machine.record.slots:
                await sandbox.machine.remove_nic(endpoint.tap)
        except HyperError as error:
            log.warning("card %s of %s: %s", endpoint.tap, live.container.name, error)
        finally:
            await core.networks.disconnect(endpoint)
            await _remember(core, sandbox)

    async def _republish(self, live: Live, new: dict[str, EndpointSettings]) -> None:
        """Have the ports published on the network of the default route, at the same numbers.

        Answers of another one's would leave by the wrong way. *new* are wishes that the container
        has not yet. Raises HyperError.
        """
        core, container = self._core, live.container
        book, networks = core.networks.book, core.networks
        gateways = networking.gateways_of(core, container, new)
        first = gateways.get(4) or gateways.get(6)
        endpoint = next((e for e in book.of(container.id) if e.id == first), None)
        network = book.by_id(endpoint.network) if endpoint is not None else None
        if endpoint is not None and network is not None and not _has_ports(endpoint):
            wants, exposed = networking.wanted_ports(core, container, network)
            for other in filter(_has_ports, book.of(container.id)):
                await networks.withdraw(other)
                if all(p.host_port for p in other.publications) and not any(
                    w.direct for w in wants
                ):
                    wants, exposed = ports.same(other.publications), other.exposed
            uid = live.sandbox.row.uid
            await networks.republish(endpoint, container.name, wants, exposed, uid)
        container.state.ports = networking.ports_of(book.of(container.id))

    async def _reroute(self, live: Live) -> None:
        """Give the default route to the network that has it now; the agent replaces what is."""
        core, container = self._core, live.container
        gateways = networking.gateways_of(core, container, {})
        for endpoint in core.networks.book.of(container.id):
            network = core.networks.book.by_id(endpoint.network)
            if network is not None and endpoint.id in gateways.values():
                nic = networking.nic_of(core, endpoint, network, gateways)
                change = messages.NicChange(container=container.id, nic=nic)
                await live.sandbox.call(messages.Op.NIC_ADD, change)


async def _remember(core: Core, sandbox: Sandbox) -> None:
    """Store which NICs the machine has now, for the next daemon."""
    sandbox.row.machine = sandbox.machine.record
    await put_sandbox(core.db, sandbox.row)


def _has_ports(endpoint: Endpoint) -> bool:
    return bool(endpoint.publications or endpoint.exposed)


def _key(container: Container, network: Network) -> str | None:
    """Return the name under which a container has a wish for a network."""
    return next((k for k in container.networks if k in (network.name, network.id)), None)


def _container(core: Core, reference: str) -> Container:
    if not reference:
        raise InvalidParameter('invalid name or ID supplied: ""')
    return core.table.get(reference)


def _check_state(container: Container) -> None:
    """Refuse what nothing can be done with. A paused container has a guest that is awake."""
    if container.state.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(
            f"Container {container.id} is marked for removal and cannot be connected or "
            "disconnected to the network"
        )


def _check_connect(network: Network, container: Container) -> None:
    mode = container.host.network_mode
    up = container.state.status.is_up
    if mode == "host" or (up and mode.startswith("container:")):
        raise InvalidParameter(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if network.driver == "host":
        raise InvalidParameter(
            "cannot connect container to host network - container must be created in host network "
            "mode"
        )
    others = set(container.networks) - {network.name, network.id}
    if others and ("none" in others or network.name == "none"):
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )
    if network.config_only and up:
        raise Forbidden(networking.NO_NETWORK)
    on = container.state.endpoints.get(network.name, EndpointState())
    if on.endpoint_id or (up and _key(container, network) is not None):
        raise Forbidden(
            f"endpoint with name {container.name} already exists in network {network.name}"
        )


def _check_disconnect(
    container: Container, network: Network | None, key: str | None, *, up: bool
) -> None:
    if key is not None or (network is not None and network.name in container.state.endpoints):
        return
    name = network.name if network is not None else ""
    if not up:
        raise InternalError(f"container {container.id} is not connected to the network {name}")
    raise InternalError(f"container {container.id} is not connected to network {name}")


Test = Callable[[Network], bool]


def _name_test(values: list[str]) -> Test:
    return lambda n: any(matches(value, n.name) for value in values)


def _id_test(values: list[str]) -> Test:
    return lambda n: any(matches(value, n.id) for value in values)


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
            raise InternalError(f"invalid filter: 'type'='{value}'")
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
    if len(values) > 1:
        raise InvalidParameter(f'got more than one value for filter key "{key}"')
    if values[0] not in ("0", "1", "false", "true"):
        raise InvalidParameter(
            f'invalid value for filter \'{key}\', must be "true" (or "1"), or "false" (or "0")'
        )
    return values[0] in ("1", "true")
