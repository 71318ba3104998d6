"""Clears away what killed runs of ./check left: processes, cgroups, mounts, files.

A run has a folder /tmp/hyck.*, its name in the environment of all its tests, and a lock on
the folder's file ``lock`` as long as its pytest lives. Only what belongs to a folder whose lock is
free is touched. A jailed process has no environment of the run's: it is known by its sandbox's
cgroup, and by files of the run's that are bound into its root (proc(5), mountinfo, field 4).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

RUNS = Path("/tmp")  # noqa: S108 - where mktemp of ./check makes them, for root alone
PATTERN = "hyck.*"
BOUND = 20.0


def dead_runs(folder: Path = RUNS) -> Iterator[Path]:
    """Give the folders of runs that nobody is in any more."""
    for run in sorted(folder.glob(PATTERN)):
        if run.is_symlink() or run.stat().st_uid != os.geteuid():
            continue
        try:
            with (run / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            if time.time() - run.stat().st_mtime < 60:
                continue  # it is about to take its lock
        except OSError:
            continue
        yield run


def cgroups(run: Path) -> list[Path]:
    """Return the cgroups of the run's sandboxes, in every hierarchy."""
    names = {path.name[:16] for path in run.glob("**/sandboxes/*")}
    groups = [*Path("/sys/fs/cgroup").glob("hyper"), *Path("/sys/fs/cgroup").glob("*/hyper")]
    return [group / name for group in groups for name in names if (group / name).is_dir()]


def _bound_into(pid: str, run: Path) -> bool:
    """Tell whether files of the run are bound to places outside its folder, as in a jail."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines():
            _, _, _, source, target, *_ = line.split(" ")
            # The source is a path within its file system, which need not be the one of "/".
            if f"/{run.name}/" in source and not target.startswith(f"{run}/"):
                return True
    return False


def _started_by(pid: str, run: Path) -> bool:
    with contextlib.suppress(OSError):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"HYPER_CHECK_RUN={run}".encode() in variables:
            return True
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(word.startswith(f"{run}/".encode()) for word in words)
    return False


def processes(run: Path) -> set[int]:
    """Return the processes of a run, dead ones that nobody has buried left out."""
    found = set()
    for group in cgroups(run):
        with contextlib.suppress(OSError):
            found |= {int(line) for line in (group / "cgroup.procs").read_text().split()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (_started_by(entry.name, run) or _bound_into(entry.name, run)):
            found.add(int(entry.name))
    return {pid for pid in found - {1, os.getpid()} if _lives(pid)}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _end_processes(run: Path) -> None:
    bound = time.monotonic() + BOUND
    while (found := processes(run)) and time.monotonic() < bound:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _unmount(run: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split(" ")[4] for line in lines]
    for mount in reversed([m for m in mounts if m.startswith(f"{run}/")]):
        subprocess.run(["umount", "-l", mount], check=False)


def sweep(run: Path) -> None:
    """Remove everything of a run that is over."""
    _end_processes(run)
    for group in cgroups(run):
        with contextlib.suppress(OSError):
            group.rmdir()
    _unmount(run)
    shutil.rmtree(run, ignore_errors=True)


def main() -> None:
    """Sweep what killed runs left."""
    for run in dead_runs():
        sweep(run)


if __name__ == "__main__":
    main()
