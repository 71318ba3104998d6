"""The life of a container: stop, kill, restart, pause, wait, remove, and what inspect says."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from tests.framework.host import DOCKER, Host
from tests.framework.trouble import eventually


def inspect(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.docker("inspect", name).out)[0]
    return found


def listen(host: Host, name: str, trap: str, *options: str) -> None:
    """Run a shell that has a trap; return when it has it: a signal before that is another test."""
    script = f"trap {trap}; echo ready; while :; do sleep 0.1; done"
    host.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)
    eventually(lambda: host.docker("logs", name).out == "ready\n")


def test_stop_is_a_signal_and_patience(host: Host) -> None:
    listen(host, "polite", "'echo bye; exit 7' TERM")
    host.docker("stop", "polite")
    assert inspect(host, "polite")["State"]["ExitCode"] == 7
    assert host.docker("logs", "polite").out == "ready\nbye\n"


def test_stop_kills_what_does_not_listen(host: Host) -> None:
    listen(host, "deaf", "'' TERM")
    host.docker("stop", "-t", "1", "deaf")
    assert inspect(host, "deaf")["State"]["ExitCode"] == 137


def test_a_stop_signal_of_ones_own(host: Host) -> None:
    listen(host, "usr", "'exit 3' USR1", "--stop-signal", "USR1")
    host.docker("stop", "usr")
    assert inspect(host, "usr")["State"]["ExitCode"] == 3


def test_kill_with_a_signal_and_to_the_end(host: Host) -> None:
    listen(host, "kk", "'echo got' HUP")
    host.docker("kill", "-s", "HUP", "kk")
    eventually(lambda: host.docker("logs", "kk").out == "ready\ngot\n")
    host.docker("kill", "kk")
    state = inspect(host, "kk")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    again = host.docker("kill", "kk", check=False)
    assert "is not running" in again.err


def test_the_file_system_survives_a_restart(host: Host) -> None:
    host.docker("run", "--name", "keep", "busybox", "sh", "-c", "echo one >> /data; cat /data")
    again = host.docker("start", "-a", "keep")
    assert again.out == "one\none\n"


def test_pause_stops_time_and_unpause_goes_on(host: Host) -> None:
    host.docker(
        "run", "-d", "--name", "pp", "busybox", "sh", "-c", "while :; do echo x; sleep 0.1; done"
    )
    time.sleep(0.3)
    host.docker("pause", "pp")
    assert inspect(host, "pp")["State"]["Status"] == "paused"
    before = host.docker("logs", "pp").out
    time.sleep(0.4)
    assert host.docker("logs", "pp").out == before
    refused = host.docker("exec", "pp", "true", check=False)
    assert "is paused" in refused.err
    host.docker("unpause", "pp")
    eventually(lambda: len(host.docker("logs", "pp").out) > len(before))


def test_wait_tells_the_exit_code(host: Host) -> None:
    host.docker("run", "-d", "--name", "ww", "busybox", "sh", "-c", "sleep 0.5; exit 9")
    assert host.docker("wait", "ww").out == "9\n"


def test_restart_gives_a_new_start(host: Host) -> None:
    host.docker("run", "-d", "--name", "rr", "busybox", "sleep", "60")
    first = inspect(host, "rr")["State"]["StartedAt"]
    host.docker("restart", "-t", "0", "rr")
    state = inspect(host, "rr")["State"]
    assert state["Running"]
    assert state["StartedAt"] != first


def test_a_restart_policy_counts_its_tries(host: Host) -> None:
    host.docker("run", "-d", "--name", "loop", "--restart", "on-failure:2", "busybox", "false")
    for _ in range(200):
        if inspect(host, "loop")["State"]["Status"] == "exited":
            break
        time.sleep(0.05)
    found = inspect(host, "loop")
    assert found["RestartCount"] == 2
    assert found["State"]["ExitCode"] == 1


def test_a_running_container_is_not_removed_without_force(host: Host) -> None:
    host.docker("run", "-d", "--name", "busy", "busybox", "sleep", "60")
    refused = host.docker("rm", "busy", check=False)
    assert (
        'cannot remove container "busy": container is running' in refused.err.replace("\\", "")
        or "container is running" in refused.err
    )
    host.docker("rm", "-f", "busy")
    gone = host.docker("inspect", "busy", check=False)
    assert "No such object: busy" in gone.err or "no such object" in gone.err.lower()


def test_rename_moves_the_name(host: Host) -> None:
    host.docker("create", "--name", "old", "busybox", "true")
    host.docker("rename", "old", "new")
    assert inspect(host, "new")["Name"] == "/new"
    assert host.docker("inspect", "old", check=False).code == 1


def test_top_lists_the_guests_processes(host: Host) -> None:
    host.docker("run", "-d", "--name", "tt", "busybox", "sleep", "123")
    out = host.docker("top", "tt").out
    assert out.splitlines()[0].split()[:3] == ["UID", "PID", "PPID"]
    assert "sleep 123" in out


def test_events_tell_the_whole_life_in_order(host: Host) -> None:
    since = str(time.time())
    host.docker("run", "--rm", "--name", "ee", "busybox", "true")
    out = host.docker(
        "events",
        "--since",
        since,
        "--until",
        str(time.time() + 0.5),
        "--filter",
        "container=ee",
        "--format",
        "{{.Action}}",
    ).out.split()
    assert [a for a in out if a in ("create", "attach", "start", "die", "destroy")] == [
        "create",
        "attach",
        "start",
        "die",
        "destroy",
    ]


def test_attach_sees_output_and_detach_leaves_it_running(host: Host) -> None:
    host.docker(
        "run",
        "-d",
        "-i",
        "--name",
        "aa",
        "busybox",
        "sh",
        "-c",
        "read line; echo heard $line; sleep 60",
    )
    process = subprocess.Popen(
        [DOCKER, "-H", host.url, "attach", "aa"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"you\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"heard you\n"
    process.stdin.close()
    process.stdout.close()
    process.kill()
    process.wait()
    assert inspect(host, "aa")["State"]["Running"]
