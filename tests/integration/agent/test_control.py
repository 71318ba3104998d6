"""Starts that fail, ends, limits, freezing, counters, removal: what the daemon relies on."""

from __future__ import annotations

import asyncio
import time

import pytest

from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import EventKind, Limits, Op, Stage
from tests.integration.agent.machine import Machine

MiB = 1 << 20


@pytest.mark.parametrize(
    ("argv", "stage", "detail"),
    [
        ("foo", Stage.EXEC_LOOKUP, 'exec: "foo": executable file not found in $PATH'),
        ("/foo", Stage.EXEC_LOOKUP, 'exec: "/foo": stat /foo: no such file or directory'),
        ("/etc/passwd", Stage.EXEC_LOOKUP, 'exec: "/etc/passwd": permission denied'),
        ("/tmp", Stage.EXEC_LOOKUP, 'exec: "/tmp": is a directory'),
        ("plain", Stage.EXEC_LOOKUP, 'exec: "plain": executable file not found in $PATH'),
        ("/script", Stage.EXEC, "exec /script: no such file or directory"),
        ("/noise", Stage.EXEC, "exec /noise: exec format error"),
    ],
)
async def test_a_command_that_cannot_run_is_refused_in_runcs_words(
    guest: Machine, argv: str, stage: Stage, detail: str
) -> None:
    container = guest.container("sleep", "100")
    await guest.start(container)
    for attempt in (guest.run(argv), guest.exec(container, argv)):
        with pytest.raises(AgentFailure) as failure:
            await attempt
        assert (failure.value.stage, failure.value.detail) == (stage, detail)
    state = await guest.client.call(Op.LIST, messages.Empty())
    assert state.containers == (container.id,)
    assert [process.container for process in state.processes] == [container.id]
    await guest.remove(container)


async def test_nothing_is_left_of_a_failed_start(guest: Machine) -> None:
    container = guest.container("foo", root=guest.root(0))
    for _ in range(3):
        with pytest.raises(AgentFailure):
            await guest.start(container)
    ran = await guest.run("sh", "-c", "ls /sys/fs/cgroup/c | grep -c 00000; cat /proc/mounts",
                          namespaces=0x20020000)  # fmt: skip
    assert ran.text.splitlines()[0] == "1"
    again = guest.container("sh", "-c", "exit 7", root=guest.root(0), id=container.id)
    await guest.start(again)
    assert again.process is not None
    assert (await guest.finish(again.process)).code == 7
    await guest.remove(again)


async def test_a_missing_disk_or_layer_is_refused(guest: Machine) -> None:
    block, file = messages.SourceKind.BLOCK, messages.SourceKind.FILE
    missing = messages.Source(kind=file, path="/layers/none")
    for root in (
        messages.Root(layers=(missing,)),
        messages.Root(layers=guest.root().layers, disk=messages.Source(kind=block, path="/dev/no")),
    ):
        with pytest.raises(AgentFailure) as failure:
            await guest.run("true", root=root)
        assert failure.value.stage == Stage.ROOT


async def test_exit_codes_and_signals_are_told(guest: Machine) -> None:
    assert (await guest.run("sh", "-c", "exit 42")).code == 42
    container = guest.container("sleep", "100")
    await guest.start(container)
    assert container.process is not None
    handle = container.process.handle
    await guest.client.call(Op.SIGNAL, messages.Signal(handle=handle, signal=9))
    state = (await guest.finish(container.process)).state
    assert (state.code, state.signal, state.oom, state.init) == (137, 9, False, True)
    await guest.remove(container)


async def test_a_container_ends_with_its_first_process(guest: Machine) -> None:
    container = guest.container("sh", "-c", "sleep 1000 & read x", process={"stdin": 9})
    await guest.start(container)
    longer = guest.process("sleep", "1000")
    await guest.client.call(Op.EXEC, messages.Exec(container=container.id, process=longer))
    stdin = guest.client.open_input(9)
    await stdin.eof()
    assert container.process is not None
    assert (await guest.finish(container.process)).code == 1
    assert (await guest.finish(longer)).code == 137
    with pytest.raises(AgentFailure):
        await guest.exec(container, "true")
    await guest.remove(container)


