"""The whole command line of a QEMU machine, and the places of its devices."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from hyperstack.errors import GuestError
from hyperstack.vmm.base import Disk, MachineSpec, Runtime, Tap
from hyperstack.vmm.qemu import command, devices
from hyperstack.vmm.qemu.driver import limits
from tests.unit.vmm.test_uml_command import GiB, make_spec

GOLDEN = Path(__file__).parents[2] / "golden" / "qemu"


def _slots(spec: MachineSpec) -> dict[str, int]:
    return devices.assign_slots(spec.layers, spec.disks, spec.nics)


def _lines(argv: tuple[str, ...]) -> str:
    """One option a line, its value beside it."""
    return "".join(f"\n{word}" if word.startswith("-") else f" {word}" for word in argv) + "\n"


@pytest.mark.parametrize("runtime", [Runtime.TCG, Runtime.KVM])
def test_the_command_line_is_as_it_was(tmp_path: Path, runtime: Runtime) -> None:
    spec = make_spec(tmp_path)
    made = _lines(command.command_line(spec, runtime, _slots(spec)))
    assert made == (GOLDEN / f"{runtime}.argv").read_text()


def test_the_probes_command_line_is_as_it_was() -> None:
    made = _lines(command.probe_line(Runtime.KVM, 256 << 20))
    assert made == (GOLDEN / "probe.argv").read_text()


def test_nothing_of_a_guests_makes_an_option(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, share_tag='share,"x', nics=(Tap(name="a,b=c", mac="x,y", mtu=1),))
    argv = command.command_line(spec, Runtime.TCG, _slots(spec))
    values = [json.loads(word) for word in argv if word.startswith("{")]
    assert any(value.get("tag") == 'share,"x' for value in values)
    assert any(value.get("ifname") == "a,b=c" for value in values)
    assert sum(word.count("a,b=c") for word in argv if not word.startswith("{")) == 0


def test_memory_is_a_file_that_a_file_server_can_share_now_or_later(tmp_path: Path) -> None:
    for changes in ({}, {"share_socket": None, "share_tag": ""}):
        spec = make_spec(tmp_path, **changes)
        argv = command.command_line(spec, Runtime.TCG, _slots(spec))
        memory = argv[argv.index("-object") + 1]
        assert memory.startswith("memory-backend-memfd,id=memory,")
        assert ",share=on," in memory


def test_a_share_that_comes_later_has_a_place_that_no_card_takes() -> None:
    late = devices.late_share("share")
    assert (late["bus"], late["addr"]) == (devices.NIC_BRIDGE, "1f.0")
    last = devices.bridged_nic(Tap(name="t", mac="m"), devices.MAX_NICS)
    assert last["addr"] == "1e.0"


def test_formats_are_said_and_read_only_files_are_opened_so(tmp_path: Path) -> None:
    argv = command.command_line(spec := make_spec(tmp_path), Runtime.TCG, _slots(spec))
    blocks = [json.loads(argv[i + 1]) for i, word in enumerate(argv) if word == "-blockdev"]
    assert [(b["driver"], b["read-only"], b["file"]["filename"]) for b in blocks] == [
        ("raw", True, "/layers/layer"),
        ("raw", False, "/disks/scratch"),
        ("raw", True, "/layers/data"),
    ]


def test_slots_are_numbered_by_kind_and_written_down(tmp_path: Path) -> None:
    assert _slots(make_spec(tmp_path)) == {
        "layer:layer": 0,
        "disk:scratch": 1,
        "disk:data": 2,
        "nic:tap0": 1,
    }


def test_a_hot_plugged_layer_takes_the_place_of_a_disk() -> None:
    slots = {"layer:cold": 0, "disk:a": 1, "layer:hot": 2, "nic:n": 3}
    assert devices.free_slot(slots, ("disk", "layer"), 5) == 3
    assert devices.free_slot(slots, ("nic",), 5) == 1


def test_every_disk_and_layer_has_an_address_of_its_own() -> None:
    layers = [devices.layer_device(f"l{i}", i) for i in range(devices.MAX_LAYERS)]
    disks = [devices.bridged_disk(f"d{i}", i) for i in range(1, devices.MAX_DISKS + 1)]
    fixed: list[tuple[object, object]] = [
        ("pcie.0", address) for address in ("0.0", "1.0", "2.0", "3.0", "4.0", "1f.0")
    ]
    fixed += [("pcie.0", devices.bridge(name)["addr"]) for name in devices.BRIDGES]
    places = [(d["bus"], d["addr"]) for d in (*layers, *disks)] + fixed
    assert len(set(places)) == len(places)
    assert devices.MAX_LAYERS >= 127


@pytest.mark.parametrize(
    ("layers", "disks", "nics", "words"),
    [
        (devices.MAX_LAYERS + 1, 0, 0, "more than 184 layers"),
        (0, devices.MAX_DISKS + 1, 0, "more than 62 disks"),
        (0, 0, devices.MAX_NICS + 1, "more than 30 network cards"),
    ],
)
def test_more_than_there_is_room_for_is_refused(
    layers: int, disks: int, nics: int, words: str
) -> None:
    def some(count: int) -> list[Disk]:
        return [Disk(path=Path("x"), read_only=True, name=f"d{i}") for i in range(count)]

    taps = [Tap(name=f"n{i}", mac="") for i in range(nics)]
    with pytest.raises(GuestError, match=words):
        devices.assign_slots(some(layers), some(disks), taps)


def test_files_are_bounded_by_the_largest_disk_or_the_memory(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    assert limits(spec, GiB)[resource.RLIMIT_FSIZE] == 3 * GiB
    assert limits(spec, 10 * GiB)[resource.RLIMIT_FSIZE] == 10 * GiB
    assert limits(make_spec(tmp_path, memory=20 * GiB), GiB)[resource.RLIMIT_FSIZE] > 20 * GiB
    assert limits(spec, GiB)[resource.RLIMIT_CORE] == 0
