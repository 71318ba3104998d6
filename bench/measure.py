"""Measuring: wall clock, CPU of the whole machine, and what a list of samples says."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a case found: the figure that the floor is about, and how it came about."""

    value: float
    samples: Sequence[float] = ()
    cpu: float = 0.0
    """CPU seconds of the whole machine for each sample."""
    notes: Sequence[str] = field(default=())

    def text(self) -> str:
        """Return median, p90, minimum and CPU seconds where there are samples."""
        parts = []
        if len(self.samples) > 1:
            ordered = sorted(self.samples)
            parts.append(
                f"median {statistics.median(ordered):.3f}, p90 {percentile(ordered, 90):.3f}, "
                f"min {ordered[0]:.3f}, n {len(ordered)}"
            )
        if self.cpu:
            parts.append(f"{self.cpu:.3f} CPU-s each")
        return "; ".join([*parts, *self.notes])


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the value below which *percent* of the (sorted) samples lie."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def busy() -> float:
    """Return the CPU seconds that the machine has been busy since it started (proc(5), stat)."""
    fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICK


def repeat(work: Callable[[], object], times: int, warm: int = 1) -> Outcome:
    """Time *work* several times, one after the other; the value is the median in seconds."""
    for _ in range(warm):
        work()
    samples: list[float] = []
    before = busy()
    for _ in range(times):
        began = time.perf_counter()
        work()
        samples.append(time.perf_counter() - began)
    cpu = (busy() - before) / times
    return Outcome(value=statistics.median(samples), samples=samples, cpu=cpu)


def rate(size: int, work: Callable[[], object], times: int = 3) -> Outcome:
    """Time *work*, which moves *size* bytes; the value is the median in MB/s."""
    timed = repeat(work, times)
    samples = [size / MB / seconds for seconds in timed.samples]
    return Outcome(value=statistics.median(samples), samples=samples, cpu=timed.cpu)


def pss(pid: int) -> int:
    """Return a process's proportional set size in bytes (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def resident(pid: int) -> int:
    """Return a process's resident set size in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / TICK
