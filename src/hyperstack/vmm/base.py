"""What every VMM driver offers, and the values it takes: the seam between engine and machines.

A driver launches a virtual machine in a jail and hands out a ``Machine``. It knows nothing of
images or Docker: a disk is a file, a NIC is a tap that exists already in the network namespace.
The daemon may die at any time: ``Machine.record`` is enough for ``Driver.adopt`` of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from hyperstack.guest.messages import Source
from hyperstack.ids import SandboxId

AGENT_MAC = "02:48:59:50:00:01"
"""MAC of the guest's end of the private link; the daemon's end is ``AGENT_PEER_MAC``."""
AGENT_PEER_MAC = "02:48:59:50:00:02"


class Runtime(StrEnum):
    """Names for ``docker run --runtime``."""

    KVM = "hyper-kvm"
    UML = "hyper-uml"
    UML_FAST = "hyper-uml-fast"
    TCG = "hyper-tcg"


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A disk: a raw file on the host. Read-only files are hard links that the driver makes."""

    path: Path
    read_only: bool
    name: str
    """Unique within the sandbox, at most 20 characters of [a-z0-9]."""


@dataclass(frozen=True, kw_only=True)
class Tap:
    """A tap in the sandbox's network namespace, owned by the sandbox's uid, with vnet_hdr."""

    name: str
    mac: str
    mtu: int = 1500


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """A machine to launch. Bytes; ``cpus`` is a count (UML has one whatever is asked).

    ``sandbox_dir`` (data root) and ``run_dir`` (exec root) exist and belong to root; the driver
    makes what it needs below them. ``netns`` is a path that names the namespace. ``cgroups`` are
    the folders (one per hierarchy on cgroup v1, one on v2) that the VMM is put into.
    ``share_socket`` is virtiofsd's vhost-user socket.
    """

    id: SandboxId
    uid: int
    memory: int
    cpus: int
    kit: Path
    sandbox_dir: Path
    run_dir: Path
    netns: Path
    cgroups: tuple[Path, ...] = ()
    agent_tap: Tap
    nics: tuple[Tap, ...] = ()
    layers: tuple[Disk, ...] = ()
    disks: tuple[Disk, ...] = ()
    share_socket: Path | None = None
    share_tag: str = ""


class MachineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a later daemon needs to find a machine again. Stored as JSON."""

    runtime: str
    pid: int
    start_time: int
    """Field 22 of /proc/PID/stat: with the pid it names one process for ever."""
    uid: int
    sandbox_dir: str
    run_dir: str
    kit: str
    slots: dict[str, int] = {}
    """Disk and NIC names to their bus slots."""
    memory: int = 0
    """Bytes that the machine was launched with."""
    given_up: int = 0
    """Bytes of them that the guest has given back."""


MAX_PROCESSES = 32_768
BYTES_PER_PROCESS = 128 << 10
"""A process in UML takes a process of the host. This is the VM's memory per such process."""


def most_processes(memory: int) -> int:
    """Return how many processes of the host a machine with *memory* bytes may be."""
    return min(MAX_PROCESSES, max(1024, memory // BYTES_PER_PROCESS))


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a driver's machines can do."""

    hot_disk: bool
    hot_nic: bool
    resize_memory: bool
    snapshot: bool
    share: bool
    max_cpus: int
    max_disks: int
    security_boundary: bool
    """False where only the jail stands between guest programs and the host (UML fast, TCG)."""


@dataclass(frozen=True, kw_only=True)
class Usable:
    """Whether a runtime works on this host, and if not, why and what to do."""

    ok: bool
    reason: str = ""
    warnings: tuple[str, ...] = field(default=())


class Machine(Protocol):
    """A running virtual machine. Every method is bounded in time and raises GuestError."""

    @property
    def record(self) -> MachineRecord:
        """What to store so that the next daemon can adopt this machine; changes with hot-add."""
        ...

    @property
    def pid(self) -> int:
        """The VMM's pid on the host."""
        ...

    @property
    def share_socket(self) -> Path:
        """Where a share's server has to listen for the running guest to get a share it has not."""
        ...

    def layer(self, name: str) -> Source:
        """Say how the guest finds the layer of this name."""
        ...

    def disk(self, name: str) -> Source:
        """Say how the guest finds the disk of this name."""
        ...

    async def add_layer(self, layer: Disk) -> Source:
        """Give the running guest another read-only layer."""
        ...

    async def add_disk(self, disk: Disk) -> Source:
        """Give the running guest another disk."""
        ...

    async def remove_disk(self, name: str) -> None:
        """Take a disk (that the guest has unmounted) away."""
        ...

    async def recover(self, disks: Sequence[str], nics: Sequence[str]) -> None:
        """Take these away unless the record knows them: a daemon died while it was adding them."""
        ...

    async def add_share(self, tag: str) -> None:
        """Give the running guest the share of the server at ``share_socket``, if it has none."""
        ...

    async def add_nic(self, tap: Tap) -> None:
        """Give the running guest another network card; the guest finds it by its MAC."""
        ...

    async def remove_nic(self, name: str) -> None:
        """Take a network card away."""
        ...

    async def pause(self) -> None:
        """Stop the machine's CPU."""
        ...

    async def resume(self) -> None:
        """Let it run on."""
        ...

    async def resize_memory(self, memory: int) -> None:
        """Change the guest's memory to *memory* bytes as far as the driver can."""
        ...

    async def kill(self) -> None:
        """Kill the VMM and wait until it is gone."""
        ...

    async def wait(self) -> None:
        """Return when the VMM is gone, whoever its parent is (pidfd)."""
        ...

    def alive(self) -> bool:
        """Tell whether the VMM still runs."""
        ...

    def console_tail(self, limit: int = 4096) -> str:
        """Return the last *limit* bytes of the console as printable text."""
        ...

    async def console_ready(self) -> None:
        """Return once the console has shown the agent's READY line (or the VMM is gone)."""
        ...

    async def close(self) -> None:
        """Let go of the daemon's descriptors; the machine runs on."""
        ...


class Driver(Protocol):
    """One way to run machines."""

    @property
    def runtime(self) -> Runtime:
        """Its name."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What its machines can do."""
        ...

    async def usable(self) -> Usable:
        """Say whether it works here, bounded, cached; never starts a guest by itself."""
        ...

    async def launch(self, spec: MachineSpec) -> Machine:
        """Start a machine and return as soon as its VMM runs.

        Raises GuestError if the jail or the VMM could not be started; nothing is left then.
        """
        ...

    async def adopt(self, record: MachineRecord) -> Machine | None:
        """Find a machine of an earlier daemon; None if it is gone."""
        ...
