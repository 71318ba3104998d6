"""The lines about many: memory of a sandbox, a hundred idle containers, as many as fit."""

from __future__ import annotations

import compileall
import contextlib
import statistics
import time
from pathlib import Path

from bench.measure import MB, Outcome, cpu_of, pss, resident
from bench.stage import IDLE, IMAGE, Stage

SOURCE = Path(__file__).resolve().parent.parent / "src" / "hyperstack"


def memory(stage: Stage) -> Outcome:
    """PSS of everything in an idle sandbox's cgroup."""
    host = stage.host
    host.docker("run", "-d", "--name", "idle-pss", "-m", "448m", IMAGE, *IDLE)
    try:
        time.sleep(3)
        pid = int(host.docker("inspect", "-f", "{{.State.Pid}}", "idle-pss").out)
        mates = _mates(pid)
        return Outcome(
            value=sum(pss(mate) for mate in mates) / MB, notes=(f"{len(mates)} processes",)
        )
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


def crowd(stage: Stage) -> dict[str, Outcome]:
    """A hundred idle containers: the daemon's memory and CPU, and how fast a new one answers."""
    host = stage.host
    # As an installation has it; a checkout's changed files would be compiled at each start.
    compileall.compile_dir(SOURCE, quiet=2)
    with stage.idle(100) as names:
        time.sleep(5)
        assert host.process is not None
        pid = host.process.pid
        used, began = cpu_of(pid), time.monotonic()
        time.sleep(30)
        share = (cpu_of(pid) - used) / (time.monotonic() - began) * 100
        size = resident(pid) / MB
        samples, cpu = [], 0.0
        for _ in range(3):
            host.kill()
            began = time.perf_counter()
            host.start()
            if len(host.docker("ps", "-q").out.split()) != len(names):
                raise RuntimeError("a new daemon does not list all that runs")
            samples.append(time.perf_counter() - began)
            cpu += cpu_of(host.process.pid)
        return {
            "daemon-memory": Outcome(value=size),
            "daemon-cpu": Outcome(value=share),
            "restart": Outcome(value=statistics.median(samples), samples=samples, cpu=cpu / 3),
        }


def density(stage: Stage, count: int = 300) -> Outcome:
    """Idle containers, then one exec in each: how many answer."""
    host = stage.host
    before, began = _available(), time.monotonic()
    with stage.idle(count) as names:
        started = time.monotonic() - began
        taken = (before - _available()) / count / MB
        began = time.monotonic()
        answered = sum(host.docker("exec", name, "true", check=False).code == 0 for name in names)
        each = (time.monotonic() - began) / count
        notes = (
            f"all started in {started:.1f} s",
            f"{taken:.1f} MB of the host each",
            f"exec {each:.3f} s each",
        )
        return Outcome(value=answered, notes=notes)


def _available() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemAvailable:")[2].split()[0]) * 1024
