"""The driver of QEMU: ``hyper-kvm`` on the processor itself, ``hyper-tcg`` in software emulation.

QEMU runs in the jail with the kit's kernel. KVM counts as usable only after a guest has booted with
it (``vmm.probe``). Emulation is for hosts where nothing else works: it is slow, and by QEMU's own
word no security boundary.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import socket
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import GuestError
from hyperstack.guest.kit import Kit
from hyperstack.platform import jail
from hyperstack.platform.filters import Program
from hyperstack.platform.process import ProcessHandle
from hyperstack.vmm import files, launching
from hyperstack.vmm.base import Capabilities, MachineRecord, MachineSpec, Runtime, Usable
from hyperstack.vmm.console import Console
from hyperstack.vmm.launching import DEVICES, missing_device
from hyperstack.vmm.qemu import command, devices, qmp, verdict
from hyperstack.vmm.qemu.machine import MONITOR, OWN_NEED, QemuMachine

MiB = 1 << 20
KVM = "/dev/kvm"
MAX_THREADS = 256
"""CPUs, and up to 64 that read and write disks for each of a few event loops."""
MAX_FILES = 1024
MAX_CPUS = 64


class QemuDriver:
    """Launches and adopts QEMU machines; see ``Driver`` for the methods."""

    def __init__(self, config: Config, kit: Kit, runtime: Runtime) -> None:
        assert runtime in (Runtime.KVM, Runtime.TCG)
        self._config = config
        self._kit = kit
        self._runtime = runtime

    @property
    def runtime(self) -> Runtime:
        """``hyper-kvm`` or ``hyper-tcg``."""
        return self._runtime

    @property
    def kit(self) -> Kit:
        """The kit whose QEMU and kernel it runs."""
        return self._kit

    @property
    def capabilities(self) -> Capabilities:
        """What these machines can do."""
        return Capabilities(
            hot_disk=True,
            hot_nic=True,
            resize_memory=True,
            snapshot=False,
            share=True,
            max_cpus=min(MAX_CPUS, os.cpu_count() or 1),
            max_disks=devices.MAX_DISKS,
            security_boundary=self._runtime == Runtime.KVM,
        )

    async def usable(self) -> Usable:
        """Say whether this host has what QEMU needs, and whether KVM was seen to work."""
        reason = unusable(self._kit)
        if reason is None and self._runtime == Runtime.KVM:
            reason = self._kvm_unusable()
        if reason is not None:
            return Usable(ok=False, reason=reason)
        if self._runtime == Runtime.KVM:
            return Usable(ok=True)
        return Usable(
            ok=True,
            warnings=("software emulation is many times slower, and the jail alone stands",),
        )

    def _kvm_unusable(self) -> str | None:
        if not Path(KVM).is_char_device():
            return f"{KVM} is missing (load the module kvm_intel or kvm_amd)"
        known = verdict.load(self._config.kit_dir, self._kit.version)
        if known is None:
            return f"no guest has been booted with {KVM} yet since the host was"
        return None if known.ok else known.reason

    async def launch(self, spec: MachineSpec) -> QemuMachine:
        """Start a machine and return as soon as QEMU runs.

        Raises GuestError if the jail or QEMU could not be started, or the runtime is known not to
        work; nothing is left then.
        """
        self._check()
        spec = self._fitting(spec)
        slots = devices.assign_slots(spec.layers, spec.disks, spec.nics)
        launched = await launching.launch(
            spec,
            self._runtime,
            slots,
            lambda: self._link(spec),
            lambda console: self._start(spec, slots, console),
        )
        return QemuMachine(launched.record, launched.process, launched.console)

    def _check(self) -> None:
        """Refuse at once what would fail after a minute. An unknown KVM is tried: it was named."""
        reason = unusable(self._kit)
        if reason is None and self._runtime == Runtime.KVM:
            known = verdict.load(self._config.kit_dir, self._kit.version)
            reason = known.reason if known is not None and not known.ok else None
        if reason is not None:
            raise GuestError(f"runtime {self._runtime} can't be used: {reason}")

    def _link(self, spec: MachineSpec) -> None:
        layers = files.make_folder(spec.sandbox_dir / "layers")
        disks = files.make_folder(spec.sandbox_dir / "disks")
        for disk in (*spec.layers, *spec.disks):
            if disk.read_only:
                files.link_read_only(layers, disk, spec.uid)
            else:
                files.link_writable(disks, disk, spec.uid)

    async def _start(
        self, spec: MachineSpec, slots: dict[str, int], console: Console
    ) -> ProcessHandle:
        monitor = qmp.listen(spec.run_dir / MONITOR)
        writer = console.writer()
        try:
            jailed = self._jail(spec, slots, writer, monitor)
            return await jail.launch(jailed, self._kit.jail)
        except BaseException:
            (spec.run_dir / MONITOR).unlink(missing_ok=True)
            raise
        finally:
            os.close(writer)
            monitor.close()

    def _jail(
        self, spec: MachineSpec, slots: dict[str, int], console: int, monitor: socket.socket
    ) -> jail.JailSpec:
        binds = [
            jail.Bind(source=spec.sandbox_dir / "layers", target="/layers"),
            jail.Bind(source=spec.sandbox_dir / "disks", target="/disks", read_only=False),
        ]
        if spec.share_socket is not None:
            binds.append(jail.Bind(source=spec.share_socket, target=devices.SHARE_SOCKET))
        return jail.JailSpec(
            root=spec.kit / "qemu",
            argv=command.command_line(spec, self._runtime, slots),
            program=Program.QEMU,
            uid=spec.uid,
            gid=spec.uid,
            binds=tuple(binds),
            devices=(*DEVICES, *((KVM,) if self._runtime == Runtime.KVM else ())),
            netns=spec.netns,
            cgroups=spec.cgroups,
            fds={1: console, 2: console, command.QMP_FD: monitor.fileno()},
            limits=limits(spec, self._config.storage_size),
            oom_score=0,
        )

    def _fitting(self, spec: MachineSpec) -> MachineSpec:
        """Return *spec* with what this kernel needs, and no more CPUs than machines can have."""
        return dataclasses.replace(
            spec,
            memory=spec.memory + OWN_NEED,
            cpus=max(1, min(spec.cpus, self.capabilities.max_cpus)),
        )

    async def adopt(self, record: MachineRecord) -> QemuMachine | None:
        """Find a machine of an earlier daemon; None if it is gone."""
        found = launching.adopt(record)
        return None if found is None else QemuMachine(found.record, found.process, found.console)


def unusable(kit: Kit) -> str | None:
    """Say what QEMU lacks on this host, whatever accelerates it; None if nothing."""
    if platform.machine() != "x86_64":
        return f"the guest's kernel needs x86-64, not {platform.machine()}"
    if not kit.has_qemu:
        return "the guest kit has no QEMU; run 'hyper kit build'"
    return missing_device()


def limits(spec: MachineSpec, disk_size: int) -> dict[int, int]:
    """Return the resource limits (getrlimit(2)) of a machine's process.

    *disk_size* is that of the disks that it may be given later, in bytes.
    """
    sizes = [disk.path.stat().st_size for disk in spec.disks if not disk.read_only]
    return {
        resource.RLIMIT_CORE: 0,
        # A disk can't grow past its size, whatever the guest does to its VMM. The guest's memory
        # may be a file too.
        resource.RLIMIT_FSIZE: max([spec.memory + 16 * MiB, disk_size, *sizes]),
        resource.RLIMIT_NPROC: MAX_THREADS,
        resource.RLIMIT_NOFILE: MAX_FILES,
    }
