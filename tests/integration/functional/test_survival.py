"""What outlives what: the daemon's death, its absence, a machine's death, a reboot of the host."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host, running_host
from tests.framework.trouble import eventually, inspect, load_busybox, reboot, state

ECHO = "exec nc -ll -p 80 -e cat"


@pytest.fixture
def own(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    """A daemon for one test, which may lose it."""
    with running_host(tmp_path / "h", worker_number + 30) as host:
        load_busybox(host)
        yield host


def test_a_reboot_keeps_rows_disks_volumes_and_images_and_starts_what_is_to_be_up(
    own: Host,
) -> None:
    own.docker("volume", "create", "data")
    own.docker("network", "create", "mine")
    own.docker(
        "run", "-d", "--name", "always", "--restart", "always", "-p", "8080:80", "-v", "data:/data",
        "--network", "mine", "busybox", "sh", "-c", f"echo up >> /data/starts; {ECHO}",
    )  # fmt: skip
    own.docker("run", "-d", "--name", "unless", "--restart", "unless-stopped", "busybox",
               "sleep", "1000")  # fmt: skip
    own.docker("run", "-d", "--name", "stopped", "--restart", "unless-stopped", "busybox",
               "sleep", "1000")  # fmt: skip
    own.docker("stop", "-t", "0", "stopped")
    own.docker("run", "-d", "--name", "plain", "busybox", "sh", "-c", "echo x >/x; sync; sleep 99")
    own.docker("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1000")
    own.docker("exec", "plain", "sync")
    reboot(own)
    own.start()
    eventually(lambda: state(own, "always")["Running"] and state(own, "unless")["Running"])
    assert not state(own, "stopped")["Running"]
    ended = state(own, "plain")
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 137)
    assert "virtual machine was gone" in ended["Error"]
    assert "gone" not in own.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    own.docker("start", "plain")
    assert own.docker("exec", "plain", "cat", "/x").out == "x\n"
    assert own.docker("exec", "always", "cat", "/data/starts").out == "up\nup\n"
    eventually(lambda: answers(own, 8080))
    assert own.docker("run", "--rm", "busybox", "echo", "image").out == "image\n"


def answers(host: Host, port: int) -> bool:
    """Tell whether a published port gives back what it gets."""
    code = (
        f"import socket; s=socket.create_connection(('127.0.0.1',{port}),2); s.settimeout(2); "
        "s.sendall(b'hi'); print(s.recv(2).decode())"
    )
    return host.inside(sys.executable, "-c", code).out == "hi\n"


class Talk:
    """A TCP connection into a container on which a counter goes there and back all the time."""

    def __init__(self, host: Host, port: int) -> None:
        code = (
            "import socket,sys,time\n"
            f"s=socket.create_connection(('127.0.0.1',{port}),5)\n"
            "s.settimeout(20)\n"
            "n=0\n"
            "f=s.makefile('rwb')\n"
            "while True:\n"
            " f.write(b'%d\\n'%n);f.flush()\n"
            " assert f.readline()==b'%d\\n'%n\n"
            " n+=1\n"
            " print(n,flush=True)\n"
            " time.sleep(0.01)\n"
        )
        self._process = subprocess.Popen(
            [*host.netns.enter, sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.count = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.count = int(line)

    @property
    def alive(self) -> bool:
        """Whether the connection is up."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_a_connection_through_a_published_port_outlives_the_daemon(own: Host) -> None:
    own.docker("run", "-d", "--name", "echo", "-p", "8081:80", "busybox", "sh", "-c", ECHO)
    eventually(lambda: answers(own, 8081))
    with contextlib.closing(Talk(own, 8081)) as talk:
        eventually(lambda: talk.count > 10)
        own.kill()
        during = talk.count
        eventually(lambda: talk.count > during + 20)
        own.start()
        after = talk.count
        eventually(lambda: talk.count > after + 20)
        assert talk.alive


