"""Containers that join others: one machine, network, processes, shared memory together."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host, running_host
from tests.framework.trouble import eventually, inspect, load_busybox, reboot, state

SLEEP = ("busybox", "sleep", "1000")
ADDRESS = "ip -4 -o addr show eth0 2>/dev/null | wc -l"


def run(host: Host, name: str, *words: str) -> str:
    """Start a container that sleeps, unless *words* end with another image and command."""
    command = () if "busybox" in words else SLEEP
    return host.docker("run", "-d", "--name", name, *words, *command).out.strip()


def sh(host: Host, name: str, script: str) -> str:
    """Run a script in a container and return what it prints."""
    return host.docker("exec", name, "sh", "-c", script).out.strip()


def machine(host: Host, name: str) -> int:
    """Return the pid of a container's VMM."""
    return int(state(host, name)["Pid"])


def test_a_joined_network_is_the_same_with_its_names_files_and_dns(host: Host) -> None:
    host.docker("network", "create", "joined")
    try:
        owner = run(host, "owner", "--network", "joined", "--hostname", "boss",
                    "busybox", "nc", "-ll", "-p", "80", "-e", "cat")  # fmt: skip
        run(host, "guest", "--network", "container:owner")
        run(host, "chain", "--network", f"container:{owner[:12]}")
        run(host, "far", "--network", "joined", "--network-alias", "pal")
        assert machine(host, "guest") == machine(host, "chain") == machine(host, "owner")
        assert sh(host, "guest", "echo hi | nc 127.0.0.1 80") == "hi"
        assert sh(host, "guest", "hostname; echo $HOSTNAME").split() == ["boss", "boss"]
        assert "1 packets received" in sh(host, "chain", "ping -c 1 pal")
        sh(host, "guest", "echo 192.0.2.1 added >> /etc/hosts")
        assert "192.0.2.1 added" in sh(host, "owner", "cat /etc/hosts")
        found = inspect(host, "guest")
        assert found["HostConfig"]["NetworkMode"] == f"container:{owner}"
        assert found["Config"]["Hostname"] == "boss"
        assert found["NetworkSettings"]["Networks"] == {}
        assert found["NetworkSettings"]["SandboxID"] == ""
        host.docker("network", "connect", "bridge", "owner")
        assert sh(host, "guest", "ip -4 -o addr show eth1 | wc -l") == "1"
        host.docker("network", "disconnect", "joined", "owner")
        assert sh(host, "guest", ADDRESS) == "0"
    finally:
        host.remove_everything()
        host.docker("network", "rm", "joined")


