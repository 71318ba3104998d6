"""Limits on block devices by the host's cgroups: ``blkio`` of version 1, ``io`` of version 2.

A guest's disks, layers and shares are files of the host. What its VMM and its file server read from
a device of the host, or write to it, is what the cgroup of the sandbox counts and slows down
(Documentation/admin-guide/cgroup-v1/blkio-controller.rst, cgroup-v2.rst of Linux).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hyperstack.errors import InternalError

V1_CONTROLLER = "blkio"
V2_CONTROLLER = "io"
V2_FILE = "io.max"


class Kind(Enum):
    """What is limited: its file on version 1, its word on version 2."""

    READ_BPS = ("blkio.throttle.read_bps_device", "rbps")
    WRITE_BPS = ("blkio.throttle.write_bps_device", "wbps")
    READ_IOPS = ("blkio.throttle.read_iops_device", "riops")
    WRITE_IOPS = ("blkio.throttle.write_iops_device", "wiops")


@dataclass(frozen=True, kw_only=True)
class DeviceLimit:
    """A bound on one device of the host, ``major:minor``, in bytes or operations a second."""

    kind: Kind
    device: str
    rate: int


def device_number(path: str) -> str:
    """Return a device's ``major:minor``; blocking. Raises InternalError, as dockerd answers 500."""
    try:
        number = os.stat(path).st_rdev  # noqa: PTH116 - an empty path is none, and Path has none
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InternalError(f"stat {path}: {reason}") from error
    return f"{os.major(number)}:{os.minor(number)}"


def write_v1(folder: Path, limits: Iterable[DeviceLimit]) -> None:
    """Set the limits of a group, and take away all others. Raises InternalError."""
    wanted = {(limit.kind, limit.device): limit.rate for limit in limits}
    for kind in Kind:
        path = folder / kind.value[0]
        for device in _devices(path) if path.exists() else ():
            if (kind, device) not in wanted:
                _write(path, f"{device} 0")
    for (kind, device), rate in wanted.items():
        _write(folder / kind.value[0], f"{device} {rate}")


def write_v2(folder: Path, limits: Iterable[DeviceLimit]) -> None:
    """Do the same on version 2. Raises InternalError."""
    wanted = {(limit.kind, limit.device): limit.rate for limit in limits}
    path = folder / V2_FILE
    there = _devices(path) if path.exists() else []
    for device in dict.fromkeys((*there, *(device for _, device in wanted))):
        words = (f"{kind.value[1]}={wanted.get((kind, device)) or 'max'}" for kind in Kind)
        _write(path, f"{device} {' '.join(words)}")


def _write(path: Path, line: str) -> None:
    try:
        path.write_text(line)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InternalError(f'failed to write "{line}": write {path}: {reason}') from error


def _devices(path: Path) -> list[str]:
    """Return the devices that a file of limits names."""
    lines = path.read_text().splitlines()
    return list(dict.fromkeys(line.split(" ", 1)[0] for line in lines if line.strip()))
