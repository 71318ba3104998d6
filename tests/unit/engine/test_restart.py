from __future__ import annotations

import asyncio

import pytest

from hyperstack.engine import reconcile, restart, start, stop
from hyperstack.engine.core import Core
from hyperstack.errors import Conflict, InvalidParameter, NotModified
from hyperstack.model import ContainerState, HostConfig, RestartPolicy, Status
from tests.unit.engine.making import added, container


def policy(name: str, most: int = 0) -> HostConfig:
    return HostConfig(restart_policy=RestartPolicy(name=name, maximum_retry_count=most))


@pytest.mark.parametrize(
    ("name", "most", "code", "count", "again"),
    [
        ("", 0, 1, 0, False),
        ("no", 0, 1, 0, False),
        ("always", 0, 0, 99, True),
        ("unless-stopped", 0, 0, 0, True),
        ("on-failure", 0, 0, 0, False),
        ("on-failure", 0, 1, 99, True),
        ("on-failure", 2, 1, 1, True),
        ("on-failure", 2, 1, 2, False),
    ],
)
async def test_the_policy_decides(
    core: Core, name: str, most: int, code: int, count: int, again: bool
) -> None:
    state = ContainerState(exit_code=code, restart_count=count)
    made = container(host=policy(name, most), state=state)
    assert restart.wanted(core, made, stopping=False) is again
    assert not restart.wanted(core, made, stopping=True)
    state.manually_stopped = True
    assert not restart.wanted(core, made, stopping=False)


async def test_the_wait_doubles_to_a_minute_and_begins_anew_after_a_steady_run(core: Core) -> None:
    made = await added(core, state=ContainerState(status=Status.RESTARTING))
    waits = []
    for lifetime in (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 60, 0):
        restart.schedule(core, made, lifetime)
        waits.append(core.restart_waits[made.id])
        start.cancel_restart(core, made)
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[10:] == [60.0, 60.0, 0.1, 0.2]


async def test_a_stop_ends_the_wait_of_a_policy(core: Core) -> None:
    made = await added(core, state=ContainerState(status=Status.RESTARTING), host=policy("always"))
    core.restart_waits[made.id] = 30
    restart.schedule(core, made, 0)
    task = core.restarts[made.id]
    waiting = core.waiters.register(made, "not-running")
    await stop.stop(core, made, timeout=None, signal=None)
    await asyncio.wait({task}, timeout=1)
    assert task.cancelled()
    assert not core.restarts
    assert made.state.status == Status.EXITED
    assert made.state.manually_stopped
    assert (await asyncio.wait_for(waiting.result(), 1)).exit_code == 0


async def test_a_container_that_waits_for_its_policy_counts_as_started(core: Core) -> None:
    made = await added(core, state=ContainerState(status=Status.RESTARTING))
    core.restart_waits[made.id] = 30
    restart.schedule(core, made, 0)
    with pytest.raises(NotModified):
        await start.start(core, made)
    assert made.id in core.restarts


async def test_a_policy_whose_start_fails_for_good_ends_the_waits(core: Core) -> None:
    made = await added(
        core, state=ContainerState(status=Status.RESTARTING, exit_code=1, restart_count=1),
        host=policy("on-failure", 2),
    )  # fmt: skip
    waiting = core.waiters.register(made, "not-running")
    restart.schedule(core, made, 60)
    result = await asyncio.wait_for(waiting.result(), 5)
    assert "No such image" in result.error
    assert made.state.status == Status.EXITED
    assert made.state.restart_count == 2


async def test_a_start_that_the_daemon_s_end_interrupts_is_the_next_daemon_s(core: Core) -> None:
    made = await added(core, state=ContainerState(status=Status.RESTARTING), host=policy("always"))
    core.closing = True
    await start._failed(core, made, Conflict("cut short"))
    assert made.state.status == Status.RESTARTING
    reconcile.restart_policies(core)
    assert made.id in core.restarts


@pytest.mark.parametrize(
    ("name", "stopped", "wanted"),
    [
        ("always", True, True),
        ("unless-stopped", True, False),
        ("unless-stopped", False, True),
        ("no", False, False),
        ("on-failure", True, True),
    ],
)
async def test_at_boot_the_user_s_stop_is_remembered(
    core: Core, name: str, stopped: bool, wanted: bool
) -> None:
    state = ContainerState(status=Status.EXITED, manually_stopped=stopped, exit_code=137)
    made = await added(core, host=policy(name), state=state)
    reconcile.restart_policies(core)
    assert (made.id in core.restarts) is wanted


@pytest.mark.parametrize(("code", "count", "again"), [(0, 0, False), (1, 1, True), (1, 2, False)])
async def test_at_boot_a_failure_is_tried_again_while_tries_are_left(
    core: Core, code: int, count: int, again: bool
) -> None:
    state = ContainerState(status=Status.EXITED, exit_code=code, restart_count=count)
    made = await added(core, host=policy("on-failure", 2), state=state)
    reconcile.restart_policies(core)
    assert (made.id in core.restarts) is again


@pytest.mark.parametrize("status", [Status.CREATED, Status.EXITED])
@pytest.mark.parametrize("goes", [True, False])
async def test_at_boot_what_is_to_be_removed_and_does_not_run_goes(
    core: Core, status: Status, goes: bool
) -> None:
    made = await added(core, host=HostConfig(auto_remove=goes), state=ContainerState(status=status))
    await reconcile.reconcile(core)
    assert (core.table.find(made.id) is None) is goes


@pytest.mark.parametrize("status", [Status.PAUSED, Status.REMOVING, Status.DEAD, Status.RUNNING])
async def test_what_can_t_be_started_is_refused(core: Core, status: Status) -> None:
    made = await added(core, state=ContainerState(status=status))
    with pytest.raises((Conflict, NotModified)):
        await start.start(core, made)
    assert made.state.status == status


async def test_a_removed_container_can_t_be_started(core: Core) -> None:
    made = await added(core)
    await core.table.delete(made)
    with pytest.raises(Conflict, match="marked for removal"):
        await start.start(core, made)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("64", 64), ("POLL", 29),
        ("RTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("RTMAX", 64), ("IOT", 6),
    ],
)  # fmt: skip
def test_signals_are_read_by_name_and_number(text: str, number: int) -> None:
    assert stop.signal_number(text) == number


@pytest.mark.parametrize(
    "text", ["", " TERM", "WINGS", "SIG", "RTMIN+31", "RTMAX-31", "_DFL", "²", "0", "9" * 5000]
)
def test_other_signals_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"(?i)invalid signal"):
        stop.signal_number(text)


def test_any_number_but_zero_may_be_a_signal_until_it_is_used() -> None:
    assert [stop.signal_number(text) for text in ("65", "-1", "+9")] == [65, -1, 9]


async def test_what_does_not_run_is_neither_stopped_nor_killed(core: Core) -> None:
    made = await added(core)
    with pytest.raises(NotModified):
        await stop.stop(core, made, timeout=None, signal=None)
    with pytest.raises(Conflict, match="is not running"):
        await stop.kill(core, made, "TERM")
    assert not made.state.manually_stopped
