"""Asks the outside's name servers for guests: bounded in time, in number, in what is believed.

Every question goes out under a fresh id from a fresh port (RFC 5452); what does not repeat the
question is ignored. Servers are tried in order, as a resolver in the container would.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Sequence

from hyperstack.network import dns
from hyperstack.network.dns import Question

PORT = 53
TIMEOUT = 4.0
"""Seconds for one server, as Docker's resolver."""
MAX_SERVERS = 6
CONCURRENT = 1024
"""Questions on their way at once, of all guests."""
PER_SANDBOX = 128
"""Questions on their way at once of one sandbox: a flood takes nobody else's share."""


class _Ask(asyncio.DatagramProtocol):
    def __init__(self, question: Question, identifier: int) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._question = question
        self._identifier = identifier

    def datagram_received(self, data: bytes, addr: object) -> None:
        if dns.answers(data, self._question, self._identifier) and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


class Resolver:
    """Forwards questions; one per daemon."""

    def __init__(self, *, port: int = PORT, timeout: float = TIMEOUT) -> None:
        self._port = port
        self._timeout = timeout
        self._running = 0
        self._by_sandbox: dict[str, int] = {}

    async def forward(
        self, message: bytes, question: Question, servers: Sequence[str], *, tcp: bool, sandbox: str
    ) -> bytes | None:
        """Return an answer under the question's own id, None if no server has one.

        A server that only says that it failed or refuses is passed over for the next one.
        """
        mine = self._by_sandbox.get(sandbox, 0)
        if self._running >= CONCURRENT or mine >= PER_SANDBOX:
            return None
        self._running += 1
        self._by_sandbox[sandbox] = mine + 1
        try:
            for server in servers[:MAX_SERVERS]:
                answer = await self._ask(message, question, server, tcp)
                if answer is None:
                    continue
                if answer[3] & 0xF not in (dns.Code.FAILURE, dns.Code.REFUSED):
                    return struct.pack(">H", question.id) + answer[2:]
            return None
        finally:
            self._running -= 1
            left = self._by_sandbox[sandbox] - 1
            if left:
                self._by_sandbox[sandbox] = left
            else:
                del self._by_sandbox[sandbox]

    async def _ask(
        self, message: bytes, question: Question, server: str, tcp: bool
    ) -> bytes | None:
        identifier = secrets.randbits(16)
        asked = struct.pack(">H", identifier) + message[2:]
        ask = self._over_tcp if tcp else self._over_udp
        try:
            async with asyncio.timeout(self._timeout):
                return await ask(asked, question, identifier, server)
        except (TimeoutError, OSError, EOFError):
            return None

    async def _over_udp(
        self, asked: bytes, question: Question, identifier: int, server: str
    ) -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Ask(question, identifier), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(asked)
            return await protocol.answer
        finally:
            transport.close()

    async def _over_tcp(
        self, asked: bytes, question: Question, identifier: int, server: str
    ) -> bytes | None:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(struct.pack(">H", len(asked)) + asked)
            await writer.drain()
            (size,) = struct.unpack(">H", await reader.readexactly(2))
            data = await reader.readexactly(size)
            return data if dns.answers(data, question, identifier) else None
        finally:
            writer.close()
