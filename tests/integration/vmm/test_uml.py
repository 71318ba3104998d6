"""What only User Mode Linux has: its ways to die, its speed, its bounds."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import statistics
import time
from pathlib import Path

import pytest

from hyperstack.errors import GuestError
from hyperstack.vmm.base import Driver, MachineSpec
from hyperstack.vmm.uml import mconsole
from tests.integration.vmm.room import Bench, MiB, Room, processes_of, replace, room

Place = tuple[Room, MachineSpec]

READY_FLOOR = 0.15
"""Seconds from launch to the agent's hello (SPECIFICATION)."""
PSS_FLOOR = 50 * MiB
"""Memory of an idle machine of 512 MiB with all that belongs to it."""
TWENTY_FLOOR = 3.0


async def _last_words(room: Room, spec: MachineSpec) -> str:
    try:
        machine = await room.driver.launch(spec)
    except GuestError as error:
        # It ended before the launcher was done.
        return error.console
    try:
        async with asyncio.timeout(10):
            await machine.console_ready()
            await machine.wait()
        assert not machine.alive()
        return machine.console_tail()
    finally:
        await machine.kill()
        await machine.close()


async def test_a_guest_that_cannot_boot_ends_and_its_console_says_why(
    uml_place: Place, tmp_path: Path
) -> None:
    room, spec = uml_place
    kit = tmp_path / "kit"
    shutil.copytree(spec.kit / "uml", kit / "uml", symlinks=True)
    shutil.copytree(spec.kit / "guest", kit / "guest", symlinks=True)
    (kit / "guest" / "agent").unlink()
    words = await _last_words(room, replace(spec, kit=kit))
    assert "Requested init /agent failed" in words
    assert not processes_of(room.uid)


async def test_a_guest_with_too_little_memory_ends_and_says_so(uml_place: Place) -> None:
    room, spec = uml_place
    words = await _last_words(room, replace(spec, memory=12 * MiB))
    assert "memory" in words


async def test_a_guest_that_panics_ends_rather_than_spins(uml_place: Place) -> None:
    room, spec = uml_place
    async with room.guest(spec) as guest:
        crash = ("sh", "-c", "sleep 0.5; echo c > /proc/sysrq-trigger; sleep 100")
        container = guest.container(*crash, privileged=True, readonly_paths=(), masked_paths=())
        await guest.start(container)
        async with asyncio.timeout(10):
            await guest.machine.wait()
        assert "Kernel panic - not syncing: sysrq triggered crash" in guest.machine.console_tail()


async def test_a_link_in_place_of_the_management_console_is_not_followed(
    uml_place: Place, tmp_path: Path
) -> None:
    room, spec = uml_place
    async with room.guest(spec) as guest:
        folder = Path(f"/proc/{guest.machine.pid}/root/uml/{spec.id[:16]}")
        folder.joinpath("mconsole").unlink()
        for target in ("/run/elsewhere.sock", "/proc/1/root/run/elsewhere.sock"):
            folder.joinpath("mconsole").symlink_to(target)
            with pytest.raises(GuestError, match="its console is no socket"):
                await guest.machine.pause()
            folder.joinpath("mconsole").unlink()
        with pytest.raises(GuestError):
            await guest.machine.pause()
        await guest.ping()


