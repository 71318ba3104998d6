"""Measuring: wall clock, CPU of what is measured alone, and what a list of samples says.

Other programs may use the same processors. A case's CPU seconds are therefore those of the daemon,
of all that runs as one of its uids, and of the client; what has ended counts by the daemon's
children's time (it reaps its machines). They say more than the wall clock on a busy machine.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
MB = 1_000_000

Clock = Callable[[], float]
"""CPU seconds that what is measured has used so far."""


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for a process and return its exit code. Raises TimeoutError after *seconds*.

    ``Popen.wait`` with a bound sleeps between looks, up to 50 ms at a time, and would measure that.
    """
    descriptor = os.pidfd_open(process.pid)
    try:
        if not select.select([descriptor], [], [], seconds)[0]:
            raise TimeoutError(f"a client did not end within {seconds:.0f} s")
    finally:
        os.close(descriptor)
    return process.wait()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a case found: the figure that the floor is about, and how it came about."""

    value: float
    samples: Sequence[float] = ()
    cpu: float = 0.0
    """CPU seconds for each sample: the daemon's, its machines', the client's."""
    notes: Sequence[str] = field(default=())

    @property
    def median(self) -> float:
        """The middle of the samples, or the value where there are none."""
        return statistics.median(self.samples) if self.samples else self.value

    def text(self) -> str:
        """Return median, p90, minimum, maximum and CPU seconds where there are samples."""
        parts = []
        if len(self.samples) > 1:
            ordered = sorted(self.samples)
            parts.append(
                f"median {self.median:.3f}, p90 {percentile(ordered, 90):.3f}, "
                f"min {ordered[0]:.3f}, max {ordered[-1]:.3f}, n {len(ordered)}"
            )
        if self.cpu:
            parts.append(f"{self.cpu:.3f} CPU-s each")
        return "; ".join([*parts, *self.notes])


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the value below which *percent* of the (sorted) samples lie."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def own_cpu(daemon: int, uids: range) -> float:
    """Return the CPU seconds of a daemon, of the processes with its uids, and of our children."""
    mine = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = mine.ru_utime + mine.ru_stime + cpu_of(daemon, children=True)
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid in uids:
                total += cpu_of(int(entry.name), children=True)
    return total


def repeat(work: Callable[[], object], times: int, clock: Clock, warm: int = 1) -> Outcome:
    """Time *work* several times, one after the other; the value is the median in seconds."""
    for _ in range(warm):
        work()
    samples: list[float] = []
    used = 0.0
    for _ in range(times):
        before, began = clock(), time.perf_counter()
        work()
        samples.append(time.perf_counter() - began)
        used += clock() - before
    return Outcome(value=statistics.median(samples), samples=samples, cpu=used / times)


def rate(size: int, work: Callable[[], object], clock: Clock, times: int = 3) -> Outcome:
    """Time *work*, which moves *size* bytes; the value is the median in MB/s."""
    timed = repeat(work, times, clock)
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


def cpu_of(pid: int, *, children: bool = False) -> float:
    """Return the CPU seconds that a process has used, and its reaped *children* (proc(5), stat)."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return sum(int(field) for field in fields[11 : 15 if children else 13]) / TICK
