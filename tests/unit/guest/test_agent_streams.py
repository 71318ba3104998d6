"""Streams of the agent's core against the daemon's real client."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from hyperstack.errors import GuestError
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import WINDOW, Op
from tests.unit.guest.agent import BOUND, RunningAgent, collect


async def test_output_arrives_whole_and_ends(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "seq", "200000")
    data = await collect(process.stdout())
    assert data == b"".join(b"%d\n" % n for n in range(1, 200001))
    assert (await agent.exit_of(process)).code == 0
    await client.close()


async def test_stdout_and_stderr_are_streams_of_their_own(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sh", "-c", "echo out; echo err >&2", stderr=True)
    assert await collect(process.stdout()) == b"out\n"
    assert await collect(process.stderr()) == b"err\n"
    await client.close()


async def test_a_stream_opened_before_its_process_gets_everything(agent: RunningAgent) -> None:
    client = await agent.connect()
    stream = client.open_output(1 * 4 + 2)
    await agent.run(client, "echo", "early")
    assert await collect(stream) == b"early\n"
    await client.close()


async def test_stdin_reaches_the_process_and_its_end_is_the_processs(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sha256sum", stdin=True)
    data = random.Random(1).randbytes(3_000_000)
    stdin = process.stdin()
    await stdin.write(data)
    await stdin.eof()
    assert (await collect(process.stdout())).split()[0] == hashlib.sha256(data).hexdigest().encode()
    await client.close()


async def test_nothing_flows_without_credit_and_the_writer_blocks(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "head", "-c", "4000000", "/dev/zero")
    await asyncio.sleep(0.3)
    assert process.handle not in agent.exits
    assert len(await collect(process.stdout())) == 4_000_000
    assert (await agent.exit_of(process)).code == 0
    await client.close()


async def test_a_consumer_that_takes_nothing_gets_one_window(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "head", "-c", "4000000", "/dev/zero")
    stream, got = process.stdout(), 0
    try:
        async with asyncio.timeout(0.5):
            async for _, data in stream:
                got += len(data)
    except TimeoutError:
        pass
    assert got == WINDOW
    await client.close()


@pytest.mark.parametrize("seed", range(4))
async def test_broken_connections_lose_nothing_and_double_nothing(
    agent: RunningAgent, seed: int
) -> None:
    # The consumer remembers only what it has taken, as a daemon that is killed does.
    rng = random.Random(seed)
    client = await agent.connect()
    process = await agent.run(client, "seq", "600000")
    expected = b"".join(b"%d\n" % n for n in range(1, 600001))
    stored = bytearray()
    connections = 0
    async with asyncio.timeout(BOUND):
        while True:
            stream = process.stdout(client, len(stored))
            left = rng.randrange(1, 400_000)
            try:
                async for offset, data in stream:
                    assert offset == len(stored)
                    kept = data[: rng.randrange(1, len(data) + 1)] if left < len(data) else data
                    stored += kept
                    stream.take(len(stored))
                    left -= len(data)
                    if left <= 0:
                        raise GuestError("cut")
                break
            except GuestError:
                connections += 1
                if rng.random() < 0.5:
                    client._lose(GuestError("cut"))
                client = await agent.connect()
    assert stored == expected
    assert connections > 5
    await client.close()


@pytest.mark.parametrize("seed", range(3))
async def test_stdin_goes_on_after_broken_connections(agent: RunningAgent, seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(2_000_000)
    client = await agent.connect()
    process = await agent.run(client, "sha256sum", stdin=True)
    taken = 0
    while taken < len(data):
        stdin = process.stdin(client, taken)
        await stdin.write(data[taken : taken + rng.randrange(1, 600_000)])
        client._lose(GuestError("cut"))
        client = await agent.connect()
        state: messages.State = await client.call(Op.LIST, messages.Empty())
        (entry,) = [p for p in state.processes if p.handle == process.handle]
        assert entry.stdin_taken >= taken
        taken = entry.stdin_taken
    stdin = process.stdin(client, taken)
    await stdin.eof()
    output = await collect(process.stdout(client))
    assert output.split()[0] == hashlib.sha256(data).hexdigest().encode()
    await client.close()


async def test_what_ended_is_told_again_until_it_is_released(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "echo", "once")
    await agent.exit_of(process)
    assert await collect(process.stdout()) == b"once\n"
    await client.close()
    # The daemon died before it stored that: it asks again, from any offset that it still has.
    client = await agent.connect()
    assert await collect(process.stdout(client, 5)) == b""
    await client.call(Op.RELEASE, messages.ProcessRef(handle=process.handle))
    await client.close()


async def test_bytes_that_were_given_up_or_never_were_are_refused(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sh", "-c", "seq 30000; exec sleep 60")
    first = await collect(process.stdout(), most=100_000)
    await client.call(Op.PING, messages.Empty())
    await client.close()
    for start in (0, len(first) + WINDOW + 1):
        client = await agent.connect()
        with pytest.raises(AgentFailure):
            await collect(process.stdout(client, start))
        await client.close()
    client = await agent.connect()
    await client.call(Op.SIGNAL, messages.Signal(handle=process.handle, signal=9))
    rest = await collect(process.stdout(client, len(first)))
    assert first + rest == b"".join(b"%d\n" % n for n in range(1, 30001))
    await client.close()


async def test_output_that_nobody_wants_lets_the_process_write_on(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "head", "-c", "30000000", "/dev/zero")
    stream = process.stdout()
    async for _ in stream:
        break
    stream.reset()
    assert (await agent.exit_of(process)).code == 0
    await client.close()
    client = await agent.connect()
    with pytest.raises(AgentFailure):
        await collect(process.stdout(client, 0))
    await client.close()


async def test_input_for_a_process_that_reads_no_more_is_dropped(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sh", "-c", "exec <&-; exec sleep 60", stdin=True)
    stdin = process.stdin()
    async with asyncio.timeout(BOUND):
        while not stdin.over:
            await stdin.write(bytes(10_000))
            await asyncio.sleep(0)
    await client.close()
    client = await agent.connect()
    await client.call(Op.PING, messages.Empty())
    assert process.stdin(client, 0).over
    await client.call(Op.SIGNAL, messages.Signal(handle=process.handle, signal=9))
    await client.close()


async def test_a_stalled_stream_holds_back_no_other(agent: RunningAgent) -> None:
    client = await agent.connect()
    stalled = await agent.run(client, "sh", "-c", "exec cat /dev/zero")
    waiting = stalled.stdout()
    other = await agent.run(client, "seq", "100000")
    assert len(await collect(other.stdout())) == 588_895
    waiting.reset()
    await client.call(Op.SIGNAL, messages.Signal(handle=stalled.handle, signal=9))
    assert (await agent.exit_of(stalled)).signal == 9
    await client.close()


async def test_input_waits_for_its_reader_and_frees_others(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sleep", "60", stdin=True)
    stdin = process.stdin()
    writer = asyncio.create_task(stdin.write(bytes(1_000_000)))
    await asyncio.sleep(0.1)
    await client.call(Op.PING, messages.Empty(), timeout=2.0)
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    await client.call(Op.SIGNAL, messages.Signal(handle=process.handle, signal=9))
    await client.close()


async def test_many_processes_at_once_keep_their_output_apart(agent: RunningAgent) -> None:
    client = await agent.connect()
    processes = [await agent.run(client, "sh", "-c", f"seq {n} 20000") for n in range(40)]
    outputs = await asyncio.gather(*(collect(process.stdout()) for process in processes))
    for number, output in enumerate(outputs):
        assert output == b"".join(b"%d\n" % n for n in range(number, 20001))
    await client.close()
