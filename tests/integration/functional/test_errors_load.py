"""Very many at once, and clients that do not read: slower, never wrong, and others go on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host, running_host
from tests.framework.trouble import eventually, load_busybox

RUNS = int(os.environ.get("HYPER_RUNS", "100"))
CREATES = int(os.environ.get("HYPER_CREATES", "1000"))


@pytest.fixture
def own(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    """A daemon for one test."""
    with running_host(tmp_path / "h", worker_number + 30) as host:
        load_busybox(host)
        yield host


def resident(host: Host) -> int:
    """Return the daemon's resident memory in KiB."""
    pid = (host.root / "hyperd.pid").read_text()
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


def descriptors(host: Host) -> int:
    """Return how many file descriptors the daemon has."""
    pid = (host.root / "hyperd.pid").read_text()
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def test_a_hundred_runs_at_once_all_succeed_and_leave_nothing(own: Host) -> None:
    own.docker("run", "--rm", "busybox", "true")
    before = descriptors(own)
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        jobs = [
            pool.submit(own.docker, "run", "--rm", "-m", "32m", "busybox", "echo", str(n))
            for n in range(RUNS)
        ]
        slowest = 0.0
        while not all(job.done() for job in jobs):
            began = time.monotonic()
            assert own.ping()
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.2)
    assert [job.result().out for job in jobs] == [f"{n}\n" for n in range(RUNS)]
    assert slowest < 5
    eventually(lambda: not own.docker("ps", "-aq").out)
    eventually(lambda: descriptors(own) <= before + 2)


def test_a_hundred_followers_all_get_every_line(own: Host) -> None:
    script = "while [ ! -e /go ]; do sleep 0.1; done; seq 2000"
    own.docker("run", "-d", "--name", "talk", "busybox", "sh", "-c", script)
    followers = [
        subprocess.Popen([DOCKER, "-H", own.url, "logs", "-f", "talk"], stdout=subprocess.PIPE)
        for _ in range(100)
    ]
    time.sleep(3)
    own.docker("exec", "talk", "touch", "/go")
    wanted = "".join(f"{n}\n" for n in range(1, 2001)).encode()
    for follower in followers:
        out, _ = follower.communicate(timeout=60)
        assert out == wanted


@contextlib.contextmanager
def deaf(host: Host, target: str) -> Iterator[socket.socket]:
    """Give a client that asks and then reads nothing."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(str(host.socket))
        sock.sendall(
            f"POST {target} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            .encode()
        )  # fmt: skip
        yield sock


def test_a_client_that_never_reads_harms_neither_daemon_nor_other_containers(own: Host) -> None:
    flood = "while :; do seq 100000; done"
    own.docker("run", "-d", "--name", "flood", "--log-opt", "max-size=1m", "busybox",
               "sh", "-c", flood)  # fmt: skip
    own.docker("run", "-d", "--name", "calm", "busybox", "sleep", "1000")
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(deaf(own, "/containers/flood/attach?stdout=1&stream=1"))
        time.sleep(5)
        before = resident(own)
        for _ in range(10):
            began = time.monotonic()
            assert own.docker("exec", "calm", "echo", "hi").out == "hi\n"
            assert time.monotonic() - began < 3
        assert own.docker("logs", "--tail", "1", "flood").out
        assert resident(own) < before + (20 << 10)
        began = time.monotonic()
        own.docker("rm", "-f", "flood")
        assert time.monotonic() - began < 30
    # With the clients gone the next one is as good as new.
    assert own.docker("run", "--rm", "busybox", "echo", "hi").out == "hi\n"


def test_a_held_back_container_goes_on_when_its_deaf_client_leaves(own: Host) -> None:
    script = "seq 1000000; touch /done; sleep 1000"
    own.docker("run", "-d", "--name", "held", "busybox", "sh", "-c", f"sleep 1; {script}")
    with deaf(own, "/containers/held/attach?stdout=1&stream=1"):
        time.sleep(6)
        assert own.docker("exec", "held", "ls", "/done", check=False).code
    eventually(lambda: own.docker("exec", "held", "ls", "/done", check=False).code == 0)
    assert own.docker("logs", "held").out.splitlines()[-1] == "1000000"


def test_a_thousand_containers_are_listed_found_again_and_removed(own: Host) -> None:
    script = f'seq {CREATES} | xargs -P 4 -I{{}} "$0" -H "$1" create --label n={{}} busybox true'
    subprocess.run(["bash", "-c", script, DOCKER, own.url], check=True, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    assert len(own.docker("ps", "-aq").out.split()) == CREATES
    assert time.monotonic() - began < 5
    own.kill()
    began = time.monotonic()
    own.start()
    print(json.dumps({"containers": CREATES, "restart_s": round(time.monotonic() - began, 2)}))
    assert time.monotonic() - began < 20
    assert own.docker("run", "--rm", "busybox", "echo", "hi").out == "hi\n"
    removed = own.docker("container", "prune", "-f", timeout=120).out
    assert removed.count("\n") >= CREATES
    assert not any((own.data_root / "containers").iterdir())
