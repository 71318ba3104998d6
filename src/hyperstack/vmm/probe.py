"""The probe of KVM: boots the kit's kernel in the jail to the agent's line, within a bound.

That /dev/kvm exists, opens and answers says nothing: on some clouds it does, and a guest never gets
anywhere. The verdict holds for one boot of the host and one kit. A probe takes a second where KVM
works, and TIMEOUT where it hangs; it has no network, no disk and no monitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import HyperError
from hyperstack.guest.kit import Kit
from hyperstack.platform import jail
from hyperstack.platform.filters import Program
from hyperstack.platform.process import ProcessHandle, open_process
from hyperstack.vmm.base import Runtime
from hyperstack.vmm.console import Console
from hyperstack.vmm.launching import DEVICES
from hyperstack.vmm.qemu import command, verdict
from hyperstack.vmm.qemu.driver import KVM, MAX_THREADS, unusable
from hyperstack.vmm.qemu.verdict import Verdict

log = logging.getLogger(__name__)

TIMEOUT = 15.0
MEMORY = 256 << 20
CPU_SECONDS = 60
"""What a machine may use whose daemon was killed: a guest that hangs does so at full speed."""
FOLDER = "probe-"
PROCESS = "process"
"""File that says which process it is, for ``sweep``."""


def needed(config: Config, kit: Kit) -> bool:
    """Tell whether KVM might work and nobody has looked since the host was booted."""
    return (
        unusable(kit) is None
        and Path(KVM).is_char_device()
        and verdict.load(config.kit_dir, kit.version) is None
    )


async def probe(config: Config, kit: Kit, *, timeout: float = TIMEOUT) -> Verdict:
    """Boot a guest with KVM, keep the verdict and return it. Bounded by *timeout* seconds.

    Raises InternalError if the guest's jail can't be built: that says nothing about KVM.
    """
    begun = time.monotonic()
    reason = await boot(config, kit, Runtime.KVM, timeout)
    found = Verdict(
        boot=verdict.boot_id(),
        kit=kit.version,
        ok=reason is None,
        reason=reason or "",
        seconds=round(time.monotonic() - begun, 3),
    )
    try:
        await asyncio.to_thread(verdict.store, config.kit_dir, found)
    except HyperError as error:
        log.warning("%s; the next start probes again", error)
    return found


async def boot(config: Config, kit: Kit, runtime: Runtime, timeout: float) -> str | None:
    """Boot a guest that can do nothing but that. Return why it did not get to its agent, or None.

    Raises InternalError if its jail can't be built.
    """
    config.exec_root.mkdir(parents=True, exist_ok=True, mode=0o710)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=config.exec_root))
    console = None
    try:
        console = Console.create(folder / "console")
        console.open()
        writer = console.writer()
        try:
            process = await jail.launch(_jail(config, kit, runtime, writer), kit.jail)
        finally:
            os.close(writer)
        try:
            (folder / PROCESS).write_text(f"{process.pid} {process.start_time}")
            return await _outcome(process, console, timeout)
        finally:
            await _end(process)
    finally:
        if console is not None:
            console.close()
        shutil.rmtree(folder, ignore_errors=True)


async def sweep(config: Config) -> None:
    """End what a daemon that was killed while it probed has left."""
    for folder in config.exec_root.glob(f"{FOLDER}*"):
        with contextlib.suppress(OSError, ValueError):
            pid, started = (int(word) for word in (folder / PROCESS).read_text().split())
            if (process := open_process(pid, started)) is not None:
                await _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _jail(config: Config, kit: Kit, runtime: Runtime, console: int) -> jail.JailSpec:
    # The uid that no sandbox ever has; without a namespace given the jail makes an empty one.
    uid = config.uid_base + config.uid_count - 1
    return jail.JailSpec(
        root=kit.qemu_root,
        argv=command.probe_line(runtime, MEMORY),
        program=Program.QEMU,
        uid=uid,
        gid=uid,
        devices=(*DEVICES, *((KVM,) if runtime == Runtime.KVM else ())),
        fds={1: console, 2: console},
        limits={
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_CPU: CPU_SECONDS,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_NPROC: MAX_THREADS,
            resource.RLIMIT_NOFILE: 256,
        },
        oom_score=500,
    )


async def _outcome(process: ProcessHandle, console: Console, timeout: float) -> str | None:
    """Wait for the agent's line, the machine's end, or the bound, whatever comes first."""
    ready = asyncio.ensure_future(console.wait_ready())
    gone = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({ready, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            return None
        ended = gone.done()
    finally:
        ready.cancel()
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(ready, gone)
    console.drain()
    words = _last_words(console.tail())
    if ended:
        return f"the guest ended before it reached its agent{words}"
    return (
        f"the guest did not reach its agent within {timeout:.0f} s: {KVM} is there but does not "
        f"run guests{words}"
    )


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    # That its link leads nowhere is no news.
    said = [line for line in lines if line and "warning: hub" not in line]
    return f" (its last words: {said[-1][:200]})" if said else ""


async def _end(process: ProcessHandle) -> None:
    """Kill the VMM. One that the kernel holds in KVM is left to it, and said."""
    try:
        await process.kill()
    except HyperError as error:
        log.error("the probe of KVM: %s", error)
    finally:
        process.close()
