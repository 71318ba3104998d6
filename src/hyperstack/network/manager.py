"""The networks of this host and the endpoints on them: rows, addresses, ports, devices, rules.

An endpoint is attached in this order: address and ports are reserved (in memory; ports bound), then
its row is written while its devices are made; its ports open when the guest boots. Detaching goes
the other way: rules, ports and the bridge port first, then the address is free; the devices die
with the sandbox. What a daemon leaves when it is killed anywhere between is found by names that
come from ids, and removed by ``reconcile``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from msgspec.structs import replace

from hyperstack.config import Config
from hyperstack.errors import Forbidden, HyperError, InternalError, InvalidParameter
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId, EndpointId, NetworkId, new_id
from hyperstack.network import bridge, devices, ipam, rows, settle
from hyperstack.network.book import Book
from hyperstack.network.firewall import Policy
from hyperstack.network.ports import Occupied, Want
from hyperstack.network.publish import Publisher
from hyperstack.network.resolver import Resolver
from hyperstack.network.rows import Endpoint, Network, Publication
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.network.settle import NetworkSpec
from hyperstack.network.table import Table
from hyperstack.platform.tasks import Tasks
from hyperstack.store.database import Database

log = logging.getLogger(__name__)

CLOSING = 5.0
"""Seconds that a start waits for ports that are being closed."""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """An endpoint to be made. ``wants`` are the ports to publish, ``exposed`` is for show."""

    network: Network
    container: ContainerId
    container_name: str
    sandbox: str
    uid: int
    interface: str = "eth0"
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    link_local: tuple[str, ...] = ()
    wants: Sequence[Want] = ()
    exposed: tuple[str, ...] = ()


class NetworkManager:
    """Networks and endpoints of one daemon; every method is called on the event loop."""

    def __init__(
        self, config: Config, db: Database, sandboxes: SandboxNetwork, events: EventBus
    ) -> None:
        self._config = config
        self._db = db
        self._sandboxes = sandboxes
        self._events = events
        self._changing = asyncio.Lock()
        self._guarded = False
        self._broken: HyperError | None = None
        self._tasks = Tasks()
        self._closing: set[asyncio.Task[None]] = set()
        self._table = Table(self._policy)
        self.book = Book()
        self.publisher = Publisher(config, self._table)
        self.resolver = Resolver()

    def _policy(self) -> Policy:
        return Policy(
            networks=self.book.bridges(),
            published=self.publisher.published,
            guarded=self._guarded,
        )

    # -- start and end of the daemon

    async def start(self) -> None:
        """Read the rows, make what every host has, write the rules.

        A host that lacks what bridges need is warned of here; only containers with a network then
        fail, each with that sentence.
        """
        for network in rows.load_networks(self._db):
            self.book.put(network)
        for endpoint in rows.load_endpoints(self._db):
            self.book.restore(endpoint)
            self.publisher.restore(endpoint)
        for name, driver in (("none", "null"), ("host", "host")):
            if self.book.named(name) is None:
                await self._store(settle.predefined(name, driver))
        try:
            await self._default_bridge()
            await asyncio.to_thread(self._make_all)
            await self._table.write()
        except HyperError as error:
            self._broken = error
            log.warning("containers can have no network but none: %s", error)
            return
        self._table.watch()
        await self.publisher.start()

    async def _store(self, network: Network) -> None:
        await rows.put_network(self._db, network)
        self.book.put(network)

    async def _default_bridge(self) -> None:
        before = self.book.named("bridge")
        others = [n for n in self.book.networks() if n is not before]
        made = await asyncio.to_thread(settle.default_bridge, self._config, before, others)
        if before is not None and made.subnets != before.subnets and self.book.on(before.id):
            log.warning("the default bridge keeps its subnet: containers run on it")
            return
        if made != before:
            await self._store(made)
        if before is not None and before.bridge != made.bridge:
            await asyncio.to_thread(bridge.remove, before)

    def _make_all(self) -> None:
        networks = self.book.bridges()
        self._guarded = bridge.route(self._config, ipv6=any(n.enable_ipv6 for n in networks))
        for network in networks:
            try:
                bridge.make(network, self._config)
            except HyperError as error:
                if network.is_default:
                    raise
                log.warning("network %s does not work: %s", network.name, error)
        warning = bridge.foreign_firewall()
        if warning is not None:
            log.warning("%s", warning)

    async def reconcile(self, wanted: set[str]) -> None:
        """Remove every endpoint that is not in *wanted*, and what no row explains."""
        for endpoint in self.book.endpoints():
            if endpoint.id not in wanted:
                await self._drop(endpoint)
        await self._sandboxes.sweep()
        if self._broken is None:
            await asyncio.to_thread(self._sweep_links)
            await self._table.write()

    def _sweep_links(self) -> None:
        bridges = {network.bridge for network in self.book.bridges()}
        wanted = {endpoint.veth for endpoint in self.book.endpoints()}
        strays = bridge.stray_veths(bridges, wanted)
        if strays:
            log.info("removing %d network interfaces that nobody uses", len(strays))
            bridge.drop_links(strays)

    async def close(self) -> None:
        """Stop the daemon's part. Bridges, endpoints, rules and ports stay as they are."""
        self._table.unwatch()
        await self._tasks.aclose()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    # -- networks

    def get(self, reference: str) -> Network:
        """Find a network by name, id or unique prefix. Raises NotFound, InvalidParameter."""
        return self.book.network(reference)

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network of driver ``bridge``. Raises HyperError in Docker's words."""
        self._check()
        async with self._changing:
            present = self.book.networks()
            settle.check(spec, present)
            spec = settle.inherit(spec, present)
            network = await asyncio.to_thread(settle.network, spec, self._config, present)
            await self._store(network)
            if network.is_bridge:
                await self._bridge_up(network)
        self._event("create", network)
        return network

    async def _bridge_up(self, network: Network) -> None:
        try:
            await asyncio.to_thread(self._raise, network)
            await self._table.write()
        except BaseException:
            await asyncio.shield(self._undo(network))
            raise

    def _raise(self, network: Network) -> None:
        self._guarded = bridge.route(self._config, ipv6=network.enable_ipv6)
        bridge.make(network, self._config)

    async def _undo(self, network: Network) -> None:
        self.book.drop(network)
        await asyncio.to_thread(bridge.remove, network)
        await rows.delete_network(self._db, network.id)

    async def remove(self, reference: str, names: dict[ContainerId, str]) -> Network:
        """Remove a network without endpoints. *names* are those of the containers, for the error.

        Raises NotFound, Forbidden (predefined or in use).
        """
        async with self._changing:
            network = self.book.network(reference)
            if network.name in settle.PREDEFINED:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            if endpoints := self.book.on(network.id):
                users = ", ".join(
                    f'name:"{names.get(e.container, "")}" id:"{e.id[:12]}"' for e in endpoints
                )
                raise Forbidden(
                    f"error while removing network: network {network.name} has active endpoints "
                    f"({users})"
                )
            if network.config_only and any(
                other.config_from == network.name for other in self.book.networks()
            ):
                raise Forbidden(
                    "error while removing network: configuration network "
                    f'"{network.name}" is in use'
                )
            self.book.drop(network)
            try:
                await self._table.write()
                if network.is_bridge:
                    await asyncio.to_thread(bridge.remove, network)
            except BaseException:
                self.book.put(network)
                await asyncio.shield(self._rules_again())
                raise
            await rows.delete_network(self._db, network.id)
        self._event("destroy", network)
        return network

    async def _rules_again(self) -> None:
        """Write the rules of a network that could not be removed and so goes on."""
        try:
            await self._table.write()
        except HyperError as error:
            log.error("the table of rules lacks a network: %s", error)

    def _event(self, action: str, network: Network, **extra: str) -> None:
        attributes = {**extra, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)

    # -- endpoints

    async def attach(self, wish: Attachment, *, announce: bool = True) -> Endpoint:
        """Give a container a NIC in its sandbox's namespace; its ports open with ``publish``.

        Without *announce* the ``connect`` event waits for ``announce``, as a container's start may
        fail yet. Raises HyperError in Docker's words; nothing is left then.
        """
        self._check()
        if self._closing and (wish.wants or wish.ipv4 or wish.ipv6):
            await asyncio.wait(self._closing, timeout=CLOSING)  # what is wanted may just get free
        endpoint = self._reserve(wish)
        made = asyncio.create_task(asyncio.to_thread(self._make, endpoint, wish))
        stored = asyncio.create_task(rows.put_endpoint(self._db, endpoint))
        try:
            await asyncio.shield(asyncio.gather(made, stored))
        except BaseException:
            # A thread can't be cancelled: what it makes is removed once it is done.
            await asyncio.shield(self._abandon(endpoint, wish, made, stored))
            raise
        if announce:
            self._event("connect", wish.network, container=wish.container)
        return endpoint

    def announce(self, container: ContainerId) -> None:
        """Publish that a container that has just been started is on its networks."""
        for endpoint in self.book.of(container):
            network = self.book.by_id(NetworkId(endpoint.network))
            if network is not None:
                self._event("connect", network, container=container)

    def _reserve(self, wish: Attachment) -> Endpoint:
        network = wish.network
        if not self.book.knows(network.id):
            raise InternalError(f"network {network.name} is being removed")
        identifier = EndpointId(new_id())
        mac = _mac(wish.mac, f"{rows.VETH}{identifier[:12]}")
        ipv4 = self._address(network, 4, wish.ipv4)
        ipv6 = ""
        try:
            ipv6 = self._address(network, 6, wish.ipv6)
            publications = self._ports(identifier, wish.container_name, wish.wants, ipv4 or ipv6)
        except BaseException:
            self._give(network, ipv4, ipv6)
            raise
        four = IPv4Address(ipv4) if ipv4 else None
        endpoint = Endpoint(
            id=identifier,
            network=network.id,
            container=wish.container,
            sandbox=wish.sandbox,
            mac=mac or (ipam.mac_of(four) if four else ipam.mac_from(identifier)),
            interface=wish.interface,
            ipv4=ipv4,
            ipv6=ipv6,
            link_local=wish.link_local,
            publications=publications,
            exposed=wish.exposed,
        )
        self.book.add(endpoint)
        return endpoint

    def _ports(
        self, endpoint: EndpointId, name: str, wants: Sequence[Want], address: str
    ) -> tuple[Publication, ...]:
        try:
            return self.publisher.reserve(endpoint, wants, address)
        except Occupied as error:
            raise InternalError(
                f"driver failed programming external connectivity on endpoint {name} ({endpoint}): "
                f"{error}"
            ) from error

    async def withdraw(self, endpoint: Endpoint) -> None:
        """Take an endpoint's ports from it, which are to be another's. Raises HyperError."""
        bare = replace(endpoint, publications=(), exposed=())
        self.book.add(bare)
        await self.publisher.silence(endpoint)
        await self.publisher.close(endpoint)
        await rows.put_endpoint(self._db, bare)

    async def republish(
        self,
        endpoint: Endpoint,
        name: str,
        wants: Sequence[Want],
        exposed: tuple[str, ...],
        uid: int,
    ) -> None:
        """Publish the ports of container *name* on an endpoint that it has. Raises HyperError."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSING)
        publications = self._ports(endpoint.id, name, wants, endpoint.ipv4 or endpoint.ipv6)
        made = replace(endpoint, publications=publications, exposed=exposed)
        self.book.add(made)
        await rows.put_endpoint(self._db, made)
        await self.publisher.open(made, uid)

    def _address(self, network: Network, version: int, wish: str) -> str:
        pool = self.book.pool(network, version)
        if pool is not None:
            return str(pool.take(wish))
        if wish:
            raise InvalidParameter(
                f"invalid endpoint settings:\nno configured subnet contains IP address {wish}"
            )
        return ""

    def _give(self, network: Network, *addresses: str) -> None:
        for address in addresses:
            pool = self.book.pool(network, 6 if ":" in address else 4)
            if address and pool is not None:
                pool.give(address)

    def _make(self, endpoint: Endpoint, wish: Attachment) -> None:
        network = wish.network
        try:
            socket.if_nametoindex(network.bridge)
        except OSError:
            bridge.make(network, self._config)  # somebody has removed it
        devices.make(
            endpoint,
            network,
            namespace=self._sandboxes.path(wish.sandbox),
            uid=wish.uid,
            mtu=network.mtu(self._config.mtu),
        )

    async def _abandon(
        self,
        endpoint: Endpoint,
        wish: Attachment,
        made: asyncio.Task[None],
        stored: asyncio.Task[None],
    ) -> None:
        await asyncio.gather(made, stored, return_exceptions=True)
        path = self._sandboxes.path(wish.sandbox)
        await asyncio.to_thread(devices.remove, endpoint, path)
        await self._drop(endpoint)

    async def publish(self, container: ContainerId, uid: int) -> None:
        """Open the ports of a container's endpoints. Raises HyperError."""
        for endpoint in self.book.of(container):
            await self.publisher.open(endpoint, uid)

    async def adopt(self, container: ContainerId, uid: int) -> list[Endpoint]:
        """Take up the endpoints that an earlier daemon gave a container, and return them."""
        endpoints = self.book.of(container)
        for endpoint in endpoints:
            await self.publisher.adopt(endpoint, uid)
        return endpoints

    async def detach(self, container: ContainerId) -> None:
        """Take a container off all its networks; its sandbox is about to end."""
        for endpoint in self.book.of(container):
            await self._drop(endpoint)

    async def disconnect(self, endpoint: Endpoint) -> None:
        """Take one NIC from a sandbox that lives on."""
        await self._drop(endpoint)
        path = self._sandboxes.path(endpoint.sandbox)
        await asyncio.to_thread(devices.remove, endpoint, path)

    async def _drop(self, endpoint: Endpoint) -> None:
        """Cut an endpoint off; what takes longer goes on behind. Never raises for the kernel.

        Until the rules of its ports are gone, nobody else gets its address or its ports.
        """
        if not self.book.forget(endpoint):
            return
        for step in (self.publisher.silence(endpoint), asyncio.to_thread(devices.cut, endpoint)):
            try:
                await step
            except HyperError as error:
                log.warning("endpoint %s: %s", endpoint.id[:12], error)
        if endpoint.publications:
            task = self._tasks.start("end of ports", self._close(endpoint))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        else:
            self.book.free(endpoint)
        # Not waited for: a row without a container is removed by the next daemon.
        self._tasks.start("endpoint row", rows.delete_endpoints(self._db, [endpoint.id]))
        network = self.book.by_id(NetworkId(endpoint.network))
        if network is not None:
            self._event("disconnect", network, container=endpoint.container)

    async def _close(self, endpoint: Endpoint) -> None:
        try:
            await self.publisher.close(endpoint)
        except HyperError as error:
            log.warning("the ports of endpoint %s: %s", endpoint.id[:12], error)
        finally:
            self.book.free(endpoint)


def _mac(text: str, veth: str) -> str:
    """Return a MAC as the kernel writes it, empty for none. Raises InternalError, as Docker."""
    if not text:
        return ""
    raw = bytes.fromhex(text.replace("-", "").replace(":", "").replace(".", ""))
    if raw[0] & 1 or not any(raw):
        raise InternalError(
            f'failed to add interface {veth} to sandbox: error setting interface "{veth}" MAC to '
            f'"{raw.hex(":")}": cannot assign requested address'
        )
    return raw.hex(":")
