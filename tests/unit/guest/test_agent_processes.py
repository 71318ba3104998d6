"""Processes of the agent's core: ends, signals, terminals, what is remembered until RELEASE."""

from __future__ import annotations

import asyncio
import errno
import time

import pytest

from hyperstack.errors import GuestError
from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient, AgentFailure
from hyperstack.guest.messages import EventKind, Op
from tests.unit.guest.agent import BOUND, RunningAgent, Started, collect


async def refused(client: AgentClient, op: Op, message: object) -> int:
    with pytest.raises(AgentFailure) as caught:
        await client.call(op, message)
    return caught.value.errno


async def signal(process: Started, number: int) -> None:
    await process.client.call(Op.SIGNAL, messages.Signal(handle=process.handle, signal=number))


async def test_an_exit_code_is_told(agent: RunningAgent) -> None:
    client = await agent.connect()
    before = time.time_ns()
    process = await agent.run(client, "sh", "-c", "exit 42")
    state = await agent.exit_of(process)
    assert (state.code, state.signal, state.running) == (42, 0, False)
    assert before <= state.started_ns <= state.finished_ns <= time.time_ns()
    assert (state.stdout, state.container, state.init) == (process.stdout_id, "c", False)
    await client.close()


async def test_a_signal_ends_a_process_with_128_and_its_number(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sleep", "60")
    await signal(process, 15)
    state = await agent.exit_of(process)
    assert (state.code, state.signal) == (143, 15)
    assert (
        await refused(client, Op.SIGNAL, messages.Signal(handle=process.handle, signal=15))
        == errno.ESRCH
    )
    await client.close()


async def test_the_first_process_ends_after_its_container(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "true", init=True)
    state = await agent.exit_of(process)
    assert state.init
    assert not state.running
    await client.close()


async def test_a_missed_exit_is_in_the_list_until_release(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sh", "-c", "sleep 0.1; exit 5")
    await client.close()
    await asyncio.sleep(0.3)
    client = await agent.connect()
    state: messages.State = await client.call(Op.LIST, messages.Empty())
    (entry,) = state.processes
    assert (entry.handle, entry.code, entry.running) == (process.handle, 5, False)
    assert state.containers == ("c",)
    reference = messages.ProcessRef(handle=process.handle)
    await client.call(Op.RELEASE, reference)
    state = await client.call(Op.LIST, messages.Empty())
    assert state.processes == ()
    assert await refused(client, Op.RELEASE, reference) == errno.ESRCH
    await client.close()


async def test_a_running_process_is_not_released(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sleep", "60")
    reference = messages.ProcessRef(handle=process.handle)
    assert await refused(client, Op.RELEASE, reference) == errno.EBUSY
    await signal(process, 9)
    await agent.exit_of(process)
    await client.call(Op.RELEASE, reference)
    await client.close()


async def test_a_handle_or_stream_in_use_is_refused(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sleep", "60")
    for handle, stdout in ((process.handle, 999), (77, process.stdout_id), (0, 998)):
        again = messages.Process(handle=handle, argv=("true",), stdout=stdout)
        request = messages.Exec(container="c", process=again)
        assert await refused(client, Op.EXEC, request) == errno.EEXIST
    fresh = messages.Process(handle=78, argv=("true",), stdout=999, stderr=998)
    await client.call(Op.EXEC, messages.Exec(container="c", process=fresh))
    await signal(process, 9)
    await client.close()


async def test_a_program_that_is_not_there_ends_its_process(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "/no/such/program")
    assert (await agent.exit_of(process)).code == 127
    assert await collect(process.stdout()) == b""
    await client.close()


async def test_a_process_that_ends_at_once_is_never_missed(agent: RunningAgent) -> None:
    client = await agent.connect()
    processes = [await agent.run(client, "true", stdout=False) for _ in range(60)]
    for process in processes:
        assert (await agent.exit_of(process)).code == 0
    await client.close()


async def test_requests_are_answered_out_of_turn(agent: RunningAgent) -> None:
    client = await agent.connect()
    slow = asyncio.create_task(client.call(Op.TRIM, messages.ContainerRef(id="c")))
    await asyncio.sleep(0)
    await client.call(Op.PING, messages.Empty())
    assert not slow.done()
    await slow
    await client.close()


async def test_an_answer_for_an_old_connection_is_not_given_to_the_new_one(
    agent: RunningAgent,
) -> None:
    client = await agent.connect()
    slow = asyncio.create_task(client.call(Op.TRIM, messages.ContainerRef(id="c")))
    await asyncio.sleep(0)
    fresh = await agent.connect()
    with pytest.raises(GuestError):
        await slow
    # A stray reply would be a breach of the protocol, which ends the client.
    await asyncio.sleep(0.1)
    await fresh.call(Op.PING, messages.Empty())
    await fresh.close()


async def test_a_new_connection_replaces_the_old(agent: RunningAgent) -> None:
    first = await agent.connect()
    second = await agent.connect()
    async with asyncio.timeout(BOUND):
        await first.wait_closed()
    assert second.boot_nonce == first.boot_nonce
    await second.call(Op.PING, messages.Empty())
    await second.close()


async def test_an_event_brings_a_message(agent: RunningAgent) -> None:
    client = await agent.connect()
    answer = messages.Dns(container="c", query=9, message=b"\1" * 60_000)
    await client.call(Op.DNS_ANSWER, answer)
    async with asyncio.timeout(BOUND):
        while not agent.events:
            await asyncio.sleep(0.005)
    ((kind, message),) = agent.events
    assert kind is EventKind.DNS_QUERY
    assert b"\1" * 60_000 in message.message
    await client.close()


# Terminals


async def test_a_terminal_carries_both_ways_and_ends_with_the_process(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(
        client, "sh", "-c", "stty -echo; echo ready; read x; echo got $x", stdin=True, tty=True
    )
    stdin, stdout = process.stdin(), process.stdout()
    output = await collect(stdout, most=7)
    await stdin.write(b"word\n")
    output += await collect(stdout)
    assert output == b"ready\r\ngot word\r\n"
    assert (await agent.exit_of(process)).code == 0
    await client.close()


async def test_a_terminal_ends_with_its_process_though_others_hold_it(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "sh", "-c", "trap '' HUP; sleep 2 & seq 50000", tty=True)
    began = time.monotonic()
    output = await collect(process.stdout())
    assert time.monotonic() - began < 1.9
    assert output == b"".join(b"%d\r\n" % n for n in range(1, 50001))
    await client.close()


async def test_a_terminal_is_resized(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(
        client, "sh", "-c", "stty -echo; echo ready; read x; stty size", stdin=True, tty=True
    )
    stdout = process.stdout()
    await collect(stdout, most=7)
    await client.call(Op.RESIZE, messages.Resize(handle=process.handle, rows=33, columns=101))
    await process.stdin().write(b"\n")
    assert await collect(stdout) == b"33 101\r\n"
    plain = await agent.run(client, "sleep", "60")
    size = messages.Resize(handle=plain.handle, rows=1, columns=1)
    assert await refused(client, Op.RESIZE, size) == errno.ENOTTY
    await signal(plain, 9)
    await client.close()


async def test_much_input_goes_through_a_terminal(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(
        client,
        "sh",
        "-c",
        "stty raw -echo; echo ready; head -c 500000 | wc -c",
        stdin=True,
        tty=True,
    )
    stdin, stdout = process.stdin(), process.stdout()
    await collect(stdout, most=6)
    async with asyncio.timeout(BOUND):
        await stdin.write(b"x" * 500_000)
    assert (await collect(stdout)).strip() == b"500000"
    await client.close()


async def test_a_terminal_that_nobody_watches_does_not_block(agent: RunningAgent) -> None:
    client = await agent.connect()
    process = await agent.run(client, "seq", "100000", tty=True, stdout=False)
    assert (await agent.exit_of(process)).code == 0
    await client.close()
