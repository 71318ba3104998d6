"""Cgroups of sandboxes on the host, version 2 or 1 (cgroups(7)): the one module that knows which.

Every sandbox has a cgroup ``hyper/<first 16 digits of its id>``; on version 1 one in each of the
hierarchies that are of use here. VMM and helpers of the sandbox live in it together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperstack.errors import InternalError
from hyperstack.platform import blockio
from hyperstack.platform.blockio import DeviceLimit

log = logging.getLogger(__name__)

GROUP = "hyper"
V1_CONTROLLERS = ("memory", "cpu", "pids", "cpuset", "cpuacct", blockio.V1_CONTROLLER)
V2_CONTROLLERS = ("cpu", "memory", "pids", "cpuset", blockio.V2_CONTROLLER)
_SETS = ("cpuset.cpus", "cpuset.mems")
_MOVES = 3


@dataclass(frozen=True, kw_only=True)
class CgroupLimits:
    """Limits of a sandbox. Memory in bytes, quota and period in microseconds, None = no limit.

    ``cpu_weight`` is Docker's shares (2 to 262144, 1024 by default); ``cpus`` and ``nodes`` are
    lists like ``0-3,7``, empty for all.
    """

    memory: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_weight: int | None = None
    pids: int | None = None
    cpus: str = ""
    nodes: str = ""
    devices: tuple[DeviceLimit, ...] = ()

    @property
    def pinned(self) -> bool:
        """Whether a part of the host's CPUs or memory nodes was asked for."""
        return bool(self.cpus or self.nodes)

    def needs(self, controller: str) -> bool:
        """Tell whether there is anything to say to a controller of version 1."""
        if controller == "cpuset":
            return self.pinned
        return controller != blockio.V1_CONTROLLER or bool(self.devices)


@dataclass(frozen=True, kw_only=True)
class CgroupUsage:
    """What a sandbox has used: CPU in nanoseconds, memory in bytes."""

    cpu_ns: int
    memory: int


def v2_weight(shares: int) -> int:
    """Translate Docker's shares to version 2's weight, as runc does."""
    bounded = max(2, min(262144, shares))
    return 1 + (bounded - 2) * 9999 // 262142