def test_each_of_them_is_a_container_of_its_own(host: Host, tmp_path: Path) -> None:
    """Logs, exec, cp, diff, pause, limits, stats, top, health, wait, exit codes."""
    run(host, "owner")
    run(host, "guest", "--network", "container:owner", "-m", "64m", "--cpus", "0.5",
        "--health-cmd", "true", "--health-interval", "1s", "--stop-signal", "TERM", "busybox",
        "sh", "-c", 'trap "exit 7" TERM; echo mine; while :; do sleep 0.1; done')  # fmt: skip
    eventually(lambda: host.docker("logs", "guest").out == "mine\n")
    limits = sh(host, "guest", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max")
    assert limits.split() == [str(64 << 20), "50000", "100000"]
    sh(host, "guest", "echo text > /file")
    host.docker("cp", "guest:/file", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "text\n"
    assert host.docker("diff", "guest").out == "A /file\n"
    assert host.docker("diff", "owner").out == ""
    eventually(lambda: bool(state(host, "guest")["Health"]["Status"] == "healthy"))
    host.docker("pause", "guest")
    assert sh(host, "owner", "echo lives") == "lives"
    assert "is paused" in host.docker("exec", "guest", "true", check=False).err
    host.docker("unpause", "guest")
    assert len(host.docker("top", "owner").out.splitlines()) == 2
    assert "64MiB" in host.docker("stats", "--no-stream", "guest").out
    host.docker("update", "--cpus", "0.25", "guest")
    assert sh(host, "guest", "cat /sys/fs/cgroup/cpu.max") == "25000 100000"
    host.docker("stop", "guest")
    assert host.docker("wait", "guest").out == "7\n"
    assert sh(host, "owner", "cat /sys/fs/cgroup/cpu.max") == "max 100000"
    host.docker("start", "guest")
    assert sh(host, "guest", "cat /file") == "text"
    assert machine(host, "guest") == machine(host, "owner")


def test_processes_and_shared_memory_are_joined_and_end_with_their_owner(host: Host) -> None:
    run(host, "owner", "--ipc", "shareable")
    run(host, "private")
    run(host, "pids", "--pid", "container:owner")
    run(host, "shm", "--ipc", "container:owner")
    sh(host, "owner", "echo shared > /dev/shm/x")
    assert sh(host, "shm", "cat /dev/shm/x") == "shared"
    assert sh(host, "pids", "ps | grep -c 'sleep 100[0]'") == "2"
    assert sh(host, "pids", "hostname") == inspect(host, "pids")["Id"][:12]
    assert sh(host, "pids", ADDRESS) == "1"  # of its own, by a card that was hot-plugged
    refused = host.docker("run", "--rm", "--ipc", "container:private", *SLEEP, check=False)
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in refused.err
    assert host.docker(
        "run", "--rm", "--ipc", "none", "busybox", "ls", "/dev/shm", check=False
    ).code
    host.docker("kill", "owner")
    eventually(lambda: bool(state(host, "pids")["Status"] == "exited"))
    assert state(host, "pids")["ExitCode"] == 137
    assert sh(host, "shm", "cat /dev/shm/x") == "shared"
    refused = host.docker("start", "pids", check=False)
    owner = inspect(host, "owner")["Id"]
    assert f"failed to join PID namespace: container {owner} is not running" in refused.err


def test_who_joined_lives_on_without_a_network_when_its_owner_ends(host: Host) -> None:
    run(host, "owner")
    run(host, "guest", "--network", "container:owner")
    old = machine(host, "owner")
    host.docker("restart", "-t", "0", "owner")
    assert machine(host, "owner") != old == machine(host, "guest")
    assert (sh(host, "owner", ADDRESS), sh(host, "guest", ADDRESS)) == ("1", "0")
    host.docker("restart", "-t", "0", "guest")
    assert machine(host, "owner") == machine(host, "guest")
    assert sh(host, "guest", ADDRESS) == "1"
    host.docker("rm", "-f", "owner")
    assert sh(host, "guest", "echo lives") == "lives"
    refused = host.docker("restart", "-t", "0", "guest", check=False)
    assert "joining network namespace of container: No such container: " in refused.err
    assert state(host, "guest")["Status"] == "exited"


def test_volumes_and_binds_come_into_a_share_that_is_served(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    run(host, "owner", "-v", "joined-data:/data")
    try:
        run(host, "guest", "--network", "container:owner", "-v", f"{tmp_path}:/bind",
            "-v", f"{tmp_path}:/ro:ro", "-v", f"{tmp_path}/file:/one")  # fmt: skip
        run(host, "third", "--pid", "container:owner", "--volumes-from", "owner")
        assert sh(host, "guest", "cat /bind/file /one").split("\n") == ["from the host"] * 2
        sh(host, "guest", "echo back > /bind/back; chown 5:6 /bind/back")
        assert (tmp_path / "back").read_text() == "back\n"
        assert (tmp_path / "back").stat().st_uid == 5
        assert "Read-only" in host.docker("exec", "guest", "touch", "/ro/x", check=False).err
        sh(host, "third", "echo seen > /data/x")
        assert sh(host, "owner", "cat /data/x") == "seen"
        host.docker("restart", "-t", "0", "guest")
        assert sh(host, "guest", "cat /one") == "from the host"
        host.docker("rm", "-f", "owner")
        assert sh(host, "guest", "cat /one") == "from the host"
    finally:
        host.remove_everything()
        host.docker("volume", "rm", "joined-data")


def test_a_machine_without_a_share_gets_one_with_the_first_that_needs_it(
    host: Host, tmp_path: Path
) -> None:
    run(host, "owner")
    bind = ("--network", "container:owner", "-v", f"{tmp_path}:/bind")
    for name in ("one", "two"):
        run(host, name, *bind)
        sh(host, name, f"echo {name} > /bind/{name}")
        assert (tmp_path / name).read_text() == f"{name}\n"
    assert sh(host, "one", "cat /bind/two") == "two"
    host.docker("rm", "-f", "owner", "one")
    assert sh(host, "two", "cat /bind/one") == "one"


def test_whom_a_program_can_t_start_leaves_the_others_in_peace(host: Host) -> None:
    run(host, "owner")
    for _ in range(17):  # more often than a machine has disks
        refused = host.docker("run", "--rm", "--network", "container:owner", "busybox", "/none",
                              check=False)  # fmt: skip
        assert refused.code == 127
    assert host.docker("run", "--rm", "--network", "container:owner", "--pid", "container:owner",
                       "busybox", "sh", "-c", "ps -o args | grep -c ^sl").out == "1\n"  # fmt: skip
    run(host, "stranger")
    refused = host.docker("run", "--rm", "--network", "container:owner", "--pid",
                          "container:stranger", "busybox", "true", check=False)  # fmt: skip
    assert "can join several others only if they share a virtual machine" in refused.err


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3])
def test_an_owner_may_be_removed_while_others_move_in(
    host: Host, tmp_path: Path, delay: float
) -> None:
    run(host, "owner")
    names = ("net", "pid")
    for name, mode in zip(names, ("--network", "--pid"), strict=True):
        host.docker("create", "--name", name, mode, "container:owner", "-v", f"{tmp_path}:/b",
                    *SLEEP)  # fmt: skip
    starts = [
        subprocess.Popen([DOCKER, "-H", host.url, "start", name], stderr=subprocess.DEVNULL)
        for name in names
    ]
    time.sleep(delay)
    host.docker("rm", "-f", "owner")
    started = [process.wait(60) == 0 for process in starts]
    if started[1]:  # its processes were in a namespace that has ended
        eventually(lambda: state(host, "pid")["Status"] == "exited")
    assert state(host, "net")["Running"] == started[0]
    if started[0]:
        assert sh(host, "net", "touch /b/x; echo lives") == "lives"
    host.docker("rm", "-f", *names)
    eventually(lambda: not list((host.data_root / "sandboxes").iterdir()))


@pytest.fixture
def own(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    """A daemon for one test, which may lose it."""
    with running_host(tmp_path / "h", worker_number + 30) as host:
        load_busybox(host)
        yield host


def test_all_of_a_sandbox_are_found_again_end_with_their_machine_and_start_in_turn(
    own: Host,
) -> None:
    run(own, "owner", "-v", "data:/data", "--ipc", "shareable")
    run(own, "guest", "--network", "container:owner", "-v", "data:/d", "busybox",
        "sh", "-c", "while :; do echo x; sleep 0.1; done")  # fmt: skip
    run(own, "pids", "--pid", "container:owner", "--ipc", "container:owner")
    own.kill()
    own.start()
    assert len(own.docker("ps", "-q").out.split()) == 3
    lines = own.docker("logs", "guest").out
    eventually(lambda: len(own.docker("logs", "guest").out) > len(lines))
    run(own, "late", "--network", "container:owner", "-v", "data:/d")
    assert sh(own, "late", "touch /d/x; ls /d") == "x"
    own.docker("rm", "-f", "owner")  # its process namespace, its card and its disk go
    eventually(lambda: bool(state(own, "pids")["ExitCode"] == 137))
    assert sh(own, "guest", ADDRESS) == "0"
    os.kill(machine(own, "guest"), signal.SIGKILL)
    eventually(lambda: not own.docker("ps", "-q").out)
    assert [state(own, name)["ExitCode"] for name in ("guest", "late")] == [137, 137]
    assert not list((own.data_root / "sandboxes").iterdir())
    for name in ("owner", "guest"):
        own.docker("rm", "-f", name, check=False)
    run(own, "guest", "--restart", "always")
    run(own, "joiner", "--restart", "always", "--network", "container:guest")
    reboot(own)
    own.start()
    eventually(lambda: state(own, "joiner")["Status"] == "running")
    assert machine(own, "joiner") == machine(own, "guest")
    found = inspect(own, "joiner")  # it waited, and did not try in vain
    assert (found["RestartCount"], found["State"]["Error"]) == (0, "")
