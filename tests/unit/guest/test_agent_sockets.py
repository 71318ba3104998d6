"""Sockets of the host: what clients in the guest send and get, over the streams of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient, AgentFailure, InputStream, OutputStream
from hyperstack.guest.messages import EventKind, Frame, Op
from tests.unit.guest.agent import BOUND, RunningAgent, collect
from tests.unit.guest.test_agent_hostile import frame, number, pair, request

MOST = 128
"""Connections that the agent allows."""


@pytest.fixture
async def agent(agent_binary: Path, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    running = RunningAgent.start(agent_binary, tmp_path, tmp_path / "host.sock")
    try:
        yield running
        await running.finish()
    finally:
        running.end()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where clients connect."""
    return tmp_path / "host.sock"


class Daemon:
    """What the daemon does with connections."""

    def __init__(self, agent: RunningAgent, client: AgentClient) -> None:
        self._agent = agent
        self.client = client
        self._ids = itertools.count(1001)

    async def opened(self, count: int) -> list[messages.SocketOpen]:
        """Wait until the agent has told of so many connections."""
        async with asyncio.timeout(BOUND):
            while True:
                told = [m for kind, m in self._agent.events if kind is EventKind.SOCKET_OPEN]
                if len(told) >= count:
                    return told
                await asyncio.sleep(0.005)

    async def accept(self, number: int) -> tuple[OutputStream, InputStream]:
        """Open the streams of a connection."""
        output = self.client.open_output(next(self._ids))
        sink = self.client.open_input(next(self._ids))
        answer = messages.SocketAnswer(connection=number, output=output.id, input=sink.id)
        await self.client.call(Op.SOCKET_ANSWER, answer)
        return output, sink


