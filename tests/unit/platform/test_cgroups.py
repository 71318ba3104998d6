from __future__ import annotations

from pathlib import Path

import pytest

from hyperstack.errors import InternalError
from hyperstack.platform.cgroup import CgroupLimits, Cgroups, v2_weight

SANDBOX = "0123456789abcdef" * 4
V1 = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 30 0:31 /../outside /mnt/memory rw - cgroup cgroup rw,memory
"""
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_a_hybrid_host_counts_as_version_1() -> None:
    found = Cgroups.detect(V1)
    assert found.version == 1
    assert found.folders(SANDBOX) == (
        Path("/sys/fs/cgroup/cpu,cpuacct/hyper/0123456789abcdef"),
        Path("/sys/fs/cgroup/memory/hyper/0123456789abcdef"),
        Path("/sys/fs/cgroup/pids/hyper/0123456789abcdef"),
    )


def test_a_unified_host_has_one_folder_per_sandbox() -> None:
    found = Cgroups.detect(V2)
    assert found.version == 2
    assert found.folders(SANDBOX) == (Path("/sys/fs/cgroup/hyper/0123456789abcdef"),)


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000), (0, 1), (1 << 30, 10000)]
)
def test_shares_become_weights_as_runc_does_it(shares: int, weight: int) -> None:
    assert v2_weight(shares) == weight


def unified(folder: Path) -> tuple[Cgroups, Path]:
    """Folders that look like a unified hierarchy's: plain files take what is written to them."""
    group = folder / "hyper" / SANDBOX[:16]
    group.mkdir(parents=True)
    for name, value in {
        "memory.max": "max", "cpu.max": "max 100000", "cpu.weight": "100", "pids.max": "max",
        "cgroup.procs": "", "memory.current": "4096\n", "cpu.stat": "usage_usec 7\nuser_usec 5\n",
    }.items():  # fmt: skip
        (group / name).write_text(value)
    return Cgroups(2, {"": folder}), group


def test_limits_are_written_in_version_2s_words(tmp_path: Path) -> None:
    cgroups, group = unified(tmp_path)
    limits = CgroupLimits(memory=1 << 20, cpu_quota=50_000, cpu_weight=1024, pids=9)
    cgroups.create(SANDBOX, limits)
    written = {path.name: path.read_text() for path in group.iterdir()}
    assert written["memory.max"] == str(1 << 20)
    assert written["cpu.max"] == "50000 100000"
    assert written["cpu.weight"] == "39"
    assert written["pids.max"] == "9"


def test_a_limit_that_the_kernel_lacks_is_an_error_and_no_limit_is_none(tmp_path: Path) -> None:
    cgroups, group = unified(tmp_path)
    (group / "pids.max").unlink()
    cgroups.update(SANDBOX, CgroupLimits())
    with pytest.raises(InternalError, match="the sandbox's limits can't be set"):
        cgroups.update(SANDBOX, CgroupLimits(pids=5))


def test_usage_is_read_and_zero_where_nothing_counts(tmp_path: Path) -> None:
    cgroups, group = unified(tmp_path)
    assert cgroups.usage(SANDBOX).cpu_ns == 7000
    assert cgroups.usage(SANDBOX).memory == 4096
    for path in group.iterdir():
        path.unlink()
    assert cgroups.usage(SANDBOX).cpu_ns == 0


def sets(folder: Path) -> tuple[Cgroups, Path]:
    """Folders that look like those of version 1: one hierarchy of CPU sets, one of limits."""
    for path in (folder / "cpuset", folder / "cpuset" / "hyper"):
        path.mkdir()
        for name, value in (("cpuset.cpus", "0-3"), ("cpuset.mems", "0")):
            (path / name).write_text(value if path.name == "cpuset" else "")
    (folder / "pids").mkdir()
    return Cgroups(1, {"pids": folder / "pids", "cpuset": folder / "cpuset"}), folder / "cpuset"


def test_only_who_asks_for_cpus_has_a_group_of_them_on_version_1(tmp_path: Path) -> None:
    cgroups, root = sets(tmp_path)
    assert cgroups.create(SANDBOX, CgroupLimits()) == (tmp_path / "pids" / "hyper" / SANDBOX[:16],)
    assert not (root / "hyper" / SANDBOX[:16]).exists()
    assert (root / "hyper" / "cpuset.cpus").read_text() == "0-3"


def test_a_set_of_cpus_is_inherited_where_nothing_else_is_said(tmp_path: Path) -> None:
    cgroups, root = sets(tmp_path)
    group = root / "hyper" / SANDBOX[:16]
    group.mkdir()
    for name in ("cpuset.cpus", "cpuset.mems", "cgroup.procs"):
        (group / name).write_text("")
    assert group in cgroups.create(SANDBOX, CgroupLimits(cpus="1,3"))
    assert (group / "cpuset.cpus").read_text() == "1,3"
    assert (group / "cpuset.mems").read_text() == "0"


def test_cpus_that_no_cgroup_can_keep_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    with pytest.raises(InternalError, match="no cgroups for sets of CPUs"):
        Cgroups(1, {"pids": tmp_path / "pids"}).create(SANDBOX, CgroupLimits(cpus="0"))


def test_a_set_of_cpus_is_written_in_version_2s_words(tmp_path: Path) -> None:
    cgroups, group = unified(tmp_path)
    for name in ("cpuset.cpus", "cpuset.mems"):
        (group / name).write_text("")
    cgroups.create(SANDBOX, CgroupLimits(cpus="1", nodes="0"))
    assert (group / "cpuset.cpus").read_text() == "1"
    assert (group / "cpuset.mems").read_text() == "0"


async def test_version_2_is_killed_by_its_own_file(tmp_path: Path) -> None:
    cgroups, group = unified(tmp_path)
    (group / "cgroup.kill").write_text("")
    (group / "cgroup.procs").write_text("4194303\n0\n")
    assert cgroups._kill_once(SANDBOX)
    assert (group / "cgroup.kill").read_text() == "1"
    (group / "cgroup.procs").write_text("")
    await cgroups.kill(SANDBOX)


def test_what_exists_is_known_by_its_first_digits(tmp_path: Path) -> None:
    cgroups, _ = unified(tmp_path)
    assert cgroups.known() == {SANDBOX[:16]}
