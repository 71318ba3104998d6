from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from bench.measure import Outcome, cpu_of, ended, own_cpu, percentile, pss, rate, repeat, resident

BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (50, 6.0), (90, 10.0), (99, 10.0), (100, 10.0)]
)
def test_a_percentile_is_one_of_the_samples(percent: int, value: float) -> None:
    assert percentile([float(n) for n in range(1, 11)], percent) == value


def test_an_outcome_says_median_ends_and_cost() -> None:
    text = Outcome(value=2.0, samples=(3.0, 1.0, 2.0), cpu=0.5, notes=("quiet",)).text()
    assert text == ("median 2.000, p90 3.000, min 1.000, max 3.000, n 3; 0.500 CPU-s each; quiet")
    assert Outcome(value=2.0).text() == ""


def test_work_is_warmed_up_then_timed_with_its_own_cpu() -> None:
    done: list[None] = []
    ticks: Iterator[float] = iter([0.0, 1.0, 5.0, 7.0])

    def work() -> None:
        time.sleep(0.01)
        done.append(None)

    outcome = repeat(work, 2, lambda: next(ticks))
    assert len(done) == 3
    assert len(outcome.samples) == 2
    assert min(outcome.samples) >= 0.01
    assert outcome.cpu == 1.5


def test_a_rate_is_megabytes_per_second() -> None:
    outcome = rate(1_000_000, lambda: time.sleep(0.02), lambda: 0.0, times=1)
    assert 0 < outcome.value <= 50


def test_cpu_of_children_counts_once_they_are_reaped() -> None:
    nobody = range(1 << 31, (1 << 31) + 1)
    before, alone = own_cpu(os.getpid(), nobody), cpu_of(os.getpid())
    subprocess.run([sys.executable, "-c", BURN], check=True)
    # The test's own children count twice here: as the daemon's and as the client's.
    assert own_cpu(os.getpid(), nobody) - before >= 0.5
    assert cpu_of(os.getpid()) - alone < 0.3


def test_memory_of_a_process_is_in_bytes() -> None:
    assert 1_000_000 < pss(os.getpid()) < 10_000_000_000
    assert 1_000_000 < resident(os.getpid()) < 10_000_000_000


def test_a_wait_for_a_client_gives_its_code_and_has_a_bound() -> None:
    with subprocess.Popen(["sh", "-c", "exit 3"]) as quick:
        assert ended(quick, 10) == 3
    with subprocess.Popen(["sleep", "60"]) as slow:
        with pytest.raises(TimeoutError):
            ended(slow, 0.1)
        slow.kill()
