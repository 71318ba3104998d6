"""Limits of block devices, on folders that look like a host's cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperstack.errors import InternalError
from hyperstack.platform.blockio import DeviceLimit, Kind, device_number
from hyperstack.platform.cgroup import CgroupLimits, Cgroups

SANDBOX = "0123456789abcdef" * 4
READ = DeviceLimit(kind=Kind.READ_BPS, device="254:0", rate=1 << 20)
WRITES = DeviceLimit(kind=Kind.WRITE_IOPS, device="254:0", rate=100)


class Kernel:
    """What a file of version 1 shows after writes, which plain files do not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self, kind: Kind) -> str:
        return (self.folder / kind.value[0]).read_text()


def first(folder: Path) -> tuple[Cgroups, Kernel]:
    """One hierarchy of version 1 for devices, one for processes, and a sandbox's group in both."""
    for controller in ("blkio", "pids"):
        (folder / controller / "hyper" / SANDBOX[:16]).mkdir(parents=True)
    (folder / "blkio" / Kind.READ_BPS.value[0]).touch()
    group = folder / "blkio" / "hyper" / SANDBOX[:16]
    for kind in Kind:
        (group / kind.value[0]).touch()
    made = Cgroups(1, {"blkio": folder / "blkio", "pids": folder / "pids"})
    return made, Kernel(group)


def test_a_limit_is_written_for_its_device_and_taken_away_again(tmp_path: Path) -> None:
    cgroups, kernel = first(tmp_path)
    assert cgroups.limits_devices
    assert kernel.folder in cgroups.create(SANDBOX, CgroupLimits(devices=(READ, WRITES)))
    assert kernel.text(Kind.READ_BPS) == f"254:0 {1 << 20}"
    assert kernel.text(Kind.WRITE_IOPS) == "254:0 100"
    assert kernel.text(Kind.WRITE_BPS) == ""
    cgroups.update(SANDBOX, CgroupLimits(devices=(WRITES,)))
    assert kernel.text(Kind.READ_BPS) == "254:0 0"
    assert kernel.text(Kind.WRITE_IOPS) == "254:0 100"


def test_only_who_is_limited_has_a_group_on_version_1(tmp_path: Path) -> None:
    cgroups, kernel = first(tmp_path)
    for kind in Kind:
        (kernel.folder / kind.value[0]).unlink()
    kernel.folder.rmdir()
    assert kernel.folder not in cgroups.create(SANDBOX, CgroupLimits())
    assert not kernel.folder.exists()


def test_limits_of_version_2_are_one_line_for_each_device(tmp_path: Path) -> None:
    group = tmp_path / "hyper" / SANDBOX[:16]
    group.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory\n")
    (group / "io.max").touch()
    cgroups = Cgroups(2, {"": tmp_path})
    assert cgroups.limits_devices
    cgroups.update(SANDBOX, CgroupLimits(devices=(READ, WRITES)))
    assert (group / "io.max").read_text() == f"254:0 rbps={1 << 20} wbps=max riops=max wiops=100"
    cgroups.update(SANDBOX, CgroupLimits())
    assert (group / "io.max").read_text() == "254:0 rbps=max wbps=max riops=max wiops=max"


def test_a_host_without_such_cgroups_says_so(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    cgroups = Cgroups(1, {"pids": tmp_path / "pids"})
    assert not cgroups.limits_devices
    assert not Cgroups(2, {"": tmp_path}).limits_devices
    with pytest.raises(InternalError, match="no cgroups for limits of block devices"):
        cgroups.create(SANDBOX, CgroupLimits(devices=(READ,)))


@pytest.mark.parametrize("path", ["/dev/no-such", "", "relative"])
def test_a_device_that_is_not_there_is_told_in_dockers_words(path: str) -> None:
    with pytest.raises(InternalError) as refused:
        device_number(path)
    assert refused.value.message == f"stat {path}: no such file or directory"


def test_a_device_is_known_by_its_numbers() -> None:
    assert device_number("/dev/null") == "1:3"
