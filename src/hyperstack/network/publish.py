"""Publishing: the way of a container's ports from reserved to open, and back.

``reserve`` binds the ports before the sandbox boots, so a conflict costs nothing; ``open`` adds the
rules and hands the bound sockets to the sandbox's port helper; ``silence`` and ``close`` undo both.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from hyperstack.config import Config
from hyperstack.errors import HyperError
from hyperstack.ids import EndpointId
from hyperstack.network import host, ports
from hyperstack.network.conntrack import forget_udp
from hyperstack.network.firewall import Published
from hyperstack.network.helper import PortHelper
from hyperstack.network.ports import Occupied, PortTable, Want
from hyperstack.network.rows import Endpoint, Publication
from hyperstack.network.table import Table
from hyperstack.platform.cgroup import Cgroups

log = logging.getLogger(__name__)


class Publisher:
    """The published ports of this host."""

    def __init__(self, config: Config, table: Table) -> None:
        self._table = table
        self._helper = PortHelper(config)
        self._ports = PortTable(host.ephemeral_ports())
        self._sockets: dict[EndpointId, list[tuple[Publication, socket.socket]]] = {}
        self._published: dict[EndpointId, tuple[Published, ...]] = {}
        self._cgroups: Cgroups | None = None

    @property
    def published(self) -> list[Published]:
        """All that is open, or on its way to it."""
        return [one for many in self._published.values() for one in many]

    async def start(self) -> None:
        """Find the helper's program; without it, say what will not work."""
        try:
            await asyncio.to_thread(self._helper.load)
        except HyperError as error:
            log.warning("ports are published without a helper, so not from IPv6: %s", error)

    def reserve(
        self, endpoint: EndpointId, wants: Sequence[Want], address: str
    ) -> tuple[Publication, ...]:
        """Allocate and bind ports for an endpoint that has, or is to have, *address*.

        Raises Occupied; then none is taken.
        """
        made: list[Publication] = []
        bound: list[tuple[Publication, socket.socket]] = []
        try:
            for want in wants:
                for publication, sock in self._ports.take(want, address):
                    made.append(publication)
                    bound.append((publication, sock))
                made += [
                    Publication(protocol=want.protocol, port=want.port, host_ip=at, host_port=0)
                    for at in want.direct
                ]
        except BaseException:
            for _, sock in bound:
                sock.close()
            self._ports.give(made)
            raise
        self._sockets[endpoint] = bound
        return tuple(made)

    def cancel(self, endpoint: EndpointId, publications: Sequence[Publication]) -> None:
        """Give back what ``reserve`` took."""
        for _, sock in self._sockets.pop(endpoint, []):
            sock.close()
        self._ports.give(publications)

    async def open(self, endpoint: Endpoint, uid: int) -> None:
        """Let the world in at an endpoint's ports. Raises HyperError."""
        if not endpoint.publications:
            return
        self._published[endpoint.id] = published = targets(endpoint)
        steps = (self._table.open(published), self._hand_over(endpoint, uid))
        # Both come to an end before a failure of one is told: what follows closes the sockets.
        for failed in filter(None, await asyncio.gather(*steps, return_exceptions=True)):
            raise failed
        await self._forget(endpoint)

    async def _hand_over(self, endpoint: Endpoint, uid: int) -> None:
        bound = self._sockets.get(endpoint.id, [])
        kept = [pair for pair in bound if pair[0].protocol == "sctp"]
        given = [pair for pair in bound if pair[0].protocol != "sctp"]
        if not given or not self._helper.available():
            return
        if self._cgroups is None:
            self._cgroups = Cgroups.detect()
        address = endpoint.ipv4 or endpoint.ipv6
        await self._helper.start(
            endpoint.sandbox,
            endpoint.id,
            uid,
            [(p, _served(endpoint, p, address), sock) for p, sock in given],
            self._cgroups.folders(endpoint.sandbox),
        )
        self._sockets[endpoint.id] = kept
        for _, sock in given:
            sock.close()

    async def silence(self, endpoint: Endpoint) -> None:
        """Let go of an endpoint's ports, so that others may bind them. Raises HyperError."""
        if endpoint.publications:
            for _, sock in self._sockets.pop(endpoint.id, []):
                sock.close()
            await self._helper.stop(endpoint.sandbox, endpoint.id)

    async def close(self, endpoint: Endpoint) -> None:
        """Remove the rules of an endpoint's ports and free their numbers. Raises HyperError.

        The kernel takes some 10 ms to be sure that no packet sees a removed element any more.
        """
        published = self._published.pop(endpoint.id, ())
        if not endpoint.publications:
            return
        try:
            await self._table.close(published)
            await self._forget(endpoint)
        finally:
            self.cancel(endpoint.id, endpoint.publications)

    async def _forget(self, endpoint: Endpoint) -> None:
        """Forget where datagrams went before: else a busy client's would go there for ever."""
        bound = filter(_is_bound, endpoint.publications)
        numbers = {p.host_port for p in bound if p.protocol == "udp"}
        if numbers:
            await asyncio.to_thread(forget_udp, numbers)

    def restore(self, endpoint: Endpoint) -> None:
        """Take up the ports of an endpoint that an earlier daemon opened."""
        if endpoint.publications:
            self._published[endpoint.id] = targets(endpoint)
            for publication in filter(_is_bound, endpoint.publications):
                self._ports.hold(publication)

    async def adopt(self, endpoint: Endpoint, uid: int) -> None:
        """Make sure that an earlier daemon's ports are still guarded and served."""
        if not endpoint.publications:
            return
        helper = self._helper.find(endpoint.sandbox, endpoint.id)
        if helper is not None:
            helper.close()
            return
        bound = self._sockets.setdefault(endpoint.id, [])
        for publication in filter(_is_bound, endpoint.publications):
            try:
                sock = ports.guard(publication, endpoint.ipv4 or endpoint.ipv6)
            except Occupied as error:
                log.warning("a published port was taken while the daemon was down: %s", error)
                continue
            bound.append((publication, sock))
        try:
            await self._hand_over(endpoint, uid)
        except HyperError as error:
            log.warning("published ports are not served from IPv6: %s", error)


def _is_bound(publication: Publication) -> bool:
    """Tell whether a port of the host is taken for it."""
    return publication.host_port != 0


def targets(endpoint: Endpoint) -> tuple[Published, ...]:
    """Say where an endpoint's ports lead."""
    return tuple(
        Published(publication=p, address=_served(endpoint, p, endpoint.ipv4 or endpoint.ipv6))
        for p in endpoint.publications
    )


def _served(endpoint: Endpoint, publication: Publication, default: str) -> str:
    """The container's address of the port's own IP version, or else the one that it has."""
    return (endpoint.ipv6 if ":" in publication.host_ip else endpoint.ipv4) or default