class Cgroups:
    """The cgroups of all sandboxes. *roots*: a folder per controller, under "" on version 2."""

    def __init__(self, version: int, roots: Mapping[str, Path]) -> None:
        self.version = version
        self._roots = dict(roots)
        self._ready = False

    @classmethod
    def detect(cls, mountinfo: str | None = None) -> Cgroups:
        """Look at the mount table (or *mountinfo*, a text like /proc/self/mountinfo)."""
        text = mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()
        v1: dict[str, Path] = {}
        v2: Path | None = None
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            kind, _, rest = after.partition(" ")
            fields = before.split(" ")
            if len(fields) < 5 or fields[3].startswith("/.."):
                continue
            mount = Path(fields[4])
            if kind == "cgroup2":
                v2 = v2 or mount
            elif kind == "cgroup":
                options = rest.split(" ")[-1].split(",")
                for controller in V1_CONTROLLERS:
                    if controller in options:
                        v1.setdefault(controller, mount)
        if v2 is not None and not v1:
            return cls(2, {"": v2})
        return cls(1, v1)

    def _prepare(self) -> None:
        for controller, root in self._roots.items():
            group = root / GROUP
            group.mkdir(exist_ok=True)
            if controller == "cpuset":
                _inherit(root, group)
            if self.version == 2:
                for folder in (root, group):
                    for controller in V2_CONTROLLERS:
                        # A controller that this host lacks or holds back is one limit fewer.
                        with contextlib.suppress(OSError):
                            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        self._ready = True

    @property
    def limits_devices(self) -> bool:
        """Whether the kernel can limit what a sandbox reads from block devices and writes there."""
        if self.version == 1:
            root = self._roots.get(blockio.V1_CONTROLLER)
            return root is not None and (root / blockio.Kind.READ_BPS.value[0]).exists()
        offered = self._roots[""] / "cgroup.controllers"
        with contextlib.suppress(OSError):
            return blockio.V2_CONTROLLER in offered.read_text().split()
        return False

    def folders(self, sandbox: str) -> tuple[Path, ...]:
        """Return the folders of a sandbox's cgroup, one for each hierarchy."""
        # Some hosts have several controllers of version 1 in one hierarchy.
        return tuple(dict.fromkeys(root / GROUP / sandbox[:16] for root in self._roots.values()))

    def create(self, sandbox: str, limits: CgroupLimits) -> tuple[Path, ...]:
        """Make a sandbox's cgroup with its limits. Raises InternalError."""
        try:
            if not self._ready:
                self._prepare()
            name = sandbox[:16]
            # Some hosts have several controllers of version 1 in one hierarchy.
            wanted = [c for c in self._roots if self.version == 2 or limits.needs(c)]
            folders = tuple(dict.fromkeys(self._roots[c] / GROUP / name for c in wanted))
            for folder in folders:
                folder.mkdir(exist_ok=True)
            self.update(sandbox, limits)
        except OSError as error:
            raise InternalError(f"the sandbox's cgroup can't be made: {error}") from error
        return folders

    def update(self, sandbox: str, limits: CgroupLimits) -> None:
        """Set a sandbox's limits. Raises InternalError if the kernel refuses a value."""
        name = sandbox[:16]
        if limits.pinned and self.version == 1 and "cpuset" not in self._roots:
            raise InternalError("this host has no cgroups for sets of CPUs and memory nodes")
        if limits.devices and not self.limits_devices:
            raise InternalError("this host has no cgroups for limits of block devices")
        try:
            for controller, root in self._roots.items():
                folder = root / GROUP / name
                if controller == "cpuset":
                    self._pin(sandbox, folder, limits)
                elif self.version == 2:
                    _write_all(folder, _v2_values(limits))
                    blockio.write_v2(folder, limits.devices)
                elif controller == blockio.V1_CONTROLLER:
                    self._throttle(sandbox, folder, limits)
                else:
                    _write_all(folder, _v1_values(controller, limits))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise InternalError(f"the sandbox's limits can't be set: {why}") from error

    def _pin(self, sandbox: str, folder: Path, limits: CgroupLimits) -> None:
        """Pin a sandbox on version 1, where only those that are pinned have a group of sets."""
        fresh = not folder.exists()
        if fresh and not limits.pinned:
            return
        folder.mkdir(exist_ok=True)
        _inherit(folder.parent, folder)
        sets = zip(_SETS, (limits.cpus or None, limits.nodes or None), strict=True)
        _write_all(folder, dict(sets))
        if fresh:
            self._move_in(sandbox, folder)

    def _throttle(self, sandbox: str, folder: Path, limits: CgroupLimits) -> None:
        """Limit a sandbox's devices on version 1, where only who is limited has a group."""
        fresh = not folder.exists()
        if fresh and not limits.devices:
            return
        folder.mkdir(exist_ok=True)
        blockio.write_v1(folder, limits.devices)
        if fresh:
            self._move_in(sandbox, folder)

    def _move_in(self, sandbox: str, folder: Path) -> None:
        """Bring a sandbox's processes into a group that was made later than they."""
        for _ in range(_MOVES):  # what is forked meanwhile is where its parent was
            for pid in self.pids(sandbox):
                with contextlib.suppress(ProcessLookupError):
                    (folder / "cgroup.procs").write_text(str(pid))

    def usage(self, sandbox: str) -> CgroupUsage:
        """Return what a sandbox has used; zeros where the host does not count."""
        cpu = memory = 0
        for folder in self.folders(sandbox):
            if self.version == 2:
                cpu = _keyed(folder / "cpu.stat").get("usage_usec", 0) * 1000
                memory = _number(folder / "memory.current")
                continue
            cpu = cpu or _number(folder / "cpuacct.usage")
            memory = memory or _number(folder / "memory.usage_in_bytes")
        return CgroupUsage(cpu_ns=cpu, memory=memory)

    def pids(self, sandbox: str) -> set[int]:
        """Return the processes of a sandbox's cgroup as this process sees their numbers."""
        found: set[int] = set()
        for folder in self.folders(sandbox):
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
        found.discard(0)
        return found

    async def kill(self, sandbox: str) -> None:
        """Kill everything in a sandbox's cgroup, within ten seconds. Raises InternalError."""
        for _ in range(200):
            if not self._kill_once(sandbox):
                return
            await asyncio.sleep(0.05)
        raise InternalError(f"processes of sandbox {sandbox[:12]} could not be killed")

    def _kill_once(self, sandbox: str) -> bool:
        """Kill what is in a sandbox's cgroup now; False if there is nothing."""
        pids = self.pids(sandbox)
        if not pids:
            return False
        for folder in self.folders(sandbox):
            # Version 2 kills all at once since Linux 5.14, what is forked meanwhile too.
            with contextlib.suppress(OSError):
                if self.version == 2:
                    (folder / "cgroup.kill").write_text("1")
                    return True
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    async def remove(self, sandbox: str) -> None:
        """Remove a sandbox's cgroup, killing what is left in it. Safe to repeat."""
        for _ in range(40):
            busy = False
            for folder in self.folders(sandbox):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    busy = True
            if not busy:
                return
            self._kill_once(sandbox)
            # The kernel lets go of a dead process's cgroup a moment after its pidfd told its end.
            await asyncio.sleep(0.01)
        log.warning("the cgroup of sandbox %s could not be removed", sandbox[:12])

    def known(self) -> set[str]:
        """Return the names (first 16 digits) of all sandbox cgroups that exist."""
        found: set[str] = set()
        for root in self._roots.values():
            with contextlib.suppress(OSError):
                found.update(entry.name for entry in (root / GROUP).iterdir() if entry.is_dir())
        return found


