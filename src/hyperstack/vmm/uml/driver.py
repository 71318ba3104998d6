"""The driver of User Mode Linux: a guest kernel that is a jailed, unprivileged process.

``hyper-uml`` runs guest programs under ptrace(2), which keeps them out of the guest kernel's
memory. ``hyper-uml-fast`` uses a seccomp trap instead, which does not: there the jail alone stands
(design 9), so it exists only where the operator allows it.
"""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import GuestError
from hyperstack.guest.kit import UML_KERNEL, Kit
from hyperstack.platform import jail
from hyperstack.platform.filters import Program
from hyperstack.platform.process import ProcessHandle
from hyperstack.vmm import files, launching
from hyperstack.vmm.base import (
    Capabilities,
    MachineRecord,
    MachineSpec,
    Runtime,
    Usable,
    most_processes,
)
from hyperstack.vmm.console import Console
from hyperstack.vmm.launching import DEVICES, Launched, missing_device
from hyperstack.vmm.uml import command
from hyperstack.vmm.uml.disks import free_slot, link_disk
from hyperstack.vmm.uml.machine import UmlMachine

MiB = 1 << 20
SHM = "/dev/shm"  # noqa: S108 -- in the jail, where nobody else is
MAX_LAYERS = 500
PTRACE_ADMIN_ONLY = 2


class UmlDriver:
    """Launches and adopts User Mode Linux machines; see ``Driver`` for the methods."""

    def __init__(self, config: Config, kit: Kit, runtime: Runtime = Runtime.UML) -> None:
        assert runtime in (Runtime.UML, Runtime.UML_FAST)
        self._config = config
        self._kit = kit
        self._runtime = runtime

    @property
    def runtime(self) -> Runtime:
        """``hyper-uml`` or ``hyper-uml-fast``."""
        return self._runtime

    @property
    def capabilities(self) -> Capabilities:
        """What these machines can do."""
        return Capabilities(
            hot_disk=True,
            hot_nic=True,
            resize_memory=True,
            snapshot=False,
            share=True,
            max_cpus=1,
            max_disks=command.LAST_DISK - command.FIRST_DISK + 1,
            security_boundary=self._runtime == Runtime.UML,
        )

    async def usable(self) -> Usable:
        """Say whether this host has what User Mode Linux needs."""
        if platform.machine() != "x86_64":
            return Usable(
                ok=False, reason=f"User Mode Linux needs x86-64, not {platform.machine()}"
            )
        if (missing := missing_device()) is not None:
            return Usable(ok=False, reason=missing)
        if self._runtime == Runtime.UML and _ptrace_scope() >= PTRACE_ADMIN_ONLY:
            return Usable(
                ok=False,
                reason="kernel.yama.ptrace_scope forbids ptrace; set it to 1 with sysctl",
            )
        if self._runtime == Runtime.UML_FAST:
            warning = "guest programs can reach the guest kernel's memory: the jail alone stands"
            return Usable(ok=True, warnings=(warning,))
        return Usable(ok=True)

    async def launch(self, spec: MachineSpec) -> UmlMachine:
        """Start a machine and return as soon as its kernel runs.

        Raises GuestError if the jail or the kernel could not be started; nothing is left then.
        """
        slots = assign_slots(spec)
        launched = await launching.launch(
            spec,
            self._runtime,
            slots,
            lambda: self._link(spec),
            lambda console: self._start(spec, slots, console),
        )
        return _machine(launched)

    def _link(self, spec: MachineSpec) -> None:
        if len(spec.layers) > MAX_LAYERS:
            raise GuestError(f"the virtual machine can't have more than {MAX_LAYERS} layers")
        layers = files.make_folder(spec.sandbox_dir / "layers")
        disks = files.make_folder(spec.sandbox_dir / "disks")
        for layer in spec.layers:
            files.link_read_only(layers, layer, spec.uid)
        for disk in spec.disks:
            link_disk(layers, disks, disk, spec.uid)

    async def _start(
        self, spec: MachineSpec, slots: dict[str, int], console: Console
    ) -> ProcessHandle:
        writer = console.writer()
        try:
            return await jail.launch(self._jail(spec, slots, writer), self._kit.jail)
        finally:
            os.close(writer)

    def _jail(self, spec: MachineSpec, slots: dict[str, int], console: int) -> jail.JailSpec:
        binds = [
            jail.Bind(source=spec.sandbox_dir / "layers", target="/layers"),
            jail.Bind(source=spec.sandbox_dir / "disks", target="/disks", read_only=False),
            jail.Bind(source=spec.kit / "guest", target="/guest"),
        ]
        if spec.share_socket is not None:
            binds.append(jail.Bind(source=spec.share_socket, target=command.SHARE_SOCKET))
        return jail.JailSpec(
            root=spec.kit / "uml",
            argv=(UML_KERNEL, *command.command_line(spec, self._runtime, slots)[1:]),
            program=Program.UML,
            uid=spec.uid,
            gid=spec.uid,
            env={"HOME": "/"},
            binds=tuple(binds),
            tmpfs=(
                # The guest's memory, which its programs' pages are executed from. In small pages
                # the faults of the kernel's page structs alone (32 MB in 2 GiB) take 30 ms.
                jail.Tmpfs(target=SHM, size=spec.memory + 16 * MiB, executable=True, huge=True),
                jail.Tmpfs(target="/uml", size=MiB // 16),
            ),
            devices=DEVICES,
            netns=spec.netns,
            cgroups=spec.cgroups,
            fds={2: console},
            limits=limits(spec, self._config.storage_size),
            no_aslr=True,
        )

    async def adopt(self, record: MachineRecord) -> UmlMachine | None:
        """Find a machine of an earlier daemon; None if it is gone."""
        found = launching.adopt(record)
        return None if found is None else _machine(found)


def _machine(launched: Launched) -> UmlMachine:
    umid = Path(launched.record.run_dir).name
    return UmlMachine(launched.record, launched.process, launched.console, umid)


def assign_slots(spec: MachineSpec) -> dict[str, int]:
    """Number the disks and NICs that a machine is launched with. Raises GuestError for too many."""
    slots: dict[str, int] = {}
    for disk in spec.disks:
        slots[command.disk_key(disk.name)] = free_slot(
            set(slots.values()), command.FIRST_DISK, command.LAST_DISK
        )
    nics: dict[str, int] = {}
    for nic in spec.nics:
        nics[command.nic_key(nic.name)] = free_slot(
            set(nics.values()), command.AGENT_NIC + 1, command.LAST_NIC
        )
    return slots | nics


def limits(spec: MachineSpec, disk_size: int) -> dict[int, int]:
    """Return the resource limits (getrlimit(2)) of a machine's processes.

    *disk_size* is that of the disks that it may be given later, in bytes.
    """
    processes = most_processes(spec.memory)
    sizes = [spec.memory + 16 * MiB, disk_size]
    sizes += [disk.path.stat().st_size for disk in spec.disks if not disk.read_only]
    return {
        resource.RLIMIT_CORE: 0,
        # A disk can't grow past its size, whatever the guest does to its kernel.
        resource.RLIMIT_FSIZE: max(sizes),
        resource.RLIMIT_NPROC: processes,
        # Files that the guest has open on hostfs, and a socket for each process in seccomp mode.
        resource.RLIMIT_NOFILE: processes + 1024,
    }


def _ptrace_scope() -> int:
    try:
        return int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        return 0
