from __future__ import annotations

import asyncio

import pytest

from hyperstack.engine import pause, remove, update
from hyperstack.engine.core import Core
from hyperstack.engine.table import Table
from hyperstack.engine.update import UpdateConfig, rename
from hyperstack.errors import Conflict, HyperError, InternalError, InvalidParameter
from hyperstack.model import (
    Container,
    ContainerState,
    HostConfig,
    RestartPolicy,
    Status,
    WeightDevice,
)
from tests.unit.engine.making import added

MB = 1 << 20


async def changed(core: Core, made: Container, changes: UpdateConfig) -> list[str]:
    """Do what the service does: look at the changes, then apply them."""
    settled, warnings = update.check(changes)
    await update.update(core, made, settled)
    return warnings


async def test_what_is_not_given_stays(core: Core) -> None:
    made = await added(core, host=HostConfig(cpu_shares=5, memory=9 * MB, memory_swap=20 * MB))
    await changed(core, made, UpdateConfig(memory=10 * MB, pids_limit=-1))
    assert (made.host.cpu_shares, made.host.memory, made.host.pids_limit) == (5, 10 * MB, 0)
    again = Table(core.db)
    again.load()
    assert again.get("c").host == made.host


async def test_a_policy_can_be_changed(core: Core) -> None:
    made = await added(core)
    await changed(core, made, UpdateConfig(restart_policy=RestartPolicy(name="always")))
    assert made.host.restart_policy.name == "always"
    await changed(core, made, UpdateConfig(restart_policy=RestartPolicy(), cpu_shares=9))
    assert made.host.restart_policy.name == "always"


@pytest.mark.parametrize(
    ("host", "changes"),
    [
        (HostConfig(), UpdateConfig(memory=MB)),
        (HostConfig(), UpdateConfig(memory=64 * MB)),
        (HostConfig(memory_swap=8 * MB), UpdateConfig(memory=9 * MB)),
        (HostConfig(cpu_quota=9000), UpdateConfig(nano_cpus=10**9)),
        (
            HostConfig(auto_remove=True),
            UpdateConfig(restart_policy=RestartPolicy(name="always")),
        ),
    ],
)
async def test_a_wrong_update_changes_nothing(
    core: Core, host: HostConfig, changes: UpdateConfig
) -> None:
    made = await added(core, host=host)
    with pytest.raises((InvalidParameter, Conflict)):
        await changed(core, made, changes)
    assert made.host == host


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (UpdateConfig(blkio_weight=500), "Block I/O weight or"),
        (UpdateConfig(blkio_weight_device=(WeightDevice(path="/x", weight=5),)), "weight_device"),
        (UpdateConfig(cpu_percent=3), "CPU percent"),
        (UpdateConfig(oom_kill_disable=True), "OomKillDisable"),
        (UpdateConfig(memory_swappiness=50), "swappiness"),
    ],
)
async def test_what_comes_to_nothing_is_warned_of_and_changes_nothing(
    core: Core, changes: UpdateConfig, words: str
) -> None:
    made = await added(core)
    before = made.host
    assert words in "".join(await changed(core, made, changes))
    assert made.host == before


@pytest.mark.parametrize(
    "changes",
    [
        UpdateConfig(memory=MB),
        UpdateConfig(memory=64 * MB, memory_swap=32 * MB),
        UpdateConfig(nano_cpus=10**15),
        UpdateConfig(memory_swappiness=500),
        UpdateConfig(io_maximum_iops=5),
        UpdateConfig(restart_policy=RestartPolicy(name="foo")),
    ],
)
def test_what_is_wrong_by_itself_is_refused_whoever_it_is_for(changes: UpdateConfig) -> None:
    with pytest.raises(InvalidParameter):
        update.check(changes)


async def test_a_container_that_does_not_run_takes_limits_that_only_its_start_could_refuse(
    core: Core,
) -> None:
    made = await added(core, host=HostConfig(memory=10 * MB, memory_swap=20 * MB))
    await changed(core, made, UpdateConfig(memory_swap=5 * MB, memory_reservation=900 * MB))
    assert (made.host.memory_swap, made.host.memory_reservation) == (5 * MB, 900 * MB)