def test_clients_get_an_end_when_the_daemon_dies(own: Host) -> None:
    own.docker("run", "-d", "-i", "--name", "talks", "busybox", "sh", "-c",
               "while :; do echo x; sleep 0.1; done")  # fmt: skip
    commands = (
        ("logs", "-f", "talks"),
        ("attach", "talks"),
        ("exec", "-i", "talks", "cat"),
        ("events",),
        ("wait", "talks"),
    )
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    clients = [
        subprocess.Popen([DOCKER, "-H", own.url, *words], stdin=pipe, stdout=null, stderr=null)
        for words in commands
    ]
    time.sleep(1)
    own.kill()
    for client in clients:
        client.wait(20)
        assert client.stdin is not None
        client.stdin.close()
    own.start()
    assert state(own, "talks")["Running"]


def test_ends_that_happened_without_a_daemon_are_told_truly(own: Host) -> None:
    wait = "sleep 1.5; exit 7"
    own.docker("run", "-d", "--name", "seven", "busybox", "sh", "-c", wait)
    own.docker("run", "-d", "--rm", "--name", "rm", "busybox", "sh", "-c", wait)
    own.docker("run", "-d", "--restart", "on-failure:3", "--name", "again", "busybox", "sh", "-c",
               "[ -e /x ] && exec sleep 1000; touch /x; sleep 1.5; exit 7")  # fmt: skip
    own.docker("run", "-d", "--name", "killed", "busybox", "sleep", "1000")
    machine = state(own, "killed")["Pid"]
    own.kill()
    signal_pid(machine)
    time.sleep(2.5)
    own.start()
    eventually(lambda: state(own, "seven")["Status"] == "exited")
    found = state(own, "seven")
    assert (found["ExitCode"], found["Error"]) == (7, "")
    eventually(lambda: "rm" not in own.docker("ps", "-a", "--format", "{{.Names}}").out.split())
    eventually(lambda: state(own, "again")["Status"] == "running")
    lost = state(own, "killed")
    assert lost["ExitCode"] == 137
    assert "virtual machine was gone" in lost["Error"]


def signal_pid(pid: int) -> None:
    """Kill a machine."""
    os.kill(pid, signal.SIGKILL)


def test_output_without_a_daemon_waits_in_the_guest_and_nothing_is_lost(own: Host) -> None:
    lines = 300_000  # 2 MB: far more than what the guest keeps
    own.docker("run", "-d", "--name", "writer", "busybox", "sh", "-c",
               f"sleep 1; seq {lines}; echo done >&2")  # fmt: skip
    own.kill()
    time.sleep(3)
    own.start()
    assert own.docker("wait", "writer").out == "0\n"
    logged = own.docker("logs", "writer")
    assert logged.err == "done\n"
    numbers = [int(line) for line in logged.out.splitlines()]
    assert numbers == list(range(1, lines + 1))


def test_stdin_is_kept_over_the_daemons_death(own: Host) -> None:
    own.docker("run", "-d", "-i", "--name", "reader", "busybox", "sh", "-c",
               "while read line; do echo got $line; done; echo end")  # fmt: skip
    attach(own, "reader", b"one\n")
    eventually(lambda: own.docker("logs", "reader").out == "got one\n")
    own.kill()
    own.start()
    attach(own, "reader", b"two\n")
    eventually(lambda: own.docker("logs", "reader").out == "got one\ngot two\n")
    assert state(own, "reader")["Running"]


