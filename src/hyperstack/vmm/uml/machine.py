"""A running User Mode Linux machine."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
from pathlib import Path

import msgspec

from hyperstack.errors import GuestError
from hyperstack.guest.messages import Source, SourceKind
from hyperstack.platform.process import ProcessHandle
from hyperstack.vmm import files
from hyperstack.vmm.base import Disk, MachineRecord, Tap
from hyperstack.vmm.console import Console
from hyperstack.vmm.uml import command
from hyperstack.vmm.uml.disks import file_size_limit, free_slot, link_disk
from hyperstack.vmm.uml.mconsole import ManagementConsole

PAGE = 4096
KEEP_FREE = 24 << 20
"""Bytes that a guest is left with when it gives up memory."""
RESIZE_STEPS = 20
RESIZE_PAUSE = 0.05
"""Seconds in which the guest's kernel may write back and forget what it caches."""


class UmlMachine:
    """One machine, launched by this daemon or an earlier one; see ``Machine`` for the methods."""

    def __init__(
        self, record: MachineRecord, process: ProcessHandle, console: Console, umid: str
    ) -> None:
        self._record = record
        self._process = process
        self._console = console
        self._mconsole = ManagementConsole(process, umid)
        self._changing = asyncio.Lock()

    @property
    def record(self) -> MachineRecord:
        """What the next daemon needs to adopt this machine."""
        return self._record

    @property
    def pid(self) -> int:
        """The kernel's main process on the host."""
        return self._process.pid

    @property
    def _layers(self) -> Path:
        return Path(self._record.sandbox_dir) / "layers"

    @property
    def _disks(self) -> Path:
        return Path(self._record.sandbox_dir) / "disks"

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
            await self._mconsole.command(f"remove ubd{self._slot(key)}")
            for folder in (self._layers, self._disks):
                files.unlink(folder, name)
            self._give_back(key)

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
            await self._mconsole.command(f"remove vec{self._slot(key)}")
            self._give_back(key)

    def _slot(self, key: str) -> int:
        try:
            return self._record.slots[key]
        except KeyError:
            kind, _, name = key.partition(":")
            raise GuestError(f"the virtual machine has no {kind} {name}") from None

    def _free(self, key: str, kind: str, first: int, last: int) -> int:
        slots = self._record.slots
        if key in slots:
            raise GuestError(f"the virtual machine has a {key.replace(':', ' ')} already")
        return free_slot(
            {slot for name, slot in slots.items() if name.startswith(kind)}, first, last
        )

    def _take(self, key: str, slot: int) -> None:
        slots = {**self._record.slots, key: slot}
        self._record = msgspec.structs.replace(self._record, slots=slots)

    def _give_back(self, key: str) -> None:
        slots = {name: slot for name, slot in self._record.slots.items() if name != key}
        self._record = msgspec.structs.replace(self._record, slots=slots)

    def _allow_size(self, disk: Disk) -> None:
        """Let the kernel write files as large as *disk*: it was held to what it had at launch."""
        try:
            size = disk.path.stat().st_size
            if file_size_limit(Path(f"/proc/{self.pid}/limits").read_text()) < size:
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))
        except OSError as error:
            raise GuestError(
                f"the virtual machine can't be allowed a disk as large as {disk.name}: "
                f"{error.strerror}"
            ) from error

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

    async def kill(self) -> None:
        """Kill the machine and wait until it is gone; all its processes go with it."""
        await self._process.kill()

    async def wait(self) -> None:
        """Return when it is gone."""
        await self._process.wait()

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self._process.alive()

    # Console

    def console_tail(self, limit: int = 4096) -> str:
        """Return the last *limit* bytes of the console as printable text."""
        self._console.drain()
        return self._console.tail(limit)

    async def console_ready(self) -> None:
        """Return once the agent's READY line was seen, or the machine is gone."""
        ready = asyncio.ensure_future(self._console.wait_ready())
        gone = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait({ready, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(ready, gone)

    async def close(self) -> None:
        """Let go of the daemon's descriptors; the machine runs on."""
        self._console.close()
        self._process.close()
