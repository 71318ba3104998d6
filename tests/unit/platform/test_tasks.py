from __future__ import annotations

import asyncio
import logging

import pytest

from hyperstack.platform.tasks import Tasks


async def test_a_failure_is_logged_under_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    async def bad() -> None:
        raise ValueError("no")

    tasks = Tasks()
    with pytest.raises(ValueError, match="no"):
        await tasks.start("broken", bad())
    await asyncio.sleep(0)
    assert "background task 'broken' failed: no" in caplog.text
    await tasks.aclose()


async def test_closing_cancels_all_and_what_comes_later(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    tasks = Tasks()
    first = tasks.start("sleeper", asyncio.sleep(100))
    await asyncio.sleep(0)
    await tasks.aclose()
    later = tasks.start("late", asyncio.sleep(100))
    with pytest.raises(asyncio.CancelledError):
        await later
    assert first.cancelled()
    assert caplog.text == ""


async def test_a_task_may_close_the_set_it_lives_in() -> None:
    tasks = Tasks()
    other = tasks.start("other", asyncio.sleep(100))
    await asyncio.wait_for(tasks.start("closer", tasks.aclose()), 5)
    assert other.cancelled()


async def test_what_is_seen_through_ends_before_its_cancelled_caller_goes_on() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.1)
        done.set()

    tasks = Tasks()
    caller = asyncio.create_task(tasks.see_through("work", work()))
    for _ in range(3):
        await asyncio.sleep(0.01)
        caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()
    await tasks.aclose()


async def test_what_is_seen_through_gives_its_result_or_its_failure() -> None:
    async def work(fails: bool) -> int:
        if fails:
            raise ValueError("no")
        return 3

    tasks = Tasks()
    assert await tasks.see_through("work", work(False)) == 3
    with pytest.raises(ValueError, match="no"):
        await tasks.see_through("work", work(True))
    await tasks.aclose()