async def connected(place: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(os.fspath(place))


async def closed(reader: asyncio.StreamReader) -> bool:
    """Tell whether a client is left with nothing but the end."""
    async with asyncio.timeout(BOUND):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def test_a_connection_is_told_of_by_the_names_of_the_mount(
    agent: RunningAgent, place: Path
) -> None:
    daemon = Daemon(agent, await agent.connect())
    _, writer = await connected(place)
    [event] = await daemon.opened(1)
    assert (event.container, event.source, event.connection) == ("c", "/m0", 1)
    writer.close()
    await daemon.client.close()


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_bytes_go_both_ways_and_each_end_is_an_end_of_its_own(
    agent: RunningAgent, place: Path, size: int
) -> None:
    question, answer = random.Random(size).randbytes(size), random.Random(-size).randbytes(size)
    daemon = Daemon(agent, await agent.connect())
    reader, writer = await connected(place)
    output, sink = await daemon.accept((await daemon.opened(1))[0].connection)

    async def client() -> bytes:
        writer.write(question)
        await writer.drain()
        writer.write_eof()
        return await reader.read()

    got = asyncio.create_task(client())
    assert await collect(output) == question
    await sink.write(answer)
    await sink.eof()
    async with asyncio.timeout(BOUND):
        assert await got == answer
    writer.close()
    await daemon.client.close()


async def test_the_hosts_end_comes_first_and_the_client_goes_on_sending(
    agent: RunningAgent, place: Path
) -> None:
    daemon = Daemon(agent, await agent.connect())
    reader, writer = await connected(place)
    output, sink = await daemon.accept((await daemon.opened(1))[0].connection)
    await sink.write(b"bye")
    await sink.eof()
    async with asyncio.timeout(BOUND):
        assert await reader.read() == b"bye"
    writer.write(b"late")
    writer.write_eof()
    assert await collect(output) == b"late"
    writer.close()
    await daemon.client.close()


async def test_who_reads_no_more_is_told_so(agent: RunningAgent, place: Path) -> None:
    daemon = Daemon(agent, await agent.connect())
    _, writer = await connected(place)
    output, sink = await daemon.accept((await daemon.opened(1))[0].connection)
    writer.close()
    assert await collect(output) == b""
    async with asyncio.timeout(BOUND):
        await sink.wait_over()
        await sink.write(b"nobody has it")
    await daemon.client.close()


async def test_a_client_whose_host_reads_no_more_gets_a_broken_pipe(
    agent: RunningAgent, place: Path
) -> None:
    daemon = Daemon(agent, await agent.connect())
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(os.fspath(place))
    output, _ = await daemon.accept((await daemon.opened(1))[0].connection)
    output.reset(errno.EPIPE)

    def broken() -> bool:
        try:
            sock.send(b"x")
        except BrokenPipeError:
            return True
        return False

    async with asyncio.timeout(BOUND):
        while not broken():
            await asyncio.sleep(0.005)
    sock.close()
    await daemon.client.close()


async def test_a_client_that_does_not_read_holds_the_host_back(
    agent: RunningAgent, place: Path
) -> None:
    daemon = Daemon(agent, await agent.connect())
    reader, writer = await connected(place)
    _, sink = await daemon.accept((await daemon.opened(1))[0].connection)
    much = asyncio.create_task(sink.write(bytes(8 << 20)))
    await asyncio.sleep(0.2)
    assert not much.done()
    async with asyncio.timeout(BOUND):
        assert len(await reader.readexactly(8 << 20)) == 8 << 20
        await much
    writer.close()
    await daemon.client.close()


async def test_a_refused_connection_is_closed(agent: RunningAgent, place: Path) -> None:
    daemon = Daemon(agent, await agent.connect())
    reader, writer = await connected(place)
    [event] = await daemon.opened(1)
    refusal = messages.SocketAnswer(connection=event.connection, error=errno.ECONNREFUSED)
    await daemon.client.call(Op.SOCKET_ANSWER, refusal)
    assert await closed(reader)
    with pytest.raises(AgentFailure, match="nobody waits"):
        await daemon.client.call(Op.SOCKET_ANSWER, refusal)
    writer.close()
    await daemon.client.close()


async def test_streams_in_use_are_refused_and_the_connection_with_them(
    agent: RunningAgent, place: Path
) -> None:
    daemon = Daemon(agent, await agent.connect())
    process = await agent.run(daemon.client, "cat", stdin=True)
    reader, writer = await connected(place)
    [event] = await daemon.opened(1)
    for answer in (
        messages.SocketAnswer(connection=event.connection, output=5000, input=process.stdin_id),
        messages.SocketAnswer(connection=event.connection, output=5001, input=5002),
    ):
        with pytest.raises(AgentFailure):
            await daemon.client.call(Op.SOCKET_ANSWER, answer)
    assert await closed(reader)
    writer.close()
    await daemon.client.call(Op.SIGNAL, messages.Signal(handle=process.handle, signal=9))
    await daemon.client.close()


async def test_connections_end_with_the_daemons_and_new_ones_wait_for_the_next(
    agent: RunningAgent, place: Path
) -> None:
    daemon = Daemon(agent, await agent.connect())
    served, told = await connected(place), await connected(place)
    events = await daemon.opened(2)
    await daemon.accept(events[0].connection)
    await daemon.client.close()
    for reader, writer in (served, told):
        assert await closed(reader)
        writer.close()
    reader, writer = await connected(place)
    writer.write(b"patient")
    writer.write_eof()
    await asyncio.sleep(0.1)
    daemon = Daemon(agent, await agent.connect())
    output, sink = await daemon.accept((await daemon.opened(3))[2].connection)
    assert await collect(output) == b"patient"
    await sink.eof()
    assert await closed(reader)
    writer.close()
    await daemon.client.close()


async def test_the_number_of_connections_is_bounded_and_the_rest_waits(
    agent: RunningAgent, place: Path
) -> None:
    daemon = Daemon(agent, await agent.connect())
    clients = [await connected(place) for _ in range(MOST + 20)]
    events = await daemon.opened(MOST)
    await asyncio.sleep(0.1)
    assert len(await daemon.opened(MOST)) == MOST
    for event in events:
        refusal = messages.SocketAnswer(connection=event.connection, error=errno.EAGAIN)
        await daemon.client.call(Op.SOCKET_ANSWER, refusal)
    assert len(await daemon.opened(MOST + 20)) == MOST + 20
    await daemon.client.close()
    for reader, writer in clients:
        assert await closed(reader)
        writer.close()


def descriptors(agent: RunningAgent) -> int:
    return sum(1 for _ in Path(f"/proc/{agent.process.pid}/fd").iterdir())


def end_somehow(
    rng: random.Random, sock: socket.socket, output: OutputStream, sink: InputStream
) -> None:
    """Do some of what ends a connection, from both sides, in any order."""
    steps: list[Callable[[], object]] = [
        lambda: sock.send(rng.randbytes(rng.randrange(1, 90_000))),
        lambda: sock.shutdown(socket.SHUT_WR),
        lambda: sock.shutdown(socket.SHUT_RD),
        sock.close,
        lambda: output.reset(errno.EPIPE),
        lambda: sink.reset(errno.ECONNRESET),
    ]
    for step in rng.sample(steps, rng.randrange(1, len(steps))):
        with contextlib.suppress(OSError):
            step()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_order_of_the_two_ends_nothing_is_left(
    agent: RunningAgent, place: Path, seed: int
) -> None:
    rng = random.Random(seed)
    before = descriptors(agent)
    daemon = Daemon(agent, await agent.connect())
    for turn in range(40):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.fspath(place))
        sock.setblocking(False)
        output, sink = await daemon.accept((await daemon.opened(turn + 1))[turn].connection)
        end_somehow(rng, sock, output, sink)
        await asyncio.sleep(0)
        sock.close()
        output.reset()
        sink.reset()
    async with asyncio.timeout(BOUND):
        while descriptors(agent) > before + 1:
            await asyncio.sleep(0.01)
    await daemon.client.close()


