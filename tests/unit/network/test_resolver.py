"""Forwarding of questions, against real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Address
from typing import cast

from hyperstack.network import dns, resolver
from hyperstack.network.resolver import Resolver
from tests.unit.network.test_dns import query

QUESTION = query("example.com")


class Server(asyncio.DatagramProtocol):
    """A name server: answers by *behave*, counts what it was asked."""

    def __init__(self, behave: str) -> None:
        self.behave = behave
        self.asked: list[bytes] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        assert self.transport is not None
        for answer in self.answers(data):
            self.transport.sendto(answer, addr)

    def answers(self, data: bytes) -> list[bytes]:
        good = dns.respond(dns.parse(data), [IPv4Address("10.0.0.1")])
        forged_id = struct.pack(">H", (int.from_bytes(data[:2], "big") + 1) & 0xFFFF) + good[2:]
        forged_name = data[:2] + dns.respond(dns.parse(query("evil.com")))[2:]
        return {
            "good": [good],
            "silent": [],
            "failing": [dns.respond(dns.parse(data), code=dns.Code.FAILURE)],
            "forged": [forged_id, forged_name, b"x", good],
        }[self.behave]


async def served(behave: str, address: str) -> tuple[Server, asyncio.DatagramTransport]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: Server(behave), local_addr=(address, PORT)
    )
    return server, transport


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


PORT = free_port()


async def ask(*servers: str, tcp: bool = False, timeout: float = 0.3) -> bytes | None:
    return await Resolver(port=PORT, timeout=timeout).forward(
        QUESTION, dns.parse(QUESTION), servers, tcp=tcp, sandbox="s"
    )


async def test_an_answer_comes_back_under_the_guests_own_id() -> None:
    server, transport = await served("good", "127.0.0.1")
    answer = await ask("127.0.0.1")
    assert answer == dns.respond(dns.parse(QUESTION), [IPv4Address("10.0.0.1")])
    assert server.asked[0][2:] == QUESTION[2:]
    transport.close()


async def test_silent_and_failing_servers_are_passed_over() -> None:
    transports = [
        (await served(behave, address))[1]
        for behave, address in (
            ("silent", "127.0.0.1"),
            ("failing", "127.0.0.2"),
            ("good", "127.0.0.3"),
        )
    ]
    answer = await ask("127.0.0.1", "127.0.0.9", "127.0.0.2", "127.0.0.3")
    assert answer is not None
    assert answer[3] & 0xF == dns.Code.OK
    assert await ask("127.0.0.2", "127.0.0.1") is None
    assert await ask("127.0.0.1") is None
    for transport in transports:
        transport.close()


async def test_forged_answers_are_not_believed() -> None:
    _, transport = await served("forged", "127.0.0.1")
    answer = await ask("127.0.0.1")
    assert answer == dns.respond(dns.parse(QUESTION), [IPv4Address("10.0.0.1")])
    transport.close()


async def test_tcp_questions_go_over_tcp() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        data = await reader.readexactly(size)
        answer = dns.respond(dns.parse(data), [IPv4Address("10.0.0.2")])
        writer.write(struct.pack(">H", len(answer)) + answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", PORT)
    answer = await ask("127.0.0.1", tcp=True)
    assert answer == dns.respond(dns.parse(QUESTION), [IPv4Address("10.0.0.2")])
    server.close()
    await server.wait_closed()


async def test_a_flood_of_one_sandbox_takes_nobody_elses_share() -> None:
    server, transport = await served("silent", "127.0.0.1")
    asking = Resolver(port=PORT, timeout=0.3)
    question = dns.parse(QUESTION)

    async def one(sandbox: str) -> bytes | None:
        return await asking.forward(QUESTION, question, ["127.0.0.1"], tcp=False, sandbox=sandbox)

    flood = [asyncio.create_task(one("flood")) for _ in range(resolver.PER_SANDBOX + 50)]
    await asyncio.sleep(0.1)
    assert sum(task.done() for task in flood) == 50
    server.behave = "good"
    assert await one("other") is not None
    await asyncio.gather(*flood)
    assert asking._by_sandbox == {}
    transport.close()
