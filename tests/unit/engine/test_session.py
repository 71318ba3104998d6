from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hyperstack.engine.session import BUFFER, Hub, InputGate, Session
from hyperstack.errors import GuestError
from hyperstack.model import StreamKind

OUT, ERR = StreamKind.STDOUT, StreamKind.STDERR
BOTH = frozenset({OUT, ERR})


class Sink:
    """A process's stdin that remembers."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = False

    async def write(self, data: bytes) -> None:
        self.got += data

    async def eof(self) -> None:
        self.ended = True


def session(gate: InputGate | None = None, *, tty: bool = False, end: bool = True) -> Session:
    return Session(tty=tty, kinds=BOTH, gate=gate, end_input=end)


async def everything(one: Session) -> list[tuple[StreamKind, bytes]]:
    return [item async for item in one.output()]


async def test_output_comes_in_order_to_its_end() -> None:
    one = session()
    await one.feed(OUT, b"a")
    await one.feed(ERR, b"b")
    one.end()
    await one.feed(OUT, b"late")
    assert await everything(one) == [(OUT, b"a"), (ERR, b"b")]


async def test_a_client_gets_only_the_streams_that_it_wants() -> None:
    one = Session(tty=False, kinds=frozenset({ERR}), gate=None)
    await one.feed(OUT, b"a")
    await one.feed(ERR, b"b")
    one.end()
    assert await everything(one) == [(ERR, b"b")]


async def test_a_slow_client_holds_the_process_back_until_it_reads() -> None:
    one = session()
    feeding = asyncio.create_task(one.feed(OUT, b"x" * BUFFER))
    await asyncio.sleep(0.01)
    assert not feeding.done()
    assert (await anext(aiter(one.output())))[1] == b"x" * BUFFER
    await asyncio.wait_for(feeding, 1)


async def test_a_client_that_leaves_holds_nobody_back() -> None:
    one = session()
    feeding = asyncio.create_task(one.feed(OUT, b"x" * BUFFER))
    await asyncio.sleep(0)
    one.close()
    await asyncio.wait_for(feeding, 1)
    assert one.gone
    assert await everything(one) == []


async def test_what_was_logged_comes_before_what_comes_now() -> None:
    async def past() -> AsyncIterator[tuple[StreamKind, bytes]]:
        yield OUT, b"1"
        yield OUT, b"2"

    one = session()
    await one.feed(OUT, b"3")
    one.prepend(past())
    one.end()
    assert [data for _, data in await everything(one)] == [b"1", b"2", b"3"]


async def test_input_waits_for_the_start() -> None:
    gate, sink = InputGate(), Sink()
    one = session(gate)
    writing = asyncio.create_task(one.write(b"hello"))
    await asyncio.sleep(0.01)
    assert not writing.done()
    gate.open(sink)
    await asyncio.wait_for(writing, 1)
    assert sink.got == b"hello"


async def test_input_after_the_end_is_dropped() -> None:
    gate, sink = InputGate(), Sink()
    gate.open(sink)
    gate.shut()
    await asyncio.wait_for(session(gate).write(b"hello"), 1)
    assert sink.got == b""


async def test_the_end_of_input_comes_after_what_was_written_before_the_start() -> None:
    gate, sink = InputGate(), Sink()
    one = session(gate)
    order = asyncio.gather(one.write(b"a"), one.write(b"b"), one.close_input())
    await asyncio.sleep(0)
    gate.open(sink)
    await asyncio.wait_for(order, 1)
    assert (sink.got, sink.ended) == (b"ab", True)


async def test_a_half_closed_client_still_gets_output_if_stdin_was_its_own() -> None:
    gate, sink = InputGate(), Sink()
    gate.open(sink)
    one = session(gate)
    await one.close_input()
    await one.feed(OUT, b"still")
    one.end()
    assert sink.ended
    assert await everything(one) == [(OUT, b"still")]


async def test_a_half_closed_client_of_a_shared_stdin_has_left() -> None:
    gate, sink = InputGate(), Sink()
    gate.open(sink)
    one = session(gate, end=False)
    await one.close_input()
    assert not sink.ended
    assert one.gone


async def test_a_terminal_is_not_ended_by_one_of_its_clients() -> None:
    gate, sink = InputGate(), Sink()
    gate.open(sink)
    one = session(gate, tty=True)
    one.close()
    await asyncio.sleep(0.01)
    assert not sink.ended


async def test_a_client_that_dies_takes_its_own_stdin_along() -> None:
    gate, sink = InputGate(), Sink()
    gate.open(sink)
    session(gate).close()
    await asyncio.sleep(0.01)
    assert sink.ended


async def test_a_hub_feeds_all_and_is_ready_for_the_next_start() -> None:
    hub = Hub()
    one, two = (hub.attach(tty=False, kinds=BOTH, stdin=True, end_input=True) for _ in "ab")
    await hub.feed(OUT, b"x")
    before = hub.gate
    hub.finish()
    assert await everything(one) == await everything(two) == [(OUT, b"x")]
    assert not hub.sessions
    assert hub.gate is not before
    await asyncio.wait_for(one.write(b"dropped"), 1)


async def test_clients_that_left_a_silent_container_are_not_kept() -> None:
    hub = Hub()
    for _ in range(100):
        hub.attach(tty=False, kinds=BOTH, stdin=False, end_input=True).close()
    assert len(hub.sessions) == 1


class LostSink(Sink):
    """A connection that is lost with the end of input on its way."""

    async def eof(self) -> None:
        raise GuestError("the connection to the agent was lost")


async def test_an_end_of_input_that_was_lost_with_its_connection_is_said_again() -> None:
    gate, lost, again = InputGate(), LostSink(), Sink()
    gate.open(lost)
    with pytest.raises(GuestError):
        await session(gate).close_input()
    gate.open(again)
    await asyncio.sleep(0.01)
    assert again.ended
    await asyncio.wait_for(session(gate).write(b"late"), 1)
    assert again.got == b""
