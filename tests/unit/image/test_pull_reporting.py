"""How progress flows from the tasks of a pull or push to its one reader."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from hyperstack.config import Config
from hyperstack.errors import NotFound
from hyperstack.image import reporting
from hyperstack.image.reporting import Reporter, reported, together
from hyperstack.image.transfers import Transfers


async def test_states_come_in_order_and_the_error_last() -> None:
    async def work(reporter: Reporter) -> None:
        reporter.say("one", "a")
        await asyncio.sleep(0)
        reporter.say("two")
        raise NotFound("three")

    found: list[str] = []

    async def read() -> None:
        async for line in reported("x", work):
            found.append(line.status)

    with pytest.raises(NotFound, match="three"):
        await read()
    assert found == ["one", "two"]


async def test_an_error_before_anything_was_said_comes_first() -> None:
    async def work(reporter: Reporter) -> None:
        raise NotFound("no")

    with pytest.raises(NotFound, match="no"):
        await anext(reported("x", work))


async def test_closing_the_reader_ends_the_work_before_it_returns() -> None:
    ended = asyncio.Event()

    async def work(reporter: Reporter) -> None:
        try:
            reporter.say("begun")
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.set()

    async with contextlib.aclosing(reported("x", work)) as lines:
        await anext(lines)
    assert ended.is_set()


async def test_a_reader_that_is_cancelled_ends_the_work_and_stays_cancelled() -> None:
    ended = asyncio.Event()

    async def work(reporter: Reporter) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def read() -> None:
        async with contextlib.aclosing(reported("x", work)) as lines:
            async for _ in lines:
                pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_slow_reader_loses_bars_but_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "INTERVAL", 0.0)

    async def work(reporter: Reporter) -> None:
        for number in range(10_000):
            reporter.bar("Downloading", f"l{number % 7}", number, 10_001)
            if number % 100 == 0:
                reporter.say("state", str(number))

    lines = reported("x", work)
    first = await anext(lines)
    rest = [first, *[line async for line in lines]]
    assert [line.id for line in rest if line.status == "state"] == [
        str(n) for n in range(0, 10_000, 100)
    ]
    assert len(rest) < 500


async def test_bars_of_one_thing_come_no_faster_than_the_interval_and_the_last_one_always() -> None:
    async def work(reporter: Reporter) -> None:
        for number in range(1, 1001):
            reporter.bar("Downloading", "a", number, 1000)

    bars = [line.current async for line in reported("x", work)]
    assert bars == [1, 1000]


async def test_the_first_error_of_many_tasks_is_raised_alone_and_ends_the_others() -> None:
    ended: list[str] = []

    async def sleeper() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("sleeper")

    async def failing() -> None:
        raise NotFound("one")

    with pytest.raises(NotFound, match="one"):
        await together((sleeper(), failing()))
    assert ended == ["sleeper"]


async def test_no_more_than_the_configured_number_is_on_its_way_and_the_others_say_so() -> None:
    transfers, reporter = Transfers(Config(max_concurrent_downloads=2)), Reporter()
    running = most = 0

    async def one(id: str) -> None:
        nonlocal running, most
        async with transfers.download(reporter, id):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

    await together(one(str(n)) for n in range(6))
    reporter.end()
    waiting = [(x.id, x.status) async for x in reporter.lines()]
    assert most == 2
    assert waiting == [(str(n), "Waiting") for n in range(2, 6)]
