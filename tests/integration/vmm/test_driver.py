"""What every driver must do: the one suite that all of them pass."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from hyperstack.errors import GuestError, HyperError
from hyperstack.guest import messages
from hyperstack.guest.messages import Op
from hyperstack.platform import netns
from hyperstack.vmm.base import Disk, Driver, MachineRecord, MachineSpec, Runtime
from hyperstack.vmm.choice import drivers
from hyperstack.volume.share import Share
from hyperstack.volume.shown import ShareMount
from tests.integration.vmm.room import (
    Guest,
    MiB,
    Room,
    make_layer,
    processes_of,
    replace,
    tar_of,
)

Place = tuple[Room, MachineSpec]
MAC = "02:42:ac:11:00:02"


def _again(room: Room) -> Driver:
    """Return the driver as the next daemon would make it."""
    return drivers(room.bench.config, room.bench.kit)[room.driver.runtime]


async def test_a_machine_boots_to_its_agents_hello(place: Place) -> None:
    room, spec = place
    async with room.guest(spec) as guest:
        assert await guest.sh("echo hello; uname -s") == "hello\nLinux"
        assert "hyper-agent: ready" in guest.machine.console_tail()
        assert guest.machine.pid in processes_of(room.uid)
    assert not guest.machine.alive()


async def test_layers_are_read_only_files_under_one_root(place: Place, tmp_path: Path) -> None:
    room, spec = place
    extra = make_layer(tmp_path, room.bench.kit, "extra", tar_of(etc__extra="of the layer"))
    before = extra.path.read_bytes()
    async with room.guest(replace(spec, layers=(extra, *spec.layers))) as guest:
        root = guest.root_on(guest.machine.layer("extra"))
        text = await guest.sh(
            "cat /etc/extra; echo changed > /etc/extra; cat /etc/extra", root=root
        )
        assert text == "of the layerchanged"
        again = await guest.sh("cat /etc/extra", root=root)
        assert again == "of the layer"
    assert extra.path.read_bytes() == before
    assert extra.path.stat().st_uid == 0


async def test_a_layer_is_added_to_a_running_machine(place: Place, tmp_path: Path) -> None:
    room, spec = place
    late = make_layer(tmp_path, room.bench.kit, "late", tar_of(late="came later"))
    async with room.guest(spec) as guest:
        source = await guest.machine.add_layer(late)
        assert source == guest.machine.layer("late")
        assert await guest.sh("cat /late", root=guest.root_on(source)) == "came later"


async def test_what_is_written_to_a_disk_is_there_for_the_next_machine(place: Place) -> None:
    room, spec = place
    spec = replace(spec, disks=(room.ext4("scratch"),))
    async with room.guest(spec) as guest:
        await guest.sh("echo kept > /root/file; sync", root=guest.root_on(disk="scratch"))
        await guest.client.call(Op.POWEROFF, messages.Empty())
        async with asyncio.timeout(room.bound):
            await guest.machine.wait()
    disk = spec.disks[0].path.stat()
    assert (disk.st_uid, disk.st_mode & 0o777) == (room.uid, 0o600)
    async with room.guest(spec) as guest:
        assert await guest.sh("cat /root/file", root=guest.root_on(disk="scratch")) == "kept"


async def test_a_disk_goes_over_to_a_machine_with_another_uid(place: Place) -> None:
    room, spec = place
    disk = room.ext4("scratch")
    os.chown(disk.path, room.uid + 1, room.uid + 1)
    async with room.guest(replace(spec, disks=(disk,))) as guest:
        await guest.sh("touch /root/x", root=guest.root_on(disk="scratch"))
    assert disk.path.stat().st_uid == room.uid


def _device_of(guest: Guest, name: str) -> str:
    source = guest.machine.disk(name)
    if source.kind == messages.SourceKind.BLOCK:
        return f"d={Path(source.path).name}"
    serials = f"grep -lx {source.path} /sys/block/*/serial /sys/block/*/device/serial"
    return f"d=$({serials} 2>/dev/null | head -1 | cut -d/ -f4)"


_NODE = 'mknod /tmp/n b $(tr : " " < /sys/block/$d/dev)'


async def test_a_read_only_disk_cannot_be_written_whatever_the_guest_does(place: Place) -> None:
    room, spec = place
    disk = room.disk("data", read_only=True)
    disk.path.write_bytes(b"original" + bytes(MiB - 8))
    async with room.guest(replace(spec, disks=(disk,))) as guest:
        script = (
            f"{_device_of(guest, 'data')}; {_NODE}; head -c 8 /tmp/n; echo; "
            "blockdev --setrw /tmp/n; echo overwritten | dd of=/tmp/n bs=512 conv=sync,fsync "
            "&& echo written; true"
        )
        assert (await guest.sh(script)).splitlines()[0] == "original"
        _only_reads(disk.path)
    assert disk.path.read_bytes()[:8] == b"original"


def _only_reads(path: Path) -> None:
    """Check from outside that no process has the file open for writing."""
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if not entry.samefile(path):
                continue
            info = (entry.parents[1] / "fdinfo" / entry.name).read_text()
        except OSError:
            continue
        flags = int(info.split("flags:")[1].split()[0], 8)
        assert flags & os.O_ACCMODE == os.O_RDONLY, f"{entry} is open for writing"


async def test_a_disk_is_added_to_a_running_machine_and_taken_away_again(place: Place) -> None:
    room, spec = place
    if not room.driver.capabilities.hot_disk:
        pytest.skip("no hot-add of disks")
    async with room.guest(spec) as guest:
        for round_ in range(3):
            disk = room.ext4(f"hot{round_}")
            source = await guest.machine.add_disk(disk)
            assert source == guest.machine.disk(disk.name)
            await guest.sh("echo x > /root/x", root=guest.root_on(disk=disk.name))
            await guest.machine.remove_disk(disk.name)
            with pytest.raises(GuestError):
                guest.machine.disk(disk.name)
            with pytest.raises(GuestError):
                await guest.machine.remove_disk(disk.name)
        await guest.ping()


async def test_a_disk_in_use_stays_and_the_machine_knows_it(place: Place) -> None:
    room, spec = place
    if not room.driver.capabilities.hot_disk:
        pytest.skip("no hot-add of disks")
    async with room.guest(spec) as guest:
        await guest.machine.add_disk(room.ext4("busy"))
        container = guest.container("sleep", "100", root=guest.root_on(disk="busy"))
        await guest.start(container)
        if room.driver.runtime in (Runtime.UML, Runtime.UML_FAST):
            with pytest.raises(GuestError, match="refused"):
                await guest.machine.remove_disk("busy")
        assert guest.machine.disk("busy")
        with pytest.raises(GuestError, match="already"):
            await guest.machine.add_disk(Disk(path=room.disk("other").path, read_only=False,
                                              name="busy"))  # fmt: skip
        assert (await guest.exec(container, "sh", "-c", "echo still > /root/x")).code == 0


async def test_a_network_card_is_added_and_taken_away_again(place: Place) -> None:
    room, spec = place
    if not room.driver.capabilities.hot_nic:
        pytest.skip("no hot-add of network cards")
    async with room.guest(spec) as guest:
        container = guest.container("sleep", "100")
        await guest.start(container)
        nic = messages.Nic(mac=MAC, name="eth0", mtu=1400, addresses=("10.9.0.2/24",))
        change = messages.NicChange(container=container.id, nic=nic)
        tap = replace(room.tap("nic0", MAC), mtu=1400)
        guest.outside("ip", "addr", "add", "10.9.0.1/24", "dev", "nic0")
        for _ in range(2):
            await guest.machine.add_nic(tap)
            await guest.client.call(Op.NIC_ADD, change)
            ran = await guest.exec(container, "ping", "-c1", "-w5", "10.9.0.1")
            assert ran.code == 0, ran
            address = await guest.exec(
                container, "cat", "/sys/class/net/eth0/address", "/sys/class/net/eth0/mtu"
            )
            assert address.text.split() == [MAC, "1400"]
            await guest.client.call(Op.NIC_REMOVE, change)
            await guest.machine.remove_nic("nic0")
        with pytest.raises(GuestError):
            await guest.machine.remove_nic("nic0")


async def test_network_cards_are_there_from_the_start(place: Place) -> None:
    room, spec = place
    taps = tuple(room.tap(f"nic{i}", f"02:42:ac:11:00:0{i}") for i in range(3))
    async with room.guest(replace(spec, nics=taps)) as guest:
        nics = tuple(
            messages.Nic(mac=tap.mac, name=f"eth{i}", addresses=(f"10.9.{i}.2/24",))
            for i, tap in enumerate(taps)
        )
        text = await guest.sh("cat /sys/class/net/eth*/address", nics=nics)
        assert text.split() == [tap.mac for tap in taps]


async def test_a_paused_machine_does_nothing_until_it_is_resumed(place: Place) -> None:
    room, spec = place
    async with room.guest(spec) as guest:
        await guest.ping()
        await guest.machine.pause()
        with pytest.raises(HyperError):
            await guest.ping(timeout=1.0)
        before = _cpu_ticks(room.uid)
        await asyncio.sleep(0.5)
        assert _cpu_ticks(room.uid) - before <= 2
        await guest.machine.resume()
        await guest.ping()


def _cpu_ticks(uid: int) -> int:
    total = 0
    for pid in processes_of(uid):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


async def test_a_paused_machine_can_be_killed(place: Place) -> None:
    room, spec = place
    async with room.guest(spec) as guest:
        await guest.machine.pause()
        async with asyncio.timeout(10):
            await guest.machine.kill()
        assert not guest.machine.alive()


async def test_memory_is_taken_from_a_machine_and_given_back(place: Place) -> None:
    room, spec = place
    if not room.driver.capabilities.resize_memory:
        pytest.skip("memory can't be resized")
    async with room.guest(spec) as guest:
        free = "awk '/MemFree/ {print int($2 / 1024)}' /proc/meminfo"
        before = int(await guest.sh(free))
        least = room.cgroups.usage(room.id).memory
        # Touched and freed: the host holds it, until a guest that tells what is free has told.
        await guest.sh("dd if=/dev/zero of=/dev/shm/x bs=1M count=120; rm /dev/shm/x",
                       shm_size=150 * MiB)  # fmt: skip
        await guest.machine.resize_memory(spec.memory - 100 * MiB)
        assert before - int(await guest.sh(free)) >= 80
        if least:
            assert room.cgroups.usage(room.id).memory - least < 60 * MiB
        await guest.machine.resize_memory(spec.memory)
        assert before - int(await guest.sh(free)) <= 40


async def test_a_guest_keeps_the_memory_that_it_needs(place: Place) -> None:
    room, spec = place
    if not room.driver.capabilities.resize_memory:
        pytest.skip("memory can't be resized")
    async with room.guest(spec) as guest:
        await guest.machine.resize_memory(0)
        assert await guest.sh("echo alive") == "alive"


async def test_kill_ends_everything_and_can_be_repeated(place: Place) -> None:
    room, spec = place
    async with room.guest(spec) as guest:
        await guest.start(guest.container("sleep", "1000"))
        waiting = asyncio.create_task(guest.machine.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        await guest.machine.kill()
        await asyncio.wait_for(waiting, 5)
        assert not guest.machine.alive()
        assert not processes_of(room.uid)
        await guest.machine.kill()
        with pytest.raises(GuestError):
            await guest.machine.pause()


async def test_the_next_daemon_adopts_a_machine_with_all_that_it_has(place: Place) -> None:
    room, spec = place
    machine = await room.driver.launch(replace(spec, disks=(room.ext4("scratch"),)))
    try:
        guest = await room.connect(machine, spec.netns)
        container = guest.container("sleep", "1000", root=guest.root_on(disk="scratch"))
        await guest.start(container)
        if room.driver.capabilities.hot_disk:
            await machine.add_disk(room.ext4("hot"))
        stored = msgspec.json.encode(machine.record)
        lost, tap = room.ext4("lost"), room.tap("nic0", MAC)
        if room.driver.capabilities.hot_disk:  # the daemon dies before it has stored that
            await machine.add_disk(lost)
            await machine.add_nic(tap)
        await guest.client.close()
        await machine.close()

        record = msgspec.json.decode(stored, type=MachineRecord)
        adopted = await _again(room).adopt(record)
        assert adopted is not None
        assert adopted.alive()
        assert adopted.pid == record.pid
        assert adopted.record == record
        machine = adopted
        again = await room.connect(machine, spec.netns)
        again.containers, again.handles = guest.containers, guest.handles
        guest = again
        root = guest.root_on(disk="hot" if room.driver.capabilities.hot_disk else "")
        assert await guest.sh("echo adopted", root=root) == "adopted"
        if room.driver.capabilities.hot_disk:
            await machine.remove_disk("hot")
            assert "hot" not in str(machine.record.slots)
            for _ in range(2):
                await machine.recover(["lost"], ["nic0"])
            # One of which only the file was linked.
            (room.sandbox_dir / "disks" / "early").touch()
            await machine.recover(["early", "scratch"], [])
            assert sorted(p.name for p in (room.sandbox_dir / "disks").iterdir()) == ["scratch"]
            assert machine.disk("scratch")
            await machine.add_disk(lost)
            await machine.add_nic(tap)
        await machine.pause()
        await machine.resume()
        await guest.client.close()
    finally:
        await machine.kill()
        await machine.close()


async def test_a_machine_that_is_gone_or_whose_pid_is_anothers_is_not_adopted(
    place: Place,
) -> None:
    room, spec = place
    async with room.guest(spec) as guest:
        record = guest.machine.record
        other = msgspec.structs.replace(record, start_time=record.start_time + 1)
        assert await _again(room).adopt(other) is None
        mine = msgspec.structs.replace(record, pid=os.getpid())
        assert await _again(room).adopt(mine) is None
    assert await _again(room).adopt(record) is None


async def test_a_guest_that_talks_on_with_no_daemon_is_not_held_up(place: Place) -> None:
    room, spec = place
    machine = await room.driver.launch(spec)
    try:
        guest = await room.connect(machine, spec.netns)
        await machine.close()
        # Far more than the console's pipe holds.
        flood = "for i in $(seq 3000); do echo $i 1234567890123456789012345678901234567890; done"
        await guest.sh(f"({flood}) > /dev/kmsg 2>/dev/null; echo done")
        await guest.ping()
        adopted = await _again(room).adopt(machine.record)
        assert adopted is not None
        machine = adopted
        await guest.client.close()
    finally:
        await machine.kill()
        await machine.close()


async def test_shared_folders_are_served_and_read_only_holds(place: Place, tmp_path: Path) -> None:
    room, spec = place
    if not room.driver.capabilities.share:
        pytest.skip("no shared folders")
    for name in ("rw", "ro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"host {name}")
    share = Share(room.bench.config, room.bench.kit)
    mounts = [
        ShareMount(name=name, source=tmp_path / name, read_only=name == "ro")
        for name in ("rw", "ro")
    ]
    socket = await share.start(room.id, room.uid, mounts, spec.cgroups)
    try:
        spec = replace(spec, share_socket=socket, share_tag="share")
        async with room.guest(spec, share_tag="share") as guest:
            shared = tuple(
                messages.Mount(kind=messages.MountKind.SHARE, target=f"/{n}", source=f"/{n}")
                for n in ("rw", "ro")
            )
            text = await guest.sh(
                "cat /rw/file; echo; echo guest > /rw/new; cat /ro/file; echo; "
                "mount -o remount,rw /ro; echo x > /ro/new || echo refused",
                mounts=shared,
            )
            assert text.splitlines() == ["host rw", "host ro", "refused"]
    finally:
        await share.stop(room.id)
    assert (tmp_path / "rw" / "new").read_text() == "guest\n"
    assert not (tmp_path / "ro" / "new").exists()


async def test_a_launch_that_fails_leaves_nothing(place: Place) -> None:
    room, spec = place
    gone = Disk(path=room.sandbox_dir / "missing", read_only=False, name="gone")
    with pytest.raises(GuestError, match="disk gone can't be given to the virtual machine"):
        await room.driver.launch(replace(spec, disks=(room.disk("there"), gone)))
    with pytest.raises(GuestError):
        await room.driver.launch(replace(spec, netns=room.run_dir / "no-namespace"))
    assert not processes_of(room.uid)
    left = [path.name for path in room.sandbox_dir.rglob("*") if path.is_file()]
    assert left == ["there.img"]
    assert [path for path in room.run_dir.rglob("*") if not path.is_dir()] == []
    async with room.guest(spec) as guest:
        await guest.ping()


async def test_a_cancelled_launch_leaves_nothing(place: Place) -> None:
    room, spec = place
    for pause in (0.0, 0.001, 0.002, 0.004, 0.008):
        task = asyncio.create_task(room.driver.launch(spec))
        await asyncio.sleep(pause)
        task.cancel()
        try:
            machine = await task
        except asyncio.CancelledError:
            assert not processes_of(room.uid)
            continue
        await machine.kill()
        await machine.close()


async def test_the_jail_leaves_a_machine_nothing_but_its_own(place: Place) -> None:
    room, spec = place
    spec = replace(spec, disks=(room.ext4("scratch"),))
    async with room.guest(spec) as guest:
        await guest.start(guest.container("sleep", "1000"))
        mine = processes_of(room.uid)
        assert guest.machine.pid in mine
        for pid in mine:
            _check_walls(Path(f"/proc/{pid}"), room)
        if spec.cgroups:
            assert set(mine) <= room.cgroups.pids(room.id)
        assert Path(f"/proc/{guest.machine.pid}/ns/net").stat().st_ino == spec.netns.stat().st_ino
        sockets = netns.in_netns(spec.netns, lambda: Path("/proc/thread-self/net/tcp").read_text())
        assert "0A" not in [line.split()[3] for line in sockets.splitlines()[1:]]


def _check_walls(proc: Path, room: Room) -> None:
    status = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
    )
    for identity in ("Uid", "Gid"):
        assert set(status[identity].split()) == {str(room.uid)}
    assert status["Groups"].strip() == ""
    for sets in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[sets], 16) == 0, sets
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for kind in ("mnt", "pid", "ipc", "uts", "net"):
        theirs, ours = (Path(f"{p}/ns/{kind}").stat().st_ino for p in (proc, "/proc/self"))
        assert theirs != ours, kind
    for line in (proc / "mountinfo").read_text().splitlines():
        fields = line.split()
        target, options = fields[4], fields[5].split(",")
        if target not in ("/disks", "/dev/shm", "/uml", "/run"):
            assert "ro" in options, line
        assert "nosuid" in options, line
    _check_descriptors(proc, room)
    limits = (proc / "limits").read_text()
    assert next(line.split()[4] for line in limits.splitlines() if "core file" in line) in "01"


def _check_descriptors(proc: Path, room: Room) -> None:
    """Nothing of the host is open but what lies in the jail, and the console."""
    allowed = ("/dev/", "/disks/", "/layers/", "/guest", "/uml/", "/run/", "/memfd:", "/linux")
    for fd in (proc / "fd").iterdir():
        try:
            name = str(fd.readlink())
        except OSError:
            continue
        kinds = ("socket:", "pipe:", "anon_inode:")
        console = str(room.run_dir / "console")
        assert name.startswith((*allowed, *kinds)) or name == console, name
