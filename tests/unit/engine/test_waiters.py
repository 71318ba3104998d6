from __future__ import annotations

import asyncio

import pytest

from hyperstack.engine.waiters import Waiters
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerState, Status, WaitResult
from tests.unit.engine.making import container


def up(status: Status = Status.RUNNING) -> ContainerState:
    return ContainerState(status=status)


async def test_who_waits_for_a_container_that_does_not_run_is_answered_at_once() -> None:
    made = container(state=ContainerState(status=Status.EXITED, exit_code=3, error="why"))
    wait = Waiters().register(made, "")
    assert await wait.result() == WaitResult(exit_code=3, error="why")


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED, Status.RESTARTING])
async def test_who_waits_for_one_that_is_up_is_answered_at_its_end(status: Status) -> None:
    waiters, made = Waiters(), container(state=up(status))
    wait = waiters.register(made, "not-running")
    made.state.status, made.state.exit_code = Status.EXITED, 9
    waiters.exited(made)
    assert (await wait.result()).exit_code == 9


async def test_an_exit_before_a_restart_ends_only_next_exit() -> None:
    waiters, made = Waiters(), container(state=up())
    stopped = waiters.register(made, "not-running")
    ended = waiters.register(made, "next-exit")
    made.state.status = Status.RESTARTING
    waiters.exited(made)
    assert (await ended.result()).exit_code == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stopped.result(), 0.01)


async def test_a_removal_ends_every_wait_and_leaves_none() -> None:
    waiters, made = Waiters(), container(state=up())
    waits = [waiters.register(made, c) for c in ("not-running", "next-exit", "removed")]
    waiters.removed(made)
    assert [(await wait.result()).exit_code for wait in waits] == [0, 0, 0]
    assert not waiters._waits


async def test_a_removal_that_failed_is_told_to_those_who_wait_for_it() -> None:
    waiters, made = Waiters(), container()
    wait = waiters.register(made, "removed")
    waiters.not_removed(made, "disk on fire")
    assert (await wait.result()).error == "disk on fire"


async def test_a_waiter_that_left_is_forgotten() -> None:
    waiters, made = Waiters(), container(state=up())
    waiters.register(made, "removed").cancel()
    await asyncio.sleep(0)
    assert not any(waiters._waits.values())


async def test_a_waiter_that_is_cancelled_does_not_take_the_condition_along() -> None:
    waiters, made = Waiters(), container(state=up())
    wait = waiters.register(made, "removed")
    first = asyncio.create_task(wait.result())
    await asyncio.sleep(0)
    first.cancel()
    waiters.removed(made)
    assert (await wait.result()).exit_code == 0


async def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(InvalidParameter, match='invalid condition: "soon"'):
        Waiters().register(container(), "soon")
