"""``kill -9`` of the daemon at random instants: nothing is lost, nothing doubled, nothing leaks.

Clients run all the time. After each death the next daemon must answer, every container must be in a
state that can be explained, and counters that run in containers must be whole in their logs.
``HYPER_KILLS`` says how many deaths (the default keeps CI short).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.host import DOCKER, Host, running_host
from tests.framework.images import busybox_tar
from tests.framework.leaks import leftovers

KILLS = int(os.environ.get("HYPER_KILLS", "12"))
SEED = int(os.environ.get("HYPER_SEED", "0")) or random.randrange(1 << 30)
COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"


class Clients:
    """Users that go on whatever happens to the daemon; their commands may fail, never hang."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stop = threading.Event()
        self._random = random.Random(SEED)
        self.hung: list[str] = []
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(3)]

    def _docker(self, *words: str) -> None:
        try:
            subprocess.run(
                [DOCKER, "-H", self._host.url, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=90,
            )
        except subprocess.TimeoutExpired:
            self.hung.append(" ".join(words))

    def _work(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            name = f"w{number}x{turn}"
            self._docker(
                "run",
                "-d",
                "--name",
                name,
                "-v",
                "/data",
                "-p",
                "80",
                "busybox",
                "sh",
                "-c",
                "echo begin; sleep 0.3; echo end; exit 3",
            )
            action = self._random.choice(("stop", "kill", "exec", "cp", "restart", "none"))
            if action == "exec":
                self._docker("exec", name, "true")
            elif action == "cp":
                self._docker("cp", "/etc/hostname", f"{name}:/tmp/x")
            elif action != "none":
                self._docker(action, name)
            joined = self._random.choice(((), ("--network", "container:counter", "-v", "/data")))
            self._docker("run", "--rm", "--name", f"{name}rm", *joined, "busybox", "true")
            if self._random.random() < 0.7:
                self._docker("rm", "-f", "-v", name)
            self._docker("import", "/dev/null", f"junk:{number}")

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(200)


@pytest.fixture
def victim(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    with running_host(tmp_path / "h", worker_number + 20) as host:
        host.docker("import", "--change", 'CMD ["sh"]', "-", "busybox", stdin=busybox_tar())
        yield host


def inspect(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.docker("inspect", name).out)[0]
    return found


def test_the_daemon_may_be_killed_at_any_instant(victim: Host) -> None:
    chance = random.Random(SEED)
    print(f"HYPER_SEED={SEED}")
    victim.docker("run", "-d", "--name", "counter", "-p", "8099:80", "-v", "/data", "busybox",
                  "sh", "-c", COUNT)  # fmt: skip
    pid = inspect(victim, "counter")["State"]["Pid"]
    with Clients(victim) as clients:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.02, 1.2))
            victim.kill()
            time.sleep(chance.uniform(0.0, 0.3))
            began = time.monotonic()
            victim.start()
            assert time.monotonic() - began < 20
            state = inspect(victim, "counter")["State"]
            assert state["Running"], f"{state}\n{victim.log.read_text()[-6000:]}"
            assert state["Pid"] == pid
    assert not clients.hung
    # Whoever was moving in or out of its machine when a daemon died is out.
    victim.docker("run", "--rm", "--network", "container:counter", "busybox", "true")
    bound = time.monotonic() + 30
    while len(disks := list((victim.data_root / "sandboxes").glob("*/disks/*"))) != 1:
        assert time.monotonic() < bound, f"{disks}\n{victim.docker('ps', '-a').out}"
        time.sleep(0.1)
    _check_counter(victim)
    _check_states(victim)
    victim.remove_everything()
    victim.docker("rmi", "-f", *set(victim.docker("images", "-q").out.split()))
    assert leftovers(victim) == []


def _check_counter(host: Host) -> None:
    host.docker("stop", "-t", "0", "counter")
    numbers = [int(line) for line in host.docker("logs", "counter").out.split()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 10
    host.docker("rm", "-v", "counter")


def _check_states(host: Host) -> None:
    """Every container left is in a state that its short life explains."""
    bound = time.monotonic() + 30
    for identifier in host.docker("ps", "-aq").out.split():
        found = inspect(host, identifier)
        status = found["State"]["Status"]
        assert status in ("created", "exited", "running"), found["State"]
        while status == "running" and time.monotonic() < bound:
            time.sleep(0.1)
            status = inspect(host, identifier)["State"]["Status"]
        assert status != "running"
        if status == "exited" and found["State"]["StartedAt"] > "0002":
            code = inspect(host, identifier)["State"]["ExitCode"]
            assert code in (3, 137, 143, 0), found["State"]
            lines = host.docker("logs", identifier).out.split()
            assert lines in (
                [],
                ["begin"],
                ["begin", "end"],
                ["begin"] * 2,
                ["begin", "end", "begin"],
                ["begin", "begin", "end"],
                ["begin", "end"] * 2,
            ), lines
