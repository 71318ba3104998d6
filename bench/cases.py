"""One function a line of SPECIFICATION.md: uses the engine as its users do and returns a figure."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure import MB, Outcome, busy, cpu_of, pss, rate, repeat, resident
from tests.framework.host import DOCKER, Host

Case = Callable[[Host], Outcome]
CORES = os.cpu_count() or 1
IMAGE = "busybox"
IDLE = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done")


def run(host: Host) -> Outcome:
    """``docker run --rm busybox true``, one after the other."""
    return repeat(lambda: host.docker("run", "--rm", IMAGE, "true"), 20)


def twenty(host: Host) -> Outcome:
    """Twenty of them at once."""

    def once() -> None:
        started = [_spawn(host, "run", "--rm", IMAGE, "true") for _ in range(20)]
        if any(process.wait(120) for process in started):
            raise RuntimeError("a docker run failed")

    return repeat(once, 3)


def rate_of_starts(host: Host) -> Outcome:
    """Runs for twenty seconds, four at a time."""
    ends, done = time.monotonic() + 20, []

    def loop() -> None:
        while time.monotonic() < ends:
            host.docker("run", "--rm", IMAGE, "true")
            done.append(time.monotonic())

    before, began = busy(), time.monotonic()
    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    return Outcome(
        value=len(done) / took / CORES,
        cpu=(busy() - before) / len(done),
        notes=(f"{len(done)} runs in {took:.1f} s on {CORES} cores",),
    )


def execs(host: Host) -> Outcome:
    """``docker exec true`` in a running container."""
    with _idle(host, 1) as (name,):
        return repeat(lambda: host.docker("exec", name, "true"), 20)


def stdout(host: Host) -> Outcome:
    """A container's output through the docker CLI into nothing."""
    size = 256 << 20
    words = (
        "run",
        "--rm",
        "--log-driver",
        "none",
        IMAGE,
        "dd",
        "if=/dev/zero",
        "bs=128k",
        f"count={size >> 17}",
    )

    def once() -> None:
        if _spawn(host, *words).wait(300):
            raise RuntimeError("docker run failed")

    return rate(size, once)


def stdin(host: Host) -> Outcome:
    """The docker CLI's input into a container that reads and drops it."""
    size = 256 << 20
    words = ("run", "--rm", "-i", IMAGE, "dd", "of=/dev/null", "bs=128k")

    def once() -> None:
        with subprocess.Popen(
            ["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE
        ) as source:
            done = subprocess.run(
                [DOCKER, "-H", host.url, *words], stdin=source.stdout, capture_output=True
            )
        if done.returncode:
            raise RuntimeError(done.stderr.decode())

    return rate(size, once)


def port(host: Host) -> Outcome:
    """Bytes out of a container through a published port, from the daemon's own host."""
    size = 512 << 20
    host.docker(
        "run",
        "-d",
        "--name",
        "bulk",
        "-p",
        "5001:5001",
        IMAGE,
        "nc",
        "-lk",
        "-p",
        "5001",
        "-e",
        "dd",
        "if=/dev/zero",
        "bs=1M",
        f"count={size >> 20}",
    )
    address = host.inside("sh", "-c", "ip -4 -o addr show hyper0").out.split()[3].partition("/")[0]
    script = (
        "import socket,sys\n"
        f"s=socket.create_connection(('{address}', 5001), 30)\n"
        "n=0\n"
        "b=bytearray(1<<20)\n"
        "while (k:=s.recv_into(b)): n+=k\n"
        f"sys.exit(n!={size})\n"
    )

    def once() -> None:
        done = host.inside("python3", "-c", script, timeout=300)
        if done.code:
            raise RuntimeError(f"bulk transfer failed: {done.err}")

    try:
        _until(lambda: host.inside("python3", "-c", script, timeout=300).code == 0)
        return rate(size, once)
    finally:
        host.docker("rm", "-f", "bulk")


def volume_write(host: Host) -> Outcome:
    """``dd`` onto a named volume with a flush at its end."""
    size = 256 << 20

    def once() -> None:
        host.docker(
            "exec",
            "vol",
            "dd",
            "if=/dev/zero",
            "of=/v/file",
            "bs=1M",
            f"count={size >> 20}",
            "conv=fsync",
        )

    host.docker("run", "-d", "--name", "vol", "-v", "bench:/v", IMAGE, *IDLE)
    try:
        return rate(size, once)
    finally:
        host.docker("rm", "-f", "vol")
        host.docker("volume", "rm", "bench")


def volume_read(host: Host) -> Outcome:
    """``dd`` from a named volume in a fresh guest each time, whose page cache is cold."""
    size, samples = 256 << 20, []
    host.docker(
        "run",
        "--rm",
        "-v",
        "bench:/v",
        IMAGE,
        "dd",
        "if=/dev/zero",
        "of=/v/file",
        "bs=1M",
        f"count={size >> 20}",
    )
    try:
        for _ in range(3):
            host.docker("run", "-d", "--name", "vol", "-v", "bench:/v", IMAGE, *IDLE)
            began = time.perf_counter()
            host.docker("exec", "vol", "dd", "if=/v/file", "of=/dev/null", "bs=1M")
            samples.append(size / MB / (time.perf_counter() - began))
            host.docker("rm", "-f", "vol")
    finally:
        host.docker("volume", "rm", "bench")
    return Outcome(value=statistics.median(samples), samples=samples)


def memory(host: Host) -> Outcome:
    """PSS of everything in an idle sandbox's cgroup."""
    host.docker("run", "-d", "--name", "idle-pss", "-m", "448m", IMAGE, *IDLE)
    try:
        time.sleep(3)
        pid = int(host.docker("inspect", "-f", "{{.State.Pid}}", "idle-pss").out)
        mates = _mates(pid)
        total = sum(pss(mate) for mate in mates)
        return Outcome(value=total / MB, notes=(f"{len(mates)} processes",))
    finally:
        host.docker("rm", "-f", "idle-pss")


def _mates(pid: int) -> list[int]:
    """Return the processes of the sandbox's cgroup in which *pid* is (cgroups(7))."""
    mine = _cgroup(Path(f"/proc/{pid}"))
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _cgroup(entry) == mine
    ]


