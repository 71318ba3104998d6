"""A running User Mode Linux machine."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hyperstack.errors import GuestError
from hyperstack.guest.messages import Source, SourceKind
from hyperstack.platform.process import ProcessHandle
from hyperstack.vmm import files
from hyperstack.vmm.base import Disk, MachineRecord, Tap
from hyperstack.vmm.console import Console
from hyperstack.vmm.running import RunningMachine
from hyperstack.vmm.uml import command
from hyperstack.vmm.uml.disks import free_slot, link_disk
from hyperstack.vmm.uml.mconsole import ManagementConsole

PAGE = 4096
KEEP_FREE = 24 << 20
"""Bytes that a guest is left with when it gives up memory."""
BUSY = "Device is currently open"
"""What the kernel's ubd driver answers (arch/um/drivers/ubd_kern.c)."""
MISSING = "Device doesn't exist"
"""What its management console answers (arch/um/drivers/mconsole_kern.c)."""
CLOSED_WITHIN = 2.0
CLOSED_PAUSE = 0.02
"""Seconds in which the guest's kernel must have closed a disk, and between two looks."""
RESIZE_STEPS = 20
RESIZE_PAUSE = 0.05
"""Seconds in which the guest's kernel may write back and forget what it caches."""


def _slots_of(slots: Mapping[str, int], kind: str) -> set[int]:
    return {slot for name, slot in slots.items() if name.startswith(kind)}


