"""What machines of every kind have in common once they run: a process, a console, a record."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
from pathlib import Path

import msgspec

from hyperstack.errors import GuestError
from hyperstack.platform.process import ProcessHandle
from hyperstack.vmm.base import Disk, MachineRecord
from hyperstack.vmm.console import Console


class RunningMachine:
    """The part of a ``Machine`` that does not depend on its VMM."""

    def __init__(self, record: MachineRecord, process: ProcessHandle, console: Console) -> None:
        self._record = record
        self._process = process
        self._console = console
        self._changing = asyncio.Lock()

    @property
    def record(self) -> MachineRecord:
        """What the next daemon needs to adopt this machine."""
        return self._record

    @property
    def pid(self) -> int:
        """The VMM's process on the host."""
        return self._process.pid

    @property
    def _layers(self) -> Path:
        return Path(self._record.sandbox_dir) / "layers"

    @property
    def _disks(self) -> Path:
        return Path(self._record.sandbox_dir) / "disks"

    def _slot(self, key: str) -> int:
        try:
            return self._record.slots[key]
        except KeyError:
            kind, _, name = key.partition(":")
            raise GuestError(f"the virtual machine has no {kind} {name}") from None

    def _take(self, key: str, slot: int) -> None:
        slots = {**self._record.slots, key: slot}
        self._record = msgspec.structs.replace(self._record, slots=slots)

    def _give_back(self, key: str) -> None:
        slots = {name: slot for name, slot in self._record.slots.items() if name != key}
        self._record = msgspec.structs.replace(self._record, slots=slots)

    def _allow_size(self, disk: Disk) -> None:
        """Let the VMM write files as large as *disk*: it was held to what it had at launch."""
        try:
            size = disk.path.stat().st_size
            if file_size_limit(Path(f"/proc/{self.pid}/limits").read_text()) < size:
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))
        except OSError as error:
            raise GuestError(
                f"the virtual machine can't be allowed a disk as large as {disk.name}: "
                f"{error.strerror}"
            ) from error

    async def kill(self) -> None:
        """Kill the machine and wait until it is gone; all its processes go with it."""
        await self._process.kill()

    async def wait(self) -> None:
        """Return when it is gone."""
        await self._process.wait()

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self._process.alive()

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


def file_size_limit(limits: str) -> int:
    """Return the largest file that a process may write, from its ``/proc/PID/limits``."""
    found = re.search(r"^Max file size +(\d+|unlimited)", limits, re.MULTILINE)
    return int(found[1]) if found and found[1] != "unlimited" else 1 << 63
