"""A running QEMU machine, asked through its monitor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hyperstack.errors import GuestError
from hyperstack.guest.messages import Source, SourceKind
from hyperstack.vmm import files
from hyperstack.vmm.base import Disk, Tap
from hyperstack.vmm.qemu import devices, qmp
from hyperstack.vmm.running import RunningMachine

log = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds for one operation. Most take a few milliseconds; an emulated guest under load is slow."""
MONITOR = "qmp"
"""The monitor's socket in a sandbox's run folder."""
RELEASE_STEPS = 100
RELEASE_PAUSE = 0.02
OWN_NEED = 64 << 20
"""Bytes that this kernel takes more than that of User Mode Linux: a machine gets them on top."""
KEEP_FREE = 24 << 20
"""Bytes beyond the kernel's own that a guest is not even asked for."""
RESIZE_STEPS = 100
RESIZE_PAUSE = 0.1
UNKNOWN = "Failed to find node"
"""What QEMU answers where there is no such disk."""
STALLED = 10
"""Steps without any progress after which a guest has given what it can."""


class QemuMachine(RunningMachine):
    """One machine, launched by this daemon or an earlier one; see ``Machine`` for the methods."""

    @contextlib.asynccontextmanager
    async def _monitor(self, what: str) -> AsyncIterator[qmp.Monitor]:
        """Give the monitor for one operation, *what*. Raises GuestError, within TIMEOUT seconds."""
        if not self._process.alive():
            raise GuestError("the virtual machine has ended")
        try:
            async with asyncio.timeout(TIMEOUT):
                async with qmp.connect(Path(self._record.run_dir) / MONITOR) as monitor:
                    yield monitor
        except TimeoutError:
            raise GuestError(f"the virtual machine did not {what} within {TIMEOUT:.0f} s") from None

    @property
    def share_socket(self) -> Path:
        """Where the server of a share listens that ``add_share`` is to plug in."""
        return self._disks / devices.LATE_SHARE

    # Disks and NICs

    def layer(self, name: str) -> Source:
        """Say how the guest finds the layer of this name. Raises GuestError if it has none."""
        self._slot(devices.layer_key(name))
        return Source(kind=SourceKind.SERIAL, path=name)

    def disk(self, name: str) -> Source:
        """Say how the guest finds the disk of this name. Raises GuestError if it has none."""
        self._slot(devices.disk_key(name))
        return Source(kind=SourceKind.SERIAL, path=name)

    async def add_layer(self, layer: Disk) -> Source:
        """Give the running guest another read-only layer. Raises GuestError."""
        await _to_its_end(self._plug_layer(layer))
        return self.layer(layer.name)

    async def _plug_layer(self, layer: Disk) -> None:
        async with self._changing:
            key = devices.layer_key(layer.name)
            if key not in self._record.slots:
                await self._plug(layer, key)

    async def add_disk(self, disk: Disk) -> Source:
        """Give the running guest another disk. Raises GuestError, and nothing is left then."""
        await _to_its_end(self._plug_disk(disk, devices.disk_key(disk.name)))
        return self.disk(disk.name)

    async def _plug_disk(self, disk: Disk, key: str) -> None:
        async with self._changing:
            await self._plug(disk, key)

    async def _plug(self, disk: Disk, key: str) -> None:
        slot = self._free(key, ("disk", "layer"), devices.MAX_DISKS)
        folder = self._layers if disk.read_only else self._disks
        link = files.link_read_only if disk.read_only else files.link_writable
        link(folder, disk, self._record.uid)
        try:
            if not disk.read_only:
                self._allow_size(disk)
            async with self._monitor(f"take disk {disk.name}") as monitor:
                await monitor.send("blockdev-add", devices.block(disk))
                try:
                    await monitor.send("device_add", devices.bridged_disk(disk.name, slot))
                except GuestError:
                    with contextlib.suppress(GuestError):
                        await monitor.execute("blockdev-del", node_name=devices.node(disk.name))
                    raise
        except BaseException:
            files.unlink(folder, disk.name)
            raise
        self._take(key, slot)

    async def remove_disk(self, name: str) -> None:
        """Take a disk away. Raises GuestError if the guest does not let go of it."""
        await _to_its_end(self._unplug_disk(name))

    async def _unplug_disk(self, name: str) -> None:
        async with self._changing:
            key = devices.disk_key(name)
            self._slot(key)
            async with self._monitor(f"let go of disk {name}") as monitor:
                await _unplug(monitor, devices.node(name))
                await _release(monitor, name)
            for folder in (self._layers, self._disks):
                files.unlink(folder, name)
            self._give_back(key)

    async def recover(self, disks: Sequence[str], nics: Sequence[str]) -> None:
        """Take these away unless the record knows them: a daemon died while it was adding them.

        Raises GuestError.
        """
        slots = self._record.slots
        for name in disks:
            if devices.disk_key(name) not in slots:
                await _to_its_end(self._take_disk(name))
        for name in nics:
            if devices.nic_key(name) not in slots:
                await _to_its_end(self._take_nic(name))

    async def _take_disk(self, name: str) -> None:
        async with self._changing, self._monitor(f"let go of disk {name}") as monitor:
            await _unplug(monitor, devices.node(name))
            await _release(monitor, name)
            files.unlink(self._disks, name)

    async def _take_nic(self, name: str) -> None:
        async with self._changing, self._monitor(f"let go of network card {name}") as monitor:
            await _unplug(monitor, devices.nic_node(name))
            with contextlib.suppress(GuestError):  # it may not have come so far
                await monitor.execute("netdev_del", id=f"net-{name}")

    async def add_nic(self, tap: Tap) -> None:
        """Give the running guest another network card. Raises GuestError."""
        await _to_its_end(self._plug_nic(tap))

    async def _plug_nic(self, tap: Tap) -> None:
        async with self._changing:
            key = devices.nic_key(tap.name)
            slot = self._free(key, ("nic",), devices.MAX_NICS)
            backend = devices.tap_backend(tap)
            async with self._monitor(f"take network card {tap.name}") as monitor:
                await monitor.send("netdev_add", backend)
                try:
                    await monitor.send("device_add", devices.bridged_nic(tap, slot))
                except GuestError:
                    with contextlib.suppress(GuestError):
                        await monitor.execute("netdev_del", id=backend["id"])
                    raise
            self._take(key, slot)

    async def add_share(self, tag: str) -> None:
        """Plug in a share whose server listens at ``share_socket``. Raises GuestError.

        A machine of an earlier release, whose memory nobody else can see, can have none.
        """
        await _to_its_end(self._plug_share(tag))

    async def _plug_share(self, tag: str) -> None:
        async with self._changing, self._monitor("take a share") as monitor:
            if await _present(monitor, devices.SHARE):
                return
            with contextlib.suppress(GuestError):  # what a dead daemon left of its try
                await monitor.execute("chardev-remove", id=devices.SHARE)
            await monitor.send("chardev-add", devices.late_share_server())
            try:
                await monitor.send("device_add", devices.late_share(tag))
            except GuestError:
                with contextlib.suppress(GuestError):
                    await monitor.execute("chardev-remove", id=devices.SHARE)
                raise

    async def remove_nic(self, name: str) -> None:
        """Take a network card away. Raises GuestError if the guest does not let go of it."""
        await _to_its_end(self._unplug_nic(name))

    async def _unplug_nic(self, name: str) -> None:
        async with self._changing:
            key = devices.nic_key(name)
            self._slot(key)
            async with self._monitor(f"let go of network card {name}") as monitor:
                await _unplug(monitor, devices.nic_node(name))
                await monitor.execute("netdev_del", id=f"net-{name}")
            self._give_back(key)

    def _free(self, key: str, kinds: tuple[str, ...], most: int) -> int:
        if key in self._record.slots:
            raise GuestError(f"the virtual machine has a {key.replace(':', ' ')} already")
        return devices.free_slot(self._record.slots, kinds, most)

    # Running

    async def pause(self) -> None:
        """Stop the machine's CPUs."""
        async with self._monitor("pause") as monitor:
            await monitor.execute("stop")

    async def resume(self) -> None:
        """Let them run on."""
        async with self._monitor("resume") as monitor:
            await monitor.execute("cont")

    async def resize_memory(self, memory: int) -> None:
        """Change the guest's memory to *memory* bytes, at most what it was launched with.

        The guest's balloon driver gives up what is free, and keeps what it needs: when it gets no
        further, it is asked for no more than it has given. Raises GuestError.
        """
        async with self._changing, self._monitor("change its memory") as monitor:
            most = self._record.memory
            least = min(OWN_NEED + most // 32 + KEEP_FREE, most)
            wanted = min(max(memory + OWN_NEED, least), most)
            await monitor.execute("balloon", value=wanted)
            actual = await _settled(monitor, wanted, most)
            if actual != wanted:
                await monitor.execute("balloon", value=actual)
            self._record = msgspec.structs.replace(self._record, given_up=most - actual)


async def _to_its_end(change: Coroutine[Any, Any, None]) -> None:
    """Carry a change through even if the caller is cancelled, so that the record stays true."""
    task = asyncio.ensure_future(change)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a cancelled change of a machine failed by itself: %s", error)
        raise


async def _unplug(monitor: qmp.Monitor, device: str) -> None:
    """Ask the guest to let go of a device and wait until it has."""
    try:
        await monitor.execute("device_del", id=device)
    except GuestError as error:
        # It was asked before, when it took too long.
        if not await _present(monitor, device):
            return
        if "unplug" not in error.message:
            raise
    event = await monitor.event(
        lambda event: (
            event.name in ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR")
            and event.data.get("device") == device
        )
    )
    if event.name != "DEVICE_DELETED":
        raise GuestError(f"the guest does not let go of {device}")


async def _present(monitor: qmp.Monitor, device: str) -> bool:
    found = await monitor.execute("qom-list", path="/machine/peripheral")
    entries = found if isinstance(found, list) else []
    return any(isinstance(entry, dict) and entry.get("name") == device for entry in entries)


async def _release(monitor: qmp.Monitor, name: str) -> None:
    """Close a disk's file. Its last writes may still be under way when the device is gone."""
    for step in range(RELEASE_STEPS):
        try:
            await monitor.execute("blockdev-del", node_name=devices.node(name))
        except GuestError as error:
            if UNKNOWN in error.message:
                return
            if step == RELEASE_STEPS - 1:
                raise
            await asyncio.sleep(RELEASE_PAUSE)
        else:
            return


async def _settled(monitor: qmp.Monitor, wanted: int, most: int) -> int:
    """Return the guest's memory once it is *wanted*, or does not come nearer any more."""
    last, still = -1, 0
    for _ in range(RESIZE_STEPS):
        answer = await monitor.execute("query-balloon")
        actual = answer.get("actual") if isinstance(answer, dict) else None
        if not isinstance(actual, int) or not 0 <= actual <= most:
            raise GuestError("the virtual machine does not say how much memory it has")
        if actual == wanted:
            return actual
        still = still + 1 if actual == last else 0
        if still >= STALLED:
            return actual
        last = actual
        await asyncio.sleep(RESIZE_PAUSE)
    return last
