"""What the drivers share: a jailed machine is launched whole or not at all, and found again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hyperstack.errors import GuestError, HyperError
from hyperstack.platform.process import ProcessHandle, open_process
from hyperstack.vmm import files
from hyperstack.vmm.base import MachineRecord, MachineSpec, Runtime
from hyperstack.vmm.console import Console

log = logging.getLogger(__name__)

DEVICES = ("/dev/null", "/dev/urandom", "/dev/net/tun")
"""Device files of the host that every VMM opens in its jail."""
CONSOLE = "console"
"""Name of the guest's console in the folder of a run."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A machine that runs: what the next daemon finds it by, its process, and its console."""

    record: MachineRecord
    process: ProcessHandle
    console: Console


def missing_device() -> str | None:
    """Say which of the host's device files is missing; None if none is."""
    for device in DEVICES:
        if not Path(device).is_char_device():
            return f"{device} is missing (load the module tun)"
    return None


async def launch(
    spec: MachineSpec,
    runtime: Runtime,
    slots: dict[str, int],
    link: Callable[[], None],
    run: Callable[[Console], Awaitable[ProcessHandle]],
) -> Launched:
    """Give a machine its files with *link*, start its VMM with *run*, and return what runs.

    Raises GuestError, with the last words of the console, if either fails; nothing is left then.
    """
    console = None
    try:
        link()
        console = Console.create(spec.run_dir / CONSOLE)
        console.open()
        process = await run(console)
    except BaseException as error:
        words = ""
        if console is not None:
            console.drain()
            words = console.tail()
            console.close()
        _clear(spec)
        if isinstance(error, HyperError) and not isinstance(error, GuestError):
            raise GuestError(error.message, words) from error
        raise
    record = MachineRecord(
        runtime=runtime,
        pid=process.pid,
        start_time=process.start_time,
        uid=spec.uid,
        sandbox_dir=str(spec.sandbox_dir),
        run_dir=str(spec.run_dir),
        kit=str(spec.kit),
        slots=slots,
        memory=spec.memory,
    )
    return Launched(record=record, process=process, console=console)


def adopt(record: MachineRecord) -> Launched | None:
    """Find a machine of an earlier daemon; None if it is gone."""
    process = open_process(record.pid, record.start_time)
    if process is None:
        return None
    console = Console(Path(record.run_dir) / CONSOLE, ready=True)
    try:
        console.open()
    except HyperError as error:
        log.warning("%s; the machine runs on without it", error)
    return Launched(record=record, process=process, console=console)


def _clear(spec: MachineSpec) -> None:
    """Take away what a failed launch put into the sandbox's folders."""
    for disk in (*spec.layers, *spec.disks):
        for folder in ("layers", "disks"):
            files.unlink(spec.sandbox_dir / folder, disk.name)
    (spec.run_dir / CONSOLE).unlink(missing_ok=True)
