"""What a daemon must not say, or not so much of: the agent ends the connection and lives on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from pathlib import Path

import pytest

from hyperstack.guest import messages
from hyperstack.guest.messages import HEADER, MAX_DATA, MAX_MESSAGE, WINDOW, Frame, Op
from tests.unit.guest.agent import BOUND, RunningAgent, collect

HEAD = struct.Struct("<IBBHQ")


def frame(
    kind: int, payload: bytes = b"", *, code: int = 0, number: int = 1, zero: int = 0
) -> bytes:
    return HEAD.pack(len(payload), kind, zero, code, number) + payload


def request(op: int, payload: bytes = b"", number: int = 1) -> bytes:
    return frame(Frame.REQUEST, payload, code=op, number=number)


def pair(first: int, second: int) -> bytes:
    return struct.pack("<QQ", first, second)


def field(tag: int, data: bytes, zero: int = 0) -> bytes:
    return struct.pack("<HHI", tag, zero, len(data)) + data


def number(tag: int, value: int) -> bytes:
    return field(tag, value.to_bytes(8, "little"))


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def answers(sock: socket.socket) -> list[tuple[int, int, int, bytes]]:
    """Read frames until the agent closes the connection."""
    frames = []
    with contextlib.suppress(ConnectionResetError):
        while head := receive(sock, HEADER):
            length, kind, _, code, ident = HEAD.unpack(head)
            frames.append((kind, code, ident, receive(sock, length)))
    return frames


DEEP = b""
for _ in range(6):
    DEEP = field(2, DEEP)

BREACHES = {
    "a frame of the agent's": frame(Frame.HELLO, code=1),
    "an unknown type": frame(77),
    "a byte that must be zero": frame(Frame.REQUEST, code=Op.PING, zero=1),
    "a request over the bound": HEAD.pack(MAX_MESSAGE + 1, Frame.REQUEST, 0, Op.PING, 1),
    "data over the bound": HEAD.pack(MAX_DATA + 9, Frame.DATA, 0, 0, 1),
    "an empty data frame": frame(Frame.DATA, bytes(8)),
    "a stream id of zero": frame(Frame.DATA, bytes(9), number=0),
    "a stream id of 33 bits": frame(Frame.CREDIT, pair(0, 1), number=1 << 32),
    "a credit that ends before it begins": frame(Frame.CREDIT, pair(2, 1)),
    "a limit beyond all offsets": frame(Frame.CREDIT, pair(0, 1 << 63)),
    "a short credit": frame(Frame.CREDIT, bytes(8)),
    "an unknown field": request(Op.PING, number(1, 1)),
    "a field cut short": request(Op.RELEASE, b"\1\0\0\0\x08\0\0\0abc"),
    "a field whose zero is not": request(Op.RELEASE, field(1, bytes(8), zero=1)),
    "a number of four bytes": request(Op.RELEASE, field(1, bytes(4))),
    "text with a NUL": request(Op.CHANGES, field(1, b"a\0b")),
    "text over its bound": request(Op.CHANGES, field(1, b"a" * 65)),
    "a text twice": request(Op.CHANGES, field(1, b"a") + field(1, b"b")),
    "nesting without end": request(Op.EXEC, field(1, b"c") + DEEP),
}


@pytest.mark.parametrize("what", BREACHES)
async def test_a_breach_of_the_protocol_ends_the_connection_alone(
    agent: RunningAgent, what: str
) -> None:
    sock = agent.raw()
    sock.sendall(BREACHES[what])
    frames = await asyncio.to_thread(answers, sock)
    assert [kind for kind, *_ in frames] == [Frame.HELLO]
    sock.close()
    client = await agent.connect()
    await client.call(Op.PING, messages.Empty())
    await client.close()


async def test_data_beyond_the_credit_or_at_a_wrong_offset_ends_the_connection(
    agent: RunningAgent,
) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sleep", "60", stdin=True)
    await client.close()
    for offset, size in ((1, 1), (WINDOW, 1), (1 << 62, 5)):
        sock = agent.raw()
        payload = struct.pack("<Q", offset) + bytes(size)
        sock.sendall(frame(Frame.DATA, payload, number=process.stdin_id))
        frames = await asyncio.to_thread(answers, sock)
        assert [kind for kind, *_ in frames] == [Frame.HELLO, Frame.CREDIT]
        sock.close()
    sock = agent.raw()
    chunk = bytes(MAX_DATA)
    for offset in range(0, 8 * WINDOW, MAX_DATA):
        # The pipe takes some, the window holds the rest; more is more than was allowed.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(
                frame(Frame.DATA, struct.pack("<Q", offset) + chunk, number=process.stdin_id)
            )
    assert await asyncio.to_thread(answers, sock)
    sock.close()
    client = await agent.connect()
    await client.call(Op.SIGNAL, messages.Signal(handle=process.handle, signal=9))
    await client.close()


async def test_an_unknown_operation_is_refused_and_the_connection_goes_on(
    agent: RunningAgent,
) -> None:
    sock = agent.raw()
    sock.sendall(request(999, number=5) + request(Op.PING, number=6) + frame(77))
    frames = await asyncio.to_thread(answers, sock)
    assert [(kind, ident, code != 0) for kind, code, ident, _ in frames][1:] == [
        (Frame.REPLY, 5, True),
        (Frame.REPLY, 6, False),
    ]
    sock.close()


async def test_a_daemon_that_does_not_read_costs_little_memory_and_no_life(
    agent: RunningAgent,
) -> None:
    client = await agent.connect()
    for _ in range(20):
        await agent.run(client, "sleep", "60")
    await client.close()
    sock = agent.raw()
    sock.settimeout(1.0)
    list_all = request(Op.LIST)
    with pytest.raises(TimeoutError):
        sock.sendall(list_all * 10_000_000)
    memory = int(Path(f"/proc/{agent.process.pid}/statm").read_text().split()[1]) * 4096
    assert memory < 128 << 20
    client = await agent.connect()
    state: messages.State = await client.call(Op.LIST, messages.Empty())
    assert len(state.processes) == 20
    for process in state.processes:
        await client.call(Op.SIGNAL, messages.Signal(handle=process.handle, signal=9))
    sock.close()
    await client.close()


async def test_credit_for_ever_so_many_unknown_streams_is_bounded(agent: RunningAgent) -> None:
    sock = agent.raw()
    for base in range(1, 20_000, 100):
        sock.sendall(
            b"".join(frame(Frame.CREDIT, pair(0, WINDOW), number=base + n) for n in range(100))
        )
        await asyncio.sleep(0)
    sock.close()
    client = await agent.connect()
    process = await agent.run(client, "echo", "fine")
    assert await collect(process.stdout()) == b"fine\n"
    await client.close()


@pytest.mark.parametrize("seed", range(6))
async def test_random_frames_never_harm_the_agent(agent: RunningAgent, seed: int) -> None:
    rng = random.Random(seed)
    client = await agent.connect()
    process = await agent.run(client, "cat", stdin=True)
    await client.close()
    streams = [process.stdin_id, process.stdout_id, 3, 4, 1 << 31]

    def noise() -> bytes:
        kind = rng.choice([2, 2, 5, 6, 7, 8, rng.randrange(256)])
        payload = rng.choice(
            [
                b"",
                struct.pack("<Q", rng.choice([0, 1, 5, 1 << 40])),
                pair(rng.choice([0, 1, 9]), rng.choice([0, 9, WINDOW])),
                struct.pack("<Q", rng.choice([0, 1])) + rng.randbytes(rng.randrange(1, 50)),
                number(1, rng.choice([0, 1, process.handle])) + number(2, 0),
                field(1, b"c") + field(2, b"/") + number(3, rng.choice(streams)),
                rng.randbytes(rng.randrange(64)),
            ]
        )
        # No POWEROFF, and no signal but 0: those are no noise.
        code = rng.choice([op for op in Op if op is not Op.POWEROFF]) if kind == 2 else 0
        return frame(kind, payload, code=code, number=rng.choice(streams))

    for _ in range(150):
        sock = agent.raw()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(rng.randrange(1, 8)):
                sock.sendall(noise())
        sock.close()
    client = await agent.connect()
    async with asyncio.timeout(BOUND):
        await client.call(Op.PING, messages.Empty())
    await client.close()
