"""What a daemon may not leave behind: processes, mounts, network namespaces, files, rules."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.framework.host import Host

PER_WORKER = 70_000
LINKS_WITHIN = 10.0
"""Seconds within which the kernel has ended a namespace that nobody uses."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Things on the host that belong to one test worker's daemon."""

    processes: frozenset[str]
    mounts: frozenset[str]

    @classmethod
    def take(cls, worker: int, *folders: Path) -> Snapshot:
        """Look at what the host has now of the daemon that keeps things in *folders*."""
        return cls(
            processes=frozenset(_processes(700_000 + worker * PER_WORKER)),
            mounts=frozenset(
                line.split()[4]
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if any(f"{folder}/" in line for folder in folders)
            ),
        )

    def compare(self, after: Snapshot) -> None:
        """Fail if *after* has something that this has not."""
        processes = sorted(after.processes - self.processes)
        assert not processes, f"processes were left behind: {processes}"
        mounts = sorted(after.mounts - self.mounts)
        assert not mounts, f"mounts were left behind: {mounts}"


def _processes(base: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            uid = entry.stat().st_uid
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            # The dead whose parent is PID 1 are that one's to bury.
            if base <= uid < base + PER_WORKER and state not in "ZX":
                found.append(f"{entry.name} {(entry / 'comm').read_text().strip()} uid {uid}")
        except OSError:
            continue
    return found


def _mounts_of(pid: str) -> str:
    """Return the mount table of a process: a jailed one's names the data root of its daemon."""
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return ""


def leftovers(host: Host) -> list[str]:
    """Say what a daemon without containers and images still has: files, mounts, processes."""
    found = [
        f"{path} {sorted(p.name for p in path.iterdir())}"
        for path in (
            host.data_root / "containers",
            host.data_root / "sandboxes",
            host.data_root / "layers",
            host.data_root / "volumes",
            host.exec_root / "sandboxes",
            host.exec_root / "netns",
        )
        if path.is_dir() and any(not p.name.startswith("jobs") for p in path.iterdir())
    ]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    folders = (f"{host.root}/", f"{host.exec_root}/")
    found += [line.split()[4] for line in mounts if any(folder in line for folder in folders)]
    found += [
        process
        for process in _processes(700_000 + host.number * PER_WORKER)
        if f"{host.root}/" in _mounts_of(process.split()[0])
    ]
    rules = host.inside("nft", "list", "ruleset").out
    found += [line for line in rules.splitlines() if "elements" in line and " : " in line]
    return found + _links(host)


def _links(host: Host) -> list[str]:
    """Say which links stay: the kernel removes those of a namespace a while after its end."""
    bound = time.monotonic() + LINKS_WITHIN
    while True:
        links = host.inside("ip", "-o", "link").out.splitlines()
        stay = [line for line in links if not any(w in line for w in (" lo:", " hyper0:"))]
        if not stay or time.monotonic() > bound:
            return stay
        time.sleep(0.05)