def _cgroup(process: Path) -> str:
    with contextlib.suppress(OSError):
        for line in (process / "cgroup").read_text().splitlines():
            if "/hyper/" in line:
                return line.rpartition(":")[2]
    return ""


def crowd(host: Host) -> dict[str, Outcome]:
    """A hundred idle containers: the daemon's memory and CPU, and how fast a new one answers."""
    with _idle(host, 100):
        time.sleep(5)
        assert host.process is not None
        pid = host.process.pid
        used, began = cpu_of(pid), time.monotonic()
        time.sleep(20)
        share = (cpu_of(pid) - used) / (time.monotonic() - began) * 100
        size = resident(pid) / MB
        samples = []
        for _ in range(3):
            host.kill()
            began = time.perf_counter()
            host.start()
            host.docker("ps", "-q")
            samples.append(time.perf_counter() - began)
        return {
            "daemon-memory": Outcome(value=size),
            "daemon-cpu": Outcome(value=share),
            "restart": Outcome(value=statistics.median(samples), samples=samples),
        }


def density(host: Host, count: int = 300) -> Outcome:
    """Idle containers, then one exec in each: how many answer."""
    before = _available()
    with _idle(host, count) as names:
        taken = (before - _available()) / count / MB
        began = time.monotonic()
        answered = sum(host.docker("exec", name, "true", check=False).code == 0 for name in names)
        each = (time.monotonic() - began) / count
        notes = (f"{taken:.1f} MB each", f"exec {each:.3f} s each")
        return Outcome(value=answered, notes=notes)


def _available() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemAvailable:")[2].split()[0]) * 1024


def _spawn(host: Host, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [DOCKER, "-H", host.url, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


@contextlib.contextmanager
def _idle(host: Host, count: int) -> Iterator[list[str]]:
    """Give that many idle containers, started four at a time."""
    names = [f"idle{number}" for number in range(count)]
    try:
        for start in range(0, count, 4):
            group = [
                _spawn(host, "run", "-d", "-m", "448m", "--name", name, IMAGE, *IDLE)
                for name in names[start : start + 4]
            ]
            if any(process.wait(120) for process in group):
                raise RuntimeError("a docker run failed")
        yield names
    finally:
        for start in range(0, count, 50):
            host.docker("rm", "-f", *names[start : start + 50], timeout=600)


def _until(true: Callable[[], bool], bound: float = 30.0) -> None:
    ends = time.monotonic() + bound
    while not true():
        if time.monotonic() > ends:
            raise RuntimeError("what the case waits for did not come about")
        time.sleep(0.1)
