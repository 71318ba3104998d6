"""The whole command line of a User Mode Linux machine, and the numbers of its devices."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hyperstack.errors import GuestError
from hyperstack.ids import SandboxId
from hyperstack.vmm.base import Disk, MachineSpec, Runtime, Tap
from hyperstack.vmm.running import file_size_limit
from hyperstack.vmm.uml import command
from hyperstack.vmm.uml.disks import free_slot
from hyperstack.vmm.uml.driver import assign_slots, limits

GiB = 1 << 30


def make_spec(tmp_path: Path, **changes: object) -> MachineSpec:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(3 * GiB)
    values: dict[str, object] = {
        "id": SandboxId("0123456789abcdef" * 4),
        "uid": 700_001,
        "memory": 512 << 20,
        "cpus": 2,
        "kit": tmp_path / "kit",
        "sandbox_dir": tmp_path / "data",
        "run_dir": tmp_path / "run",
        "netns": tmp_path / "netns",
        "agent_tap": Tap(name="agent0", mac="02:48:59:50:00:01"),
        "nics": (Tap(name="tap0", mac="02:42:ac:11:00:02", mtu=1400),),
        "layers": (Disk(path=image, read_only=True, name="layer"),),
        "disks": (
            Disk(path=image, read_only=False, name="scratch"),
            Disk(path=image, read_only=True, name="data"),
        ),
        "share_socket": tmp_path / "fs.sock",
        "share_tag": "share",
    }
    return MachineSpec(**{**values, **changes})  # type: ignore[arg-type]  # one place, checked by use


def test_the_command_line_is_as_it_was(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    assert command.command_line(spec, Runtime.UML, assign_slots(spec)) == (
        "linux",
        "mem=524288K",
        "uml_dir=/uml/",
        "umid=0123456789abcdef",
        "seccomp=off",
        "con=null",
        "con0=null,fd:2",
        "pty.legacy_count=0",
        "quiet",
        "noreboot",
        "panic=-1",
        "initcall_blacklist=raid6_init,calibrate_xor_blocks,init_btrfs_fs,init_jfs_fs,"
        "init_xfs_fs,ssl_init,harddog_miscdev_init",
        "lpj=5000000",
        "rootfstype=hostfs",
        "rootflags=/guest",
        "rw",
        "init=/agent",
        "ubd0rcd=/run/none",
        "vec0:transport=tap,ifname=agent0,mac=02:48:59:50:00:01,mtu=1500,depth=128,gro=1",
        "vec1:transport=tap,ifname=tap0,mac=02:42:ac:11:00:02,mtu=1400,depth=128,gro=1",
        "ubd1d=/disks/scratch",
        "ubd2rcd=/layers/data",
        "virtio_uml.device=/run/fs.sock:26",
    )


def test_a_machine_without_a_share_looks_for_one_where_it_may_come_later(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, share_socket=None, share_tag="")
    words = command.command_line(spec, Runtime.UML, assign_slots(spec))
    assert words[-1] == "virtio_uml.device=/disks/fs.sock:26"


def test_the_fast_runtime_differs_in_one_word(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    slots = assign_slots(spec)
    safe = command.command_line(spec, Runtime.UML, slots)
    fast = command.command_line(spec, Runtime.UML_FAST, slots)
    assert set(safe) ^ set(fast) == {"seccomp=off", "seccomp=on"}


def test_disks_and_nics_are_numbered_apart_and_written_down(tmp_path: Path) -> None:
    slots = assign_slots(make_spec(tmp_path))
    assert slots == {"disk:scratch": 1, "disk:data": 2, "nic:tap0": 1}
    assert msgspec.json.decode(msgspec.json.encode(slots)) == slots
    assert command.device(1) == "/dev/ubdb"
    assert command.device(15) == "/dev/ubdp"


def test_more_disks_than_there_are_slots_are_refused(tmp_path: Path) -> None:
    disks = tuple(Disk(path=tmp_path, read_only=True, name=f"d{i}") for i in range(16))
    with pytest.raises(GuestError, match="can't have more than 15"):
        assign_slots(make_spec(tmp_path, disks=disks))


def test_the_lowest_free_slot_is_taken() -> None:
    assert free_slot({1, 3}, 1, 5) == 2
    with pytest.raises(GuestError):
        free_slot({1, 2}, 1, 2)


def test_files_are_bounded_by_the_largest_disk_and_no_core_is_written(tmp_path: Path) -> None:
    import resource

    spec = make_spec(tmp_path)
    assert limits(spec, GiB)[resource.RLIMIT_FSIZE] == 3 * GiB
    assert limits(spec, 10 * GiB)[resource.RLIMIT_FSIZE] == 10 * GiB
    assert limits(spec, GiB)[resource.RLIMIT_CORE] == 0
    assert limits(spec, GiB)[resource.RLIMIT_NPROC] == 4096


def test_the_limit_on_files_is_read_from_proc() -> None:
    text = Path("/proc/self/limits").read_text()
    assert file_size_limit(text) > 0
    assert file_size_limit("Max file size             1024                 2048   bytes") == 1024