@pytest.mark.parametrize("status", [Status.REMOVING, Status.DEAD])
async def test_what_goes_is_neither_updated_nor_renamed(core: Core, status: Status) -> None:
    made = await added(core, state=ContainerState(status=status))
    with pytest.raises(Conflict, match="marked for removal"):
        await changed(core, made, UpdateConfig(cpu_shares=9))
    with pytest.raises(Conflict, match="marked for removal"):
        await rename(core, made, "other")
    assert made.name == "c"


async def test_a_rename_moves_the_name_and_tells_the_old_one(core: Core) -> None:
    made = await added(core, "old")
    await rename(core, made, "/new")
    assert core.table.get("new") is made
    await added(core, "old")
    event = core.events.past(0)[-1]
    assert (event.action, event.attributes["oldName"]) == ("rename", "/old")


@pytest.mark.parametrize("name", ["", "/", "a b", "-x", "own", "other"])
async def test_a_name_that_can_t_be_is_refused_and_the_old_one_kept(core: Core, name: str) -> None:
    made = await added(core, "own")
    await added(core, "other")
    with pytest.raises(HyperError):
        await rename(core, made, name)
    assert core.table.get("own") is made


async def test_a_rename_beside_a_removal_leaves_the_name_free(core: Core) -> None:
    made = await added(core, "own")
    await asyncio.gather(
        remove.remove(core, made, force=False, volumes=False),
        rename(core, made, "next"),
        return_exceptions=True,
    )
    await added(core, "own")
    await added(core, "next")


async def test_a_removal_leaves_nothing_in_memory(core: Core) -> None:
    made = await added(core, state=ContainerState(status=Status.EXITED, exit_code=4))
    core.hub(made.id)
    core.restart_waits[made.id] = 1.0
    gone = core.waiters.register(made, "removed")
    await remove.remove(core, made, force=False, volumes=True)
    assert (await asyncio.wait_for(gone.result(), 1)).exit_code == 4
    assert [*core.hubs, *core.restart_waits, *core.live, *core.execs, *core.table] == []
    assert not core.container_dir(made.id).exists()
    assert core.events.past(0)[-1].action == "destroy"


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED, Status.RESTARTING])
async def test_what_is_up_is_not_removed_without_force(core: Core, status: Status) -> None:
    made = await added(core, state=ContainerState(status=status))
    with pytest.raises(Conflict, match=r"must be unpaused first|before removing or force remove"):
        await remove.remove(core, made, force=False, volumes=False)
    assert core.container_dir(made.id).exists()
    assert made.state.status == status


async def test_two_removals_at_once_are_one(core: Core) -> None:
    made = await added(core)
    both = [remove.remove(core, made, force=True, volumes=False) for _ in range(2)]
    results = await asyncio.gather(*both, return_exceptions=True)
    assert results[0] is None
    assert results[1] is None or "already in progress" in str(results[1])
    assert [e.action for e in core.events.past(0)].count("destroy") == 1


async def test_a_removal_that_the_database_refuses_leaves_a_dead_container(core: Core) -> None:
    made = await added(core)
    core.closing = True  # its record is not tried again later
    core.db.close()
    with pytest.raises(HyperError, match="could not be removed"):
        await remove.remove(core, made, force=False, volumes=False)
    assert made.state.status == Status.DEAD
    assert core.table.get("c") is made


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.PAUSED, "already paused"),
        (Status.RESTARTING, "restarting"),
        (Status.EXITED, "not running"),
    ],
)
async def test_only_what_runs_is_paused(core: Core, status: Status, words: str) -> None:
    made = await added(core, state=ContainerState(status=status))
    with pytest.raises(Conflict, match=words):
        await pause.pause(core, made)
    if status != Status.PAUSED:
        with pytest.raises(InternalError, match="is not paused"):
            await pause.unpause(core, made)
    assert made.state.status == status