async def test_the_reaper_forwards_signals_and_collects_orphans(guest: Machine) -> None:
    script = "trap 'exit 9' TERM; (sleep 0.1 & ) ; cat /proc/1/comm; while :; do sleep 0.1; done"
    container = guest.container("sh", "-c", script, init=True)
    await guest.start(container)
    assert container.process is not None
    ran = await guest.exec(container, "ps", "-o", "pid,user,args")
    assert f"1 root     /sbin/docker-init -- sh -c {script}"[:60] in ran.text
    ran = await guest.exec(container, "cat", "/proc/1/cmdline")
    assert ran.out.decode().split("\0") == ["/sbin/docker-init", "--", "sh", "-c", script, ""]
    await asyncio.sleep(0.5)
    ran = await guest.exec(container, "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l")
    assert ran.text == "0"
    handle = container.process.handle
    await guest.client.call(Op.SIGNAL, messages.Signal(handle=handle, signal=15))
    done = await guest.finish(container.process)
    assert done.code == 9
    assert done.text == "docker-init"
    await guest.remove(container)


@pytest.mark.parametrize("init", [False, True])
async def test_no_process_of_a_container_can_look_into_the_reaper(
    guest: Machine, init: bool
) -> None:
    container = guest.container("sleep", "100", init=init)
    await guest.start(container)
    ran = await guest.exec(container, "probe", "ptrace", "1")
    assert ran.text == ("mem: Permission denied" if init else "open")
    await guest.remove(container)


async def test_the_reaper_tells_of_a_command_that_cannot_run(guest: Machine) -> None:
    with pytest.raises(AgentFailure) as failure:
        await guest.run("/script", init=True)
    assert failure.value.stage == Stage.EXEC
    assert (await guest.run("sh", "-c", "kill -9 $$", init=True)).code == 137


async def test_memory_is_limited_and_an_oom_kill_is_told(guest: Machine) -> None:
    ran = await guest.run(
        "sh", "-c", "cat /sys/fs/cgroup/memory.max; tail /dev/zero",
        limits=Limits(memory_max=32 * MiB),
    )  # fmt: skip
    assert ran.out.split() == [str(32 * MiB).encode()]
    assert ran.code == 137 or b"Killed" in ran.err
    assert ran.state.oom
    kinds = [kind for kind, _ in guest.events]
    assert kinds.index(EventKind.OOM) < kinds.index(EventKind.EXIT)
    assert not (await guest.run("true", limits=Limits(memory_max=32 * MiB))).state.oom


async def test_a_container_without_memory_for_its_start_says_so(guest: Machine) -> None:
    with pytest.raises(AgentFailure):
        await guest.run("true", limits=Limits(memory_max=64 << 10))
    assert (await guest.run("true")).code == 0


async def test_pids_and_cpu_are_limited_and_can_be_changed(guest: Machine) -> None:
    limits = Limits(pids_max=5, cpu_weight=50, cpu_quota_us=20000, cpu_period_us=100000)
    container = guest.container("sleep", "100", limits=limits)
    await guest.start(container)
    show = ("cat", *(f"/sys/fs/cgroup/{name}" for name in ("pids.max", "cpu.weight", "cpu.max")))
    assert (await guest.exec(container, *show)).text.split() == ["5", "50", "20000", "100000"]
    fork = await guest.exec(container, "sh", "-c", "for i in 1 2 3 4 5 6; do sleep 1 & done")
    assert b"Resource temporarily unavailable" in fork.err or b"fork" in fork.err
    await guest.client.call(
        Op.UPDATE,
        messages.Update(id=container.id, limits=Limits(pids_max=-1, cpu_quota_us=-1)),
    )
    assert (await guest.exec(container, *show)).text.split() == ["max", "50", "max", "100000"]
    await guest.remove(container)


