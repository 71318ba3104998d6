"""The daemon's own hygiene over long use: what it takes it gives back.

``HYPER_ROUNDS`` says how many runs and execs (500 of each is a long use; the default keeps CI
short).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host, running_host
from tests.framework.trouble import load_busybox

ROUNDS = int(os.environ.get("HYPER_ROUNDS", "60"))
SETTLE = 8.0
"""Seconds after which what ends behind has ended."""
MIB = 1024
THREADS = (os.cpu_count() or 1) + 12
"""The loop's, the database's and those of its executor (at most 4 more than processors)."""


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What a daemon holds of the host."""

    descriptors: int
    children: int
    rules: int
    links: int
    folders: int
    mounts: int

    @classmethod
    def of(cls, host: Host) -> Holdings:
        """Look at the host now."""
        pid = (host.root / "hyperd.pid").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        exec_root = host.exec_root
        folders = (
            host.data_root / "containers",
            host.data_root / "sandboxes",
            exec_root / "netns",
            exec_root / "sandboxes",
        )
        return cls(
            descriptors=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
            children=len(children),
            rules=host.inside("nft", "list", "ruleset").out.count("\n"),
            links=len(host.inside("ip", "-o", "link").out.splitlines()),
            folders=sum(sum(1 for _ in f.iterdir()) for f in folders if f.is_dir()),
            mounts=Path("/proc/self/mountinfo").read_text().count(f"{host.root}/"),
        )


def threads(host: Host) -> int:
    """Return how many threads the daemon has."""
    pid = (host.root / "hyperd.pid").read_text()
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def resident(host: Host) -> int:
    """Return the daemon's resident memory in KiB."""
    text = Path(f"/proc/{(host.root / 'hyperd.pid').read_text()}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])


@pytest.fixture
def own(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    """A daemon that has been warmed up."""
    with running_host(tmp_path / "h", worker_number + 30) as host:
        load_busybox(host)
        for _ in range(10):
            host.docker("run", "--rm", "-v", "/data", "-p", "80", "busybox", "true")
        time.sleep(SETTLE)
        yield host


def many(host: Host, count: int, *words: str) -> None:
    """Run a command *count* times, four at once."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: host.docker(*words), range(count)))


def leave(host: Host, *words: str) -> None:
    """Begin a command that has no end, and kill its client."""
    null = subprocess.DEVNULL
    client = subprocess.Popen([DOCKER, "-H", host.url, *words], stdout=null, stderr=null)
    time.sleep(0.4)
    client.kill()
    client.wait()


def test_long_use_leaves_the_daemon_as_it_was(own: Host) -> None:
    before, memory = Holdings.of(own), resident(own)
    many(own, ROUNDS, "run", "--rm", "-v", "/data", "-p", "80", "busybox", "true")
    own.docker("run", "-d", "--name", "base", "busybox", "sh", "-c",
               "while :; do echo x; sleep 0.2; done")  # fmt: skip
    many(own, ROUNDS, "exec", "base", "true")
    with ThreadPoolExecutor(4) as pool:
        for words in (("logs", "-f", "base"), ("attach", "base"), ("events",), ("stats", "base")):
            jobs = [pool.submit(leave, own, *words) for _ in range(ROUNDS // 4)]
            for job in jobs:
                job.result()
    own.docker("rm", "-f", "-v", "base")
    time.sleep(SETTLE)
    after = Holdings.of(own)
    grown = {
        name: (had, has)
        for name, had in asdict(before).items()
        if (has := asdict(after)[name]) > had  # a probe of the host may have ended meanwhile
    }
    assert not grown
    assert threads(own) <= THREADS
    # What Python's allocator keeps is bounded; a leak is not.
    assert resident(own) - memory < 3 * MIB + 8 * ROUNDS
