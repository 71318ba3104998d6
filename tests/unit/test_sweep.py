"""What a killed run of ./check left is known from what a running one has."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import sweep


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run whose pytest is gone."""
    made = Path(tempfile.mkdtemp(prefix="hyck.", dir=tmp_path))
    (made / "lock").touch()
    return made


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.fixture
def sleeper(run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that a test of the run started."""
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, "HYPER_CHECK_RUN": str(run)})
    yield process
    process.kill()
    process.wait()


def test_a_run_is_dead_when_nobody_holds_its_lock(run: Path) -> None:
    with (run / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list(sweep.dead_runs(run.parent)) == []
    assert list(sweep.dead_runs(run.parent)) == [run]


def test_a_run_that_has_just_begun_is_left_alone(run: Path) -> None:
    (run / "lock").unlink()
    assert list(sweep.dead_runs(run.parent)) == []
    os.utime(run, (0, 0))
    assert list(sweep.dead_runs(run.parent)) == [run]


def test_a_link_is_not_followed(run: Path, tmp_path: Path) -> None:
    link = tmp_path / "hyck.link00"
    link.symlink_to(run)
    assert list(sweep.dead_runs(tmp_path)) == [run]


def test_processes_of_the_run_end_and_no_others(
    run: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    other = subprocess.Popen(["sleep", "60"], env={"HYPER_CHECK_RUN": f"{run}x"})
    try:
        assert sweep.processes(run) == {sleeper.pid}
        sweep.sweep(run)
        assert _ended(sleeper)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert not run.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_jailed_process_is_known_by_what_is_bound_into_its_root(run: Path) -> None:
    (run / "disk").touch()
    script = f"mount --bind {run}/disk /etc/hostname && echo up && exec sleep 60"
    jailed = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert jailed.stdout is not None
        assert jailed.stdout.readline() == b"up\n"
        assert sweep.processes(run) == {jailed.pid}
        sweep.sweep(run)
        assert _ended(jailed)
    finally:
        jailed.kill()
        jailed.wait()
        if jailed.stdout is not None:
            jailed.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_mounts_of_the_run_go(run: Path) -> None:
    place = run / "t" / "exec" / "netns"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    sweep.sweep(run)
    assert str(run) not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(run, ignore_errors=True)