async def test_a_limit_of_cpu_time_that_the_host_keeps_is_only_shown(guest: Machine) -> None:
    limits = Limits(cpu_quota_us=20000, cpu_period_us=100000, cpu_by_host=True)
    container = guest.container("sleep", "100", limits=limits)
    await guest.start(container)
    show = ("cat", "/sys/fs/cgroup/cpu.max")
    assert (await guest.exec(container, *show)).text == "20000 100000"
    busy = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; cat /sys/fs/cgroup/cpu.stat"
    throttled = (await guest.exec(container, "sh", "-c", busy)).text
    assert "nr_throttled 0\n" in throttled
    kept = Limits(cpu_quota_us=30000, cpu_period_us=100000)
    await guest.client.call(Op.UPDATE, messages.Update(id=container.id, limits=kept))
    assert (await guest.exec(container, *show)).text == "30000 100000"
    assert "nr_throttled 0\n" not in (await guest.exec(container, "sh", "-c", busy)).text
    await guest.remove(container)


async def test_a_frozen_container_stands_still_and_goes_on(guest: Machine) -> None:
    container = guest.container("sh", "-c", "while :; do echo x; sleep 0.01; done")
    await guest.start(container)
    assert container.process is not None
    output = guest.client.open_output(container.process.stdout)
    await anext(output)
    await guest.client.call(Op.FREEZE, messages.Freeze(id=container.id, frozen=True))
    with pytest.raises(AgentFailure) as failure:
        await guest.exec(container, "true")
    assert failure.value.errno == 16
    await asyncio.sleep(0.3)
    output._small.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await anext(output)
    await guest.client.call(Op.FREEZE, messages.Freeze(id=container.id))
    async with asyncio.timeout(5):
        await anext(output)
    await guest.client.call(Op.FREEZE, messages.Freeze(id=container.id, frozen=True))
    await guest.remove(container)


async def test_counters_are_those_of_the_container(guest: Machine) -> None:
    container = guest.container(
        "sh", "-c", "dd if=/dev/zero of=/file bs=1M count=8; sync; i=0;"
        "while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100",
        root=guest.root(0), limits=Limits(memory_max=128 * MiB, pids_max=77),
    )  # fmt: skip
    await guest.start(container)
    ref = messages.ContainerRef(id=container.id)
    bound = time.monotonic() + 10
    while True:
        stats: messages.Stats = await guest.client.call(Op.STATS, ref)
        if stats.write_bytes >= 8 * MiB and stats.cpu_usage_us > 10000:
            break
        assert time.monotonic() < bound, stats
        await asyncio.sleep(0.1)
    assert stats.memory_max == 128 * MiB
    assert stats.pids_max == 77
    assert 8 * MiB < stats.memory_current < 64 * MiB
    assert 1 <= stats.pids_current <= 2
    assert "\nfile " in "\n" + stats.memory_stat
    assert stats.oom_kills == 0
    assert stats.nics == ()
    await guest.remove(container)


async def test_top_shows_the_processes_of_the_container_alone(guest: Machine) -> None:
    container = guest.container("sh", "-c", "sleep 99 & sleep 100; true", process={"user": "user"})
    await guest.start(container)
    ref = messages.ContainerRef(id=container.id)
    bound = time.monotonic() + 10
    while True:
        top: messages.Top = await guest.client.call(Op.TOP, ref)
        if len(top.tasks) == 3 and all("sleep" in task.cmdline for task in top.tasks):
            break
        assert time.monotonic() < bound, top
        await asyncio.sleep(0.05)
    first = min(top.tasks, key=lambda task: task.pid)
    assert (first.user, first.uid, first.comm) == ("user", 1000, "sh")
    assert abs(first.start_ns - time.time_ns()) < 15e9
    assert first.vsz > first.rss > 0
    assert first.threads == 1
    assert first.tty == "?"
    assert {task.ppid for task in top.tasks} >= {first.pid}
    await guest.remove(container)


async def test_a_root_without_a_process_is_mounted_and_taken_away(guest: Machine) -> None:
    ident = "service0"
    request = messages.RootMount(id=ident, root=guest.root(0))
    await guest.client.call(Op.ROOT_MOUNT, request)
    stat = await guest.client.call(
        Op.ARCHIVE_STAT, messages.ArchiveRequest(container=ident, path="/plain")
    )
    assert stat.size == 5
    with pytest.raises(AgentFailure):
        await guest.client.call(Op.ROOT_MOUNT, request)
    await guest.client.call(Op.CONTAINER_REMOVE, messages.ContainerRef(id=ident))
    with pytest.raises(AgentFailure):
        await guest.client.call(Op.CONTAINER_REMOVE, messages.ContainerRef(id=ident))
    assert (await guest.client.call(Op.LIST, messages.Empty())).containers == ()


