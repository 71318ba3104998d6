"""The lines about starting: ``run``, ``rate``, ``twenty``, ``exec``, beside dockerd if asked."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable

from bench.measure import Outcome, ended, repeat
from bench.stage import IMAGE, Stage

CORES = os.cpu_count() or 1
TRUE = ("run", "--rm", IMAGE, "true")


def run(stage: Stage) -> Outcome:
    """``docker run --rm busybox true``, one after the other."""
    return _beside(stage, 20, lambda url: stage.call(*TRUE, url=url))


def twenty(stage: Stage) -> Outcome:
    """Twenty of them at once."""

    def once(url: str) -> None:
        started = [stage.spawn(*TRUE, url=url) for _ in range(20)]
        codes = [ended(process, 120) for process in started]
        if any(codes):
            raise RuntimeError("a docker run failed")

    return _beside(stage, 3, once)


def execs(stage: Stage) -> Outcome:
    """``docker exec true`` in a running container."""
    with stage.idle(1) as (name,):
        if stage.reference is None:
            return _beside(stage, 20, lambda url: stage.call("exec", name, "true", url=url))
        with stage.idle(1, stage.reference.url):
            return _beside(stage, 20, lambda url: stage.call("exec", name, "true", url=url))


def rate_of_starts(stage: Stage) -> Outcome:
    """Runs for twenty seconds, four at a time; the value is starts per second and core."""
    ends = time.monotonic() + 20
    done: list[float] = []

    def loop() -> None:
        while time.monotonic() < ends:
            stage.call(*TRUE)
            done.append(time.monotonic())

    before, began = stage.cpu(), time.monotonic()
    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    cpu = (stage.cpu() - before) / len(done)
    notes = (
        f"{len(done)} runs in {took:.1f} s on {CORES} cores",
        f"the CPU seconds alone would allow {1 / cpu:.1f}",
    )
    return Outcome(value=len(done) / took / CORES, cpu=cpu, notes=notes)


def _beside(stage: Stage, times: int, once: Callable[[str], None]) -> Outcome:
    """Time *once* at our daemon, and in turns with it at the reference."""
    if stage.reference is None:
        return repeat(lambda: once(""), times, stage.cpu)
    url = stage.reference.url
    ours: list[Outcome] = []
    theirs: list[float] = []
    once("")
    once(url)
    for _ in range(times):
        ours.append(repeat(lambda: once(""), 1, stage.cpu, warm=0))
        theirs.append(repeat(lambda: once(url), 1, stage.cpu, warm=0).value)
    samples = [one.value for one in ours]
    value, their = statistics.median(samples), statistics.median(theirs)
    return Outcome(
        value=value,
        samples=samples,
        cpu=statistics.fmean(one.cpu for one in ours),
        notes=(f"dockerd in turns {their:.3f} (min {min(theirs):.3f}): {value / their:.2f} of it",),
    )