async def test_a_silent_management_console_is_given_up(
    uml_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, spec = uml_place
    monkeypatch.setattr(mconsole, "TIMEOUT", 0.3)
    async with room.guest(spec) as guest:
        os.kill(guest.machine.pid, 19)
        start = time.monotonic()
        with pytest.raises(GuestError, match="did not answer 'stop' within"):
            await guest.machine.pause()
        assert time.monotonic() - start < 2
        os.kill(guest.machine.pid, 18)


async def test_a_machine_takes_no_more_disks_than_it_has_slots_for(uml_place: Place) -> None:
    room, spec = uml_place
    spec = replace(spec, disks=tuple(room.disk(f"d{i}", MiB) for i in range(14)))
    async with room.guest(spec) as guest:
        await guest.machine.add_disk(room.disk("last", MiB))
        with pytest.raises(GuestError, match="can't have more than 15"):
            await guest.machine.add_disk(room.disk("toomany", MiB))
        assert len(list((room.sandbox_dir / "disks").iterdir())) == 15
        await guest.machine.remove_disk("d7")
        source = await guest.machine.add_disk(room.disk("another", MiB))
        assert source.path == "/dev/ubdi"


@pytest.mark.parametrize("magic", [b"OOOM", b"MOOO"])
async def test_a_disk_whose_size_uml_would_read_from_guest_written_bytes_is_refused(
    uml_place: Place, magic: bytes
) -> None:
    room, spec = uml_place
    disk = room.disk("cow", MiB)
    with disk.path.open("r+b") as file:
        file.write(magic + bytes(4096))
    for read_only in (True, False):
        bad = replace(disk, read_only=read_only)
        with pytest.raises(GuestError, match="disk cow begins like a copy-on-write file"):
            await room.driver.launch(replace(spec, disks=(bad,)))
        async with room.guest(spec) as guest:
            with pytest.raises(GuestError, match="disk cow begins like a copy-on-write file"):
                await guest.machine.add_disk(bad)
            assert not list((room.sandbox_dir / "disks").iterdir())


async def test_a_disk_cannot_outgrow_its_size(bench: Bench, uml: Driver, uid: int) -> None:
    async with room(bench, uml, uid) as (place, spec), place.guest(spec) as guest:
        soft = Path(f"/proc/{guest.machine.pid}/limits").read_text()
        line = next(row for row in soft.splitlines() if row.startswith("Max file size"))
        assert int(line.split()[3]) == bench.config.storage_size
        huge = place.disk("huge", 2 * bench.config.storage_size)
        try:
            resource.prlimit(guest.machine.pid, resource.RLIMIT_FSIZE)
        except PermissionError:
            # Without CAP_SYS_RESOURCE the daemon can't raise the limit, and says so.
            with pytest.raises(GuestError, match="can't be allowed a disk as large as huge"):
                await guest.machine.add_disk(huge)
        else:
            await guest.machine.add_disk(huge)


async def test_a_fork_bomb_stays_in_its_guest(uml_place: Place) -> None:
    room, spec = uml_place
    async with room.guest(spec) as guest:
        bomb = guest.container("sh", "-c", "f() { f | f & }; f; sleep 100")
        await guest.start(bomb)
        most = 0
        for _ in range(20):
            await asyncio.sleep(0.1)
            most = max(most, len(processes_of(room.uid)))
        assert 10 < most <= 2048 + 16
        await guest.machine.kill()
    assert not processes_of(room.uid)


async def test_a_guest_that_floods_its_console_costs_the_daemon_little(uml_place: Place) -> None:
    room, spec = uml_place
    async with room.guest(spec) as guest:
        flood = guest.container(
            "sh", "-c", "while :; do echo flood flood flood > /dev/kmsg; done", privileged=True
        )
        await guest.start(flood)
        before = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - before < 0.5
        await guest.ping()
        assert len(guest.machine.console_tail(1 << 20)) <= 16 << 10


def _pss(uid: int) -> int:
    total = 0
    for pid in processes_of(uid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


@pytest.mark.alone
async def test_a_machine_is_ready_within_the_floor_and_takes_no_more_memory_than_that(
    bench: Bench, uml: Driver, uid: int
) -> None:
    times = []
    for _ in range(7):
        async with room(bench, uml, uid) as (place, spec):
            spec = replace(spec, memory=512 * MiB, disks=(place.ext4("scratch"),))
            start = time.perf_counter()
            async with place.guest(spec) as guest:
                times.append(time.perf_counter() - start)
                await guest.start(
                    guest.container("sleep", "100", root=guest.root_on(disk="scratch"))
                )
                pss = _pss(uid)
    print(f"ready: median {statistics.median(times):.3f} s, PSS {pss / MiB:.1f} MiB")
    assert statistics.median(times) < READY_FLOOR
    assert pss < PSS_FLOOR


@pytest.mark.alone
async def test_twenty_machines_start_at_once(bench: Bench, uml: Driver, uid: int) -> None:
    async def one(number: int) -> float:
        async with room(bench, uml, uid + 1 + number) as (place, spec):
            start = time.perf_counter()
            async with place.guest(spec) as guest:
                elapsed = time.perf_counter() - start
                await guest.ping()
                await together.wait()
            return elapsed

    together = asyncio.Barrier(20)
    slowest = max(await asyncio.gather(*(one(number) for number in range(20))))
    print(f"twenty at once: the last was ready after {slowest:.2f} s")
    assert slowest < TWENTY_FLOOR