async def test_an_ended_container_can_be_started_again_on_its_root(guest: Machine) -> None:
    first = guest.container("sh", "-c", "echo 1 >/tmp/count", root=guest.root(0))
    await guest.start(first)
    assert first.process is not None
    await guest.finish(first.process)
    second = guest.container("cat", "/tmp/count", root=guest.root(0), id=first.id)
    await guest.start(second)
    assert second.process is not None
    assert (await guest.finish(second.process)).text == "1"
    await guest.remove(second)


async def test_a_running_container_is_killed_by_its_removal(guest: Machine) -> None:
    container = guest.container("sh", "-c", "trap '' TERM; sleep 1000", root=guest.root(0))
    await guest.start(container)
    await guest.remove(container)
    assert container.process is not None
    assert (await guest.exit(container.process.handle)).code == 137


async def test_unused_blocks_go_back_to_the_host(guest: Machine) -> None:
    container = guest.container(
        "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64; sync; rm /big; sync; sleep 100",
        root=guest.root(0),
    )  # fmt: skip
    await guest.start(container)
    while (await guest.exec(container, "grep", "-q", "sleep", "/proc/1/comm")).code:
        await asyncio.sleep(0.1)
    await guest.client.call(Op.TRIM, messages.ContainerRef(id=container.id), timeout=60)
    assert guest.disk_bytes(0) < 48 * MiB
    await guest.remove(container)


async def test_many_short_processes_end_with_their_codes(guest: Machine) -> None:
    container = guest.container("sleep", "100")
    await guest.start(container)
    runs = [guest.exec(container, "sh", "-c", f"exit {number}") for number in range(20)]
    assert [ran.code for ran in await asyncio.gather(*runs)] == list(range(20))
    await guest.remove(container)


async def test_containers_start_side_by_side(guest: Machine) -> None:
    runs = [guest.run("sh", "-c", f"exit {number}") for number in range(12)]
    assert [ran.code for ran in await asyncio.gather(*runs)] == list(range(12))
    state = await guest.client.call(Op.LIST, messages.Empty())
    assert state == messages.State()


async def test_the_agent_keeps_no_descriptor_of_what_is_over(guest: Machine) -> None:
    async def open_files() -> int:
        # The agent still has what it started this very process with when that begins to run.
        script = "for i in 1 2 3 4 5; do ls /proc/1/fd | wc -l; sleep 0.2; done"
        ran = await guest.run(
            "sh", "-c", script, namespaces=0x00020000, privileged=True,
            process={"cap_effective": -1, "cap_permitted": -1, "cap_bounding": -1},
        )  # fmt: skip
        return min(int(line) for line in ran.text.splitlines())

    await guest.run("true", dns=True)
    before = await open_files()
    assert before > 5
    for _ in range(3):
        with pytest.raises(AgentFailure):
            await guest.run("foo", dns=True, process={"tty": True, "stderr": 0})
        await guest.run("true", dns=True, init=True, process={"stdin": 0})
        container = guest.container("sleep", "9", root=guest.root(0))
        await guest.start(container)
        await guest.exec(container, "true", tty=True, stderr=0)
        with pytest.raises(AgentFailure):
            await guest.exec(container, "foo")
        await guest.client.call(Op.TOP, messages.ContainerRef(id=container.id))
        await guest.client.call(Op.FREEZE, messages.Freeze(id=container.id, frozen=True))
        await guest.remove(container)
        assert container.process is not None
        handle = container.process.handle
        await guest.exit(handle)
        await guest.client.call(Op.RELEASE, messages.ProcessRef(handle=handle))
    assert await open_files() == before


async def test_malformed_messages_end_the_connection_only(guest: Machine) -> None:
    container = guest.container("sleep", "100")
    await guest.start(container)
    with pytest.raises(AgentFailure):
        await guest.client.call(Op.EXEC, messages.Exec(container="none", process=container.process))
    assert (await guest.exec(container, "true")).code == 0
    await guest.remove(container)