@pytest.mark.parametrize("seed", range(4))
async def test_random_answers_never_harm_the_agent(
    agent: RunningAgent, place: Path, seed: int
) -> None:
    rng = random.Random(seed)
    before = descriptors(agent)

    def noise() -> bytes:
        stream = rng.randrange(1, 6)
        answer = b"".join(number(tag, rng.choice([0, 1, 2, 3, stream])) for tag in (1, 2, 3, 4))
        return rng.choice(
            [
                request(Op.SOCKET_ANSWER, answer[: rng.choice([32, 48, 64])]),
                request(Op.SOCKET_ANSWER, number(1, rng.choice([1 << 63, 1 << 40])) + answer[16:]),
                frame(Frame.CREDIT, pair(0, rng.choice([0, 5, 1 << 20])), number=stream),
                frame(Frame.DATA, bytes(8) + rng.randbytes(rng.randrange(1, 9)), number=stream),
                frame(Frame.EOF, bytes(8), number=stream),
                frame(Frame.RESET, number=stream, code=rng.choice([0, 32])),
            ]
        )

    for _ in range(60):
        daemon = agent.raw()
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for client in clients:
                client.connect(os.fspath(place))
                client.setblocking(False)
            for _ in range(12):
                daemon.sendall(noise())
                clients[rng.randrange(3)].send(b"word")
        for sock in rng.sample([daemon, *clients], 4):
            sock.close()
    honest = await agent.connect()
    await honest.call(Op.PING, messages.Empty())
    refused = 0
    async with asyncio.timeout(BOUND):
        while descriptors(agent) > before + 1:  # those that waited for a daemon are told of now
            for event in (await Daemon(agent, honest).opened(0))[refused:]:
                refused += 1
                refusal = messages.SocketAnswer(connection=event.connection, error=errno.EAGAIN)
                await honest.call(Op.SOCKET_ANSWER, refusal)
            await asyncio.sleep(0.01)
    await honest.close()