def attach(host: Host, name: str, data: bytes) -> None:
    """Write to a container's stdin over a taken-over connection, and leave."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(10)
        sock.connect(str(host.socket))
        sock.sendall(
            f"POST /containers/{name}/attach?stdin=1&stream=1 HTTP/1.1\r\nHost: d\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        assert b"101" in sock.recv(4096)
        sock.sendall(data)
        time.sleep(0.5)


def test_health_checks_go_on_and_paused_containers_stay_paused(own: Host) -> None:
    own.docker("run", "-d", "--name", "healthy", "--health-cmd", "test ! -e /sick",
               "--health-interval", "1s", "--health-retries", "1", "busybox",
               "sleep", "1000")  # fmt: skip
    own.docker("run", "-d", "--name", "paused", "busybox", "sh", "-c",
               "while :; do echo x; sleep 0.1; done")  # fmt: skip
    eventually(lambda: state(own, "healthy")["Health"]["Status"] == "healthy")
    own.docker("pause", "paused")
    own.kill()
    own.start()
    assert state(own, "paused")["Status"] == "paused"
    before = own.docker("logs", "paused").out
    own.docker("exec", "healthy", "touch", "/sick")
    eventually(lambda: state(own, "healthy")["Health"]["Status"] == "unhealthy")
    assert own.docker("logs", "paused").out == before
    own.docker("unpause", "paused")
    eventually(lambda: len(own.docker("logs", "paused").out) > len(before))


def test_a_health_check_s_count_goes_on_over_the_daemon_s_death(own: Host) -> None:
    own.docker("run", "-d", "--name", "sick", "--health-cmd", "false", "--health-interval", "1s",
               "--health-retries", "1000", "busybox", "sleep", "1000")  # fmt: skip
    own.docker("run", "-d", "--name", "slow", "--health-cmd", "true", "--health-interval", "6s",
               "busybox", "sleep", "1000")  # fmt: skip
    began = time.monotonic()
    eventually(lambda: state(own, "sick")["Health"]["FailingStreak"] >= 2)
    before = state(own, "sick")["Health"]
    own.kill()
    own.start()
    found = state(own, "sick")["Health"]
    assert found["Status"] == "starting"
    assert found["FailingStreak"] >= before["FailingStreak"]
    assert found["Log"][0] in before["Log"]
    eventually(lambda: state(own, "sick")["Health"]["FailingStreak"] > before["FailingStreak"] + 1)
    # One daemon after the other probes it six seconds after its start, not the last one's.
    eventually(lambda: state(own, "slow")["Health"]["Status"] == "healthy")
    assert len(state(own, "slow")["Health"]["Log"]) == 1
    print(json.dumps({"first_probe_seconds": round(time.monotonic() - began, 1)}))


def test_policies_and_removals_are_a_new_daemon_s_too(own: Host) -> None:
    own.docker("create", "--rm", "--name", "never", "busybox", "true")
    own.docker("run", "-d", "--name", "failed", "--restart", "on-failure", "busybox",
               "sleep", "1000")  # fmt: skip
    own.docker("run", "-d", "--name", "loops", "--restart", "always", "busybox",
               "sh", "-c", "sleep 0.2; false")  # fmt: skip
    own.docker("stop", "-t", "0", "failed")
    eventually(lambda: inspect(own, "loops")["RestartCount"] >= 3)
    count = inspect(own, "loops")["RestartCount"]
    own.kill()
    own.start()
    assert "never" not in own.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    eventually(lambda: state(own, "failed")["Status"] == "running")  # as dockerd, stopped or not
    eventually(lambda: inspect(own, "loops")["RestartCount"] > count)


@pytest.mark.alone
def test_fifty_containers_are_found_again_at_once(own: Host) -> None:
    starts = "for i in $(seq 50); do docker -H $0 run -d -m 32m busybox sleep 1000 & "
    starts += "[ $((i % 4)) = 0 ] && wait; done; wait"
    subprocess.run(["bash", "-c", starts, own.url], check=True, stdout=subprocess.DEVNULL)
    assert len(own.docker("ps", "-q").out.split()) == 50
    own.kill()
    began = time.monotonic()
    own.start()
    took = time.monotonic() - began
    ids = own.docker("ps", "-q").out.split()
    assert len(ids) == 50
    for identifier in ids[::10]:
        assert own.docker("exec", identifier, "echo", "up").out == "up\n"
    print(json.dumps({"restart_seconds": round(took, 2)}))
    assert took < 10
    pids = {inspect(own, identifier)["State"]["Pid"] for identifier in ids}
    assert len(pids) == 50