def _v2_values(limits: CgroupLimits) -> dict[str, str | None]:
    quota = "max" if limits.cpu_quota is None else str(limits.cpu_quota)
    return {
        "memory.max": _limit(limits.memory, "max"),
        "cpu.max": f"{quota} {limits.cpu_period or 100_000}",
        "cpu.weight": str(v2_weight(limits.cpu_weight)) if limits.cpu_weight else None,
        "pids.max": _limit(limits.pids, "max"),
        "cpuset.cpus": limits.cpus or None,
        "cpuset.mems": limits.nodes or None,
    }


def _inherit(parent: Path, group: Path) -> None:
    """Fill the sets of a new group on version 1, which are empty and let nobody in."""
    for name in _SETS:
        if not (group / name).read_text().strip():
            (group / name).write_text((parent / name).read_text())


def _v1_values(controller: str, limits: CgroupLimits) -> dict[str, str | None]:
    if controller == "memory":
        return {"memory.limit_in_bytes": _limit(limits.memory, "-1")}
    if controller == "pids":
        return {"pids.max": _limit(limits.pids, "max")}
    if controller == "cpuacct":
        return {}
    return {
        "cpu.cfs_period_us": str(limits.cpu_period) if limits.cpu_period else None,
        "cpu.cfs_quota_us": _limit(limits.cpu_quota, "-1"),
        "cpu.shares": str(limits.cpu_weight) if limits.cpu_weight else None,
    }


def _limit(value: int | None, unlimited: str) -> str:
    return unlimited if value is None else str(value)


def _write_all(folder: Path, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            continue
        path = folder / name
        # A fresh cgroup has no limits: don't write what is there already, and skip what the
        # host's kernel was built without.
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except FileNotFoundError:
            if value not in ("max", "-1") and not value.startswith("max "):
                raise


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _keyed(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}