class UmlMachine(RunningMachine):
    """One machine, launched by this daemon or an earlier one; see ``Machine`` for the methods."""

    def __init__(
        self, record: MachineRecord, process: ProcessHandle, console: Console, umid: str
    ) -> None:
        super().__init__(record, process, console)
        self._mconsole = ManagementConsole(process, umid)

    @property
    def share_socket(self) -> Path:
        """Where the kernel looks for a share's server when it binds the device that it lacked."""
        return self._disks / command.LATE_SHARE

    async def add_share(self, tag: str) -> None:
        """Do nothing: the device was there from the start, and the agent binds it anew."""

    # Disks and NICs

    def layer(self, name: str) -> Source:
        """Say how the guest finds the layer of this name."""
        return Source(kind=SourceKind.FILE, path=f"/layers/{name}")

    def disk(self, name: str) -> Source:
        """Say how the guest finds the disk of this name. Raises GuestError if it has none."""
        slot = self._slot(command.disk_key(name))
        return Source(kind=SourceKind.BLOCK, path=command.device(slot))

    async def add_layer(self, layer: Disk) -> Source:
        """Give the running guest another read-only layer."""
        files.link_read_only(self._layers, layer, self._record.uid)
        return self.layer(layer.name)

    async def add_disk(self, disk: Disk) -> Source:
        """Give the running guest another disk. Raises GuestError, and nothing is left then."""
        async with self._changing:
            key = command.disk_key(disk.name)
            slot = self._free(key, "disk:", command.FIRST_DISK, command.LAST_DISK)
            folder = link_disk(self._layers, self._disks, disk, self._record.uid)
            try:
                if not disk.read_only:
                    self._allow_size(disk)
                words = command.ubd(slot, disk.name, read_only=disk.read_only)
                await self._mconsole.command(f"config {words}")
            except BaseException:
                files.unlink(folder, disk.name)
                raise
            self._take(key, slot)
        return self.disk(disk.name)

    async def remove_disk(self, name: str) -> None:
        """Take a disk away. Raises GuestError if the guest still uses it."""
        async with self._changing:
            key = command.disk_key(name)
            await self._remove_idle(f"ubd{self._slot(key)}")
            for folder in (self._layers, self._disks):
                files.unlink(folder, name)
            self._give_back(key)

    async def recover(self, disks: Sequence[str], nics: Sequence[str]) -> None:
        """Take these away unless the record knows them: a daemon died while it was adding them.

        The kernel says which disk is where, and of cards nothing: the unknown ones go. Raises
        GuestError.
        """
        async with self._changing:
            used = self._record.slots
            for slot in range(command.FIRST_DISK, command.LAST_DISK + 1):
                if slot in _slots_of(used, "disk:"):
                    continue
                name = (await self._mconsole.command(f"config ubd{slot}")).rpartition("/")[2]
                if name in disks:
                    await self._remove_idle(f"ubd{slot}")
            for name in disks:
                # Perhaps it was but linked, or the kernel has given it back already.
                if command.disk_key(name) not in used:
                    files.unlink(self._disks, name)
            known = _slots_of(used, "nic:")
            for slot in range(command.AGENT_NIC + 1, max(known, default=0) + len(nics) + 1):
                if slot not in known:
                    await self._remove(f"vec{slot}")

    async def _remove(self, device: str) -> None:
        """Remove a device, if it is there."""
        try:
            await self._mconsole.command(f"remove {device}")
        except GuestError as error:
            if MISSING not in str(error):
                raise

    async def _remove_idle(self, device: str) -> None:
        """Remove a device; a kernel closes what was unmounted a while after the call returned."""
        bound = time.monotonic() + CLOSED_WITHIN
        while True:
            try:
                await self._remove(device)
                return
            except GuestError as error:
                if BUSY not in str(error) or time.monotonic() > bound:
                    raise
            await asyncio.sleep(CLOSED_PAUSE)

    async def add_nic(self, tap: Tap) -> None:
        """Give the running guest another network card. Raises GuestError."""
        async with self._changing:
            key = command.nic_key(tap.name)
            slot = self._free(key, "nic:", command.AGENT_NIC + 1, command.LAST_NIC)
            await self._mconsole.command(f"config {command.vec(slot, tap, tap.mac)}")
            self._take(key, slot)

    async def remove_nic(self, name: str) -> None:
        """Take a network card away. Raises GuestError if it is still up in the guest."""
        async with self._changing:
            key = command.nic_key(name)
            await self._remove(f"vec{self._slot(key)}")
            self._give_back(key)

    def _free(self, key: str, kind: str, first: int, last: int) -> int:
        slots = self._record.slots
        if key in slots:
            raise GuestError(f"the virtual machine has a {key.replace(':', ' ')} already")
        return free_slot(_slots_of(slots, kind), first, last)

    # Running

    async def pause(self) -> None:
        """Stop the machine: its kernel waits in its management console until ``resume``."""
        await self._mconsole.command("stop")

    async def resume(self) -> None:
        """Let it run on."""
        await self._mconsole.command("go")

    async def resize_memory(self, memory: int) -> None:
        """Change the guest's memory to *memory* bytes, at most what it was launched with.

        The guest gives up what is free, a part at a time so that it can make more free, and keeps
        what it needs: its kernel would fail rather than refuse. Raises GuestError.
        """
        async with self._changing:
            wanted = max(0, self._record.memory - memory) // PAGE * PAGE
            for _ in range(RESIZE_STEPS):
                change = wanted - self._record.given_up
                if change > 0:
                    change = min(change, await self._spare() // PAGE * PAGE)
                if change:
                    sign = "-" if change > 0 else "+"
                    await self._mconsole.command(f"config mem={sign}{abs(change) >> 10}K")
                    self._record = msgspec.structs.replace(
                        self._record, given_up=self._record.given_up + change
                    )
                if self._record.given_up == wanted:
                    return
                await asyncio.sleep(RESIZE_PAUSE)

    async def _spare(self) -> int:
        """Return how many bytes the guest's kernel can give up at once, by its own account."""
        text = await self._mconsole.command("proc meminfo")
        found = re.search(r"^MemFree: +(\d{1,12}) kB$", text, re.MULTILINE)
        free = int(found[1]) << 10 if found else 0
        return max(0, free - max(KEEP_FREE, self._record.memory // 32))
