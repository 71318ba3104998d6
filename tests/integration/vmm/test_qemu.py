"""What only QEMU machines have: deep images, several CPUs, ways to die, and the probe of KVM."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace as with_changes
from pathlib import Path

import pytest

from hyperstack.errors import GuestError
from hyperstack.vmm import probe
from hyperstack.vmm.base import Driver, MachineSpec, Runtime
from hyperstack.vmm.qemu import verdict
from tests.integration.vmm.room import (
    Bench,
    MiB,
    Room,
    make_layer,
    processes_of,
    replace,
    room,
    tar_of,
)

Place = tuple[Room, MachineSpec]


@pytest.fixture
async def tcg_place(
    bench: Bench, all_drivers: dict[Runtime, Driver], uid: int
) -> AsyncIterator[Place]:
    """A room for an emulated machine."""
    driver = all_drivers[Runtime.TCG]
    usable = await driver.usable()
    if not usable.ok:
        pytest.skip(usable.reason)
    async with room(bench, driver, uid) as made:
        yield made


async def test_an_image_of_127_layers_is_one_root(tcg_place: Place, tmp_path: Path) -> None:
    room, spec = tcg_place
    layers = tuple(
        make_layer(tmp_path, room.bench.kit, f"deep{i}", tar_of(**{f"f{i}": f"layer {i}"}))
        for i in range(126)
    )
    async with room.guest(replace(spec, layers=(*layers, *spec.layers), cpus=2)) as guest:
        root = guest.root_on(*(guest.machine.layer(layer.name) for layer in layers))
        script = "cat /f0; echo; cat /f125; echo; ls -d /f* | wc -l; nproc"
        text = await guest.sh(script, root=root)
        assert text.splitlines() == [
            "layer 0",
            "layer 125",
            "126",
            str(min(2, os.cpu_count() or 1)),
        ]
        # Room for what comes later is elsewhere.
        hot = await guest.machine.add_layer(
            make_layer(tmp_path, room.bench.kit, "hot", tar_of(hot="hot"))
        )
        assert await guest.sh("cat /hot", root=guest.root_on(hot)) == "hot"


async def test_many_disks_come_and_go(tcg_place: Place) -> None:
    room, spec = tcg_place
    async with room.guest(spec) as guest:
        for number in range(40):
            await guest.machine.add_disk(room.disk(f"d{number}", MiB))
        count = "ls -d /sys/block/vd* | wc -l"
        seen = await guest.sh(
            f"until [ $({count}) = 41 ]; do sleep 0.1; done; ls -d /sys/block/vd*"
        )
        assert len(set(seen.split())) == 41
        for number in range(40):
            await guest.machine.remove_disk(f"d{number}")
        assert await guest.sh(count) == "1"
        assert not any(key.startswith("disk:") for key in guest.machine.record.slots)
        assert not list((room.sandbox_dir / "disks").iterdir())


async def test_a_machine_whose_vmm_is_killed_is_gone(tcg_place: Place) -> None:
    room, spec = tcg_place
    async with room.guest(spec) as guest:
        os.kill(guest.machine.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            await guest.machine.wait()
        assert not guest.machine.alive()
        with pytest.raises(GuestError, match="has ended"):
            await guest.machine.resume()
    assert not processes_of(room.uid)


async def test_a_guest_that_cannot_boot_ends_and_its_console_says_why(
    tcg_place: Place, tmp_path: Path
) -> None:
    room, spec = tcg_place
    kit = tmp_path / "kit"
    shutil.copytree(spec.kit / "qemu", kit / "qemu", symlinks=True)
    (kit / "qemu" / "initramfs").write_bytes(b"")
    machine = await room.driver.launch(replace(spec, kit=kit))
    try:
        async with asyncio.timeout(room.bound):
            await machine.console_ready()
            await machine.wait()
        assert not machine.alive()
        assert "Kernel panic" in machine.console_tail()
    finally:
        await machine.kill()
        await machine.close()
    assert not processes_of(room.uid)


async def test_a_guest_boots_in_the_probe_and_nothing_of_it_stays(
    tcg_place: Place, bench: Bench
) -> None:
    assert await probe.boot(bench.config, bench.kit, Runtime.TCG, 120) is None
    reason = await probe.boot(bench.config, bench.kit, Runtime.TCG, 0.3)
    assert reason is not None
    assert "did not reach its agent within 0 s" in reason
    assert not list(bench.config.exec_root.glob("probe-*"))
    assert not processes_of(bench.config.uid_base + bench.config.uid_count - 1, "qemu")


async def test_what_a_killed_daemon_left_of_a_probe_is_ended(
    tcg_place: Place, bench: Bench
) -> None:
    uid = bench.config.uid_base + bench.config.uid_count - 1
    stuck = asyncio.create_task(probe.boot(bench.config, bench.kit, Runtime.TCG, 120))
    while not list(bench.config.exec_root.glob("probe-*/process")):
        await asyncio.sleep(0.01)
    await probe.sweep(bench.config)
    assert not processes_of(uid, "qemu")
    assert not list(bench.config.exec_root.glob("probe-*"))
    assert "ended before it reached its agent" in str(await stuck)


async def test_a_probe_that_is_cancelled_leaves_nothing(tcg_place: Place, bench: Bench) -> None:
    running = asyncio.create_task(probe.boot(bench.config, bench.kit, Runtime.TCG, 120))
    while not list(bench.config.exec_root.glob("probe-*/process")):
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not processes_of(bench.config.uid_base + bench.config.uid_count - 1, "qemu")
    assert not list(bench.config.exec_root.glob("probe-*"))


async def test_the_probe_of_kvm_comes_to_a_verdict_and_keeps_it(
    tcg_place: Place, bench: Bench, tmp_path: Path
) -> None:
    config = with_changes(bench.config, kit_dir=tmp_path)
    if not probe.needed(config, bench.kit):
        pytest.skip("this host has no /dev/kvm")
    found = await probe.probe(config, bench.kit, timeout=5.0)
    assert found.ok or "/dev/kvm" in found.reason
    assert verdict.load(tmp_path, bench.kit.version) == found
    assert not probe.needed(config, bench.kit)
