"""Output on its way: pumps over a real stream of the protocol, and what can't be recorded yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hyperstack.engine import live as live_module
from hyperstack.engine import record as record_module
from hyperstack.engine.archive import Tar
from hyperstack.engine.core import Core
from hyperstack.engine.live import Pump, drained
from hyperstack.engine.record import in_any_case, record
from hyperstack.engine.sandbox import Sandbox
from hyperstack.errors import InternalError
from hyperstack.guest.client import AgentClient, OutputStream
from hyperstack.model import ContainerState, Status, StreamKind
from tests.unit.engine.making import added

OUT = StreamKind.STDOUT


class Log:
    """What a pump delivers to."""

    def __init__(self) -> None:
        self.got = b""

    async def deliver(self, kind: StreamKind, offset: int, data: bytes) -> int:
        self.got += data
        return len(self.got)


def stream_of(client: AgentClient, number: int = 6) -> OutputStream:
    return client._outputs[number]


async def test_a_pump_delivers_to_the_end() -> None:
    log, client = Log(), AgentClient()
    pump = Pump(OUT, 6, log.deliver)
    pump.begin(client)
    stream = stream_of(client)
    stream._feed(memoryview(b"one "))
    stream._feed(memoryview(b"two"))
    stream._end()
    assert await asyncio.wait_for(drained([pump]), 5)
    assert log.got == b"one two"
    await pump.stop()


async def test_a_pump_goes_on_over_a_new_connection() -> None:
    log, first, second = Log(), AgentClient(), AgentClient()
    pump = Pump(OUT, 6, log.deliver)
    pump.begin(first)
    stream_of(first)._feed(memoryview(b"one "))
    await asyncio.sleep(0.01)
    await pump.stop()
    assert pump.taken == 4
    pump.begin(second)
    stream_of(second)._feed(memoryview(b"two"))
    stream_of(second)._end()
    assert await asyncio.wait_for(drained([pump]), 5)
    assert log.got == b"one two"
    await pump.stop()


async def test_output_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "DRAIN", 0.1)
    pump = Pump(OUT, 6, Log().deliver)
    pump.begin(AgentClient())
    assert not await asyncio.wait_for(drained([pump]), 5)
    await pump.stop()
    assert await drained([])


async def test_a_cancelled_stop_of_a_pump_stays_cancelled() -> None:
    async def stubborn(kind: StreamKind, offset: int, data: bytes) -> int:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
        return 0

    client = AgentClient()
    pump = Pump(OUT, 6, stubborn)
    pump.begin(client)
    stream_of(client)._feed(memoryview(b"x"))
    await asyncio.sleep(0.01)
    stopping = asyncio.create_task(pump.stop())
    await asyncio.sleep(0.01)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


class Holder:
    """Counts how often its sandbox is given back."""

    def __init__(self) -> None:
        self.given_back = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Sandbox]:
        try:
            yield None  # type: ignore[misc]  # a tar never looks at it
        finally:
            self.given_back += 1


async def tar_of(holder: Holder) -> tuple[Tar, OutputStream]:
    held = holder.hold()
    await held.__aenter__()
    stream = AgentClient().open_output(6)
    return Tar(stream, held), stream


async def test_a_tar_that_nobody_read_gives_its_sandbox_back() -> None:
    holder = Holder()
    tar, _ = await tar_of(holder)
    await tar.aclose()
    await tar.aclose()
    assert holder.given_back == 1
    assert [part async for part in tar] == []


async def test_a_tar_that_was_read_to_its_end_gives_its_sandbox_back() -> None:
    holder = Holder()
    tar, stream = await tar_of(holder)
    stream._feed(memoryview(b"abc"))
    stream._end()
    assert b"".join([part async for part in tar]) == b"abc"
    assert holder.given_back == 1
    await tar.aclose()
    assert holder.given_back == 1


async def test_what_the_database_refuses_is_recorded_later(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "PAUSE", 0.02)
    made = await added(core, state=ContainerState(status=Status.EXITED))
    real, refusals = core.table.save, [InternalError("full"), InternalError("full")]

    async def save(container: object) -> None:
        if refusals:
            raise refusals.pop()
        await real(made)

    monkeypatch.setattr(core.table, "save", save)
    made.state.exit_code = 5
    await record(core, made)
    assert core.unrecorded == {made.id}
    for _ in range(100):
        await asyncio.sleep(0.02)
        if not core.unrecorded:
            break
    assert not core.unrecorded
    assert not refusals


async def test_a_step_that_fails_does_not_keep_an_end_from_going_on() -> None:
    async def fail() -> None:
        raise OSError("no")

    await in_any_case("a step", fail())
