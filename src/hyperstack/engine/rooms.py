"""What a container needs of the host before its sandbox boots: layers, disk, mounts, memory."""

from __future__ import annotations

import asyncio
import os
import posixpath
from dataclasses import dataclass, field, replace
from pathlib import Path

from hyperstack.engine import disks, joining, networking, sockets
from hyperstack.engine.core import Core
from hyperstack.engine.refusals import check_targets
from hyperstack.engine.sandbox import Sandbox, SandboxPlan, check_layers, layer_name
from hyperstack.engine.spec import Rooms
from hyperstack.engine.tmpfs import parse_tmpfs
from hyperstack.guest import messages
from hyperstack.guest.messages import MountKind
from hyperstack.model import Container, HostConfig, MountState
from hyperstack.platform.blockio import DeviceLimit, Kind, device_number
from hyperstack.platform.cgroup import CgroupLimits
from hyperstack.vmm.base import Runtime, most_processes
from hyperstack.volume.shown import ShareMount

MiB = 1 << 20
DISK = "scratch"
BESIDE = 512 * MiB
"""Bytes that a VMM and its helpers may take beside the VM's memory and half of it: page tables and
kernel stacks of guest processes, what virtiofsd knows of files."""
HELPERS = 256
"""Processes and threads of a sandbox's helpers at most."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A plan for the sandbox, and the container's mounts as the guest will find them."""

    container: Container
    plan: SandboxPlan
    layers: tuple[Path, ...]
    mounts: tuple[messages.Mount, ...]
    disk: str = DISK

    def rooms(
        self,
        sandbox: Sandbox,
        plugged: networking.Plugged,
        joins: tuple[messages.Join, ...] = (),
    ) -> Rooms:
        """Say where the booted guest finds everything, and what of others' it shares."""
        return Rooms(
            root=self.root(sandbox),
            mounts=(*self.mounts, *plugged.files),
            nics=plugged.nics,
            joins=joins,
            dns=plugged.dns,
            env=plugged.env,
            sysctls=plugged.sysctls,
            shared=len(sandbox.row.containers) > 1,
        )

    def root(self, sandbox: Sandbox) -> messages.Root:
        """Say where the booted guest finds the container's root."""
        machine = sandbox.machine
        return messages.Root(
            layers=tuple(machine.layer(layer_name(path)) for path in self.layers),
            disk=machine.disk(self.disk),
            read_only=self.container.host.readonly_rootfs,
        )


async def prepare(
    core: Core,
    container: Container,
    runtime: Runtime,
    *,
    service: bool = False,
    mounted: bool = True,
    disk: str = DISK,
    prefix: str = "",
) -> Prepared:
    """Collect what *container*'s sandbox is booted with, without its mounts unless *mounted*.

    *disk* and *prefix* name its disk and begin the names of its mounts, unique in the sandbox.
    """
    layers = tuple(dict.fromkeys(core.images.rootfs(container.image_id)))
    check_layers(layers)
    disks.check(core, container)
    if not service:
        for options in container.host.tmpfs.values():
            parse_tmpfs(options)
        check_targets((mount.source or "tmpfs", mount.destination) for mount in container.mounts)
        check_targets(("tmpfs", posixpath.normpath(path)) for path in container.host.tmpfs)
    mounts = await _mounts(core, container, prefix, service) if mounted else _Mounts()
    host = container.host
    joiners = [] if service else joining.followers(core, container)
    everybody = [host, *(joiner.host for joiner in joiners)]
    memory = 256 * MiB if service else vm_memory(core, *everybody)
    plan = SandboxPlan(
        runtime=runtime,
        memory=memory,
        cpus=max(vm_cpus(wishes) for wishes in everybody),
        containers=(container.id,),
        service=service,
        hostname=container.config.hostname,
        layers=layers,
        disks=((disk, core.disk(container.id)),),
        shares=tuple(mounts.shares),
        sharing=any(mount.type != "tmpfs" for joiner in joiners for mount in joiner.mounts),
        sockets={} if service else mounts.sockets,
        limits=cgroup_limits(HostConfig() if service else host, memory),
    )
    return Prepared(
        container=container, plan=plan, layers=layers, mounts=mounts.told(service), disk=disk
    )


@dataclass
class _Mounts:
    """What a container has mounted: from the share, sockets by name, and as its guest is told."""

    shares: list[ShareMount] = field(default_factory=list)
    sockets: dict[str, str] = field(default_factory=dict)
    mounts: list[messages.Mount] = field(default_factory=list)

    def told(self, service: bool) -> tuple[messages.Mount, ...]:
        """Return what the guest mounts: nobody connects to a socket where nothing runs."""
        kinds = {MountKind.SHARE} if service else {MountKind.SHARE, MountKind.SOCKET}
        return tuple(mount for mount in self.mounts if mount.kind in kinds)


async def _mounts(core: Core, container: Container, prefix: str, service: bool) -> _Mounts:
    found = _Mounts()
    # A mount below another one's target comes after it, as with Docker.
    ordered = sorted(container.mounts, key=lambda mount: mount.destination.count("/"))
    for number, mount in enumerate(ordered):
        if mount.type == "tmpfs":
            continue
        source = await core.volumes.mount_source(mount, container.id)
        name = f"{prefix}m{number}"
        # What the host keeps read-only the guest need not; mounts below take its flags over there.
        flags = 0 if mount.read_write or mount.read_only_non_recursive else 1
        if mount.type == "bind" and (end := await asyncio.to_thread(sockets.find, source)):
            found.sockets[f"/{name}"] = end.path
            found.mounts.append(sockets.mount(end, f"/{name}", mount.destination, flags))
            continue
        inside = core.volumes.path(core.volumes.get(mount.name)) if mount.subpath else None
        shown = share_mount(name, source, mount, inside)
        if service and shown.read_only and fills(core, container, mount):
            # Only the agent runs there, and fills it before it makes it read-only.
            shown = replace(shown, read_only=not await asyncio.to_thread(is_empty, source))
        found.shares.append(shown)
        found.mounts.append(
            messages.Mount(
                kind=MountKind.SHARE,
                target=posixpath.join("/", mount.destination),
                source=f"/{name}",
                flags=flags,
                copy_up=fills(core, container, mount),
            )
        )
    return found


def share_mount(
    name: str, source: Path, mount: MountState, inside: Path | None = None
) -> ShareMount:
    """Say how the host shows *source*, which lies *inside* a volume, to the guest."""
    return ShareMount(
        name=name,
        source=source,
        read_only=not mount.read_write,
        recursive=not mount.non_recursive,
        read_only_below=not mount.read_only_non_recursive,
        beneath=inside,
    )


def is_empty(folder: Path) -> bool:
    """Tell whether nothing is in a folder; blocking."""
    try:
        return not any(folder.iterdir())
    except OSError:
        return True


def fills(core: Core, container: Container, mount: MountState) -> bool:
    """Tell whether an empty volume takes what the image has at its place.

    Docker fills it when the container is made, the guest at the first start. What Docker copies
    into a tmpfs is gone with the mount that was made for it.
    """
    if mount.type != "volume" or mount.no_copy or container.generation:
        return False
    wanted = core.volumes.get(mount.name).host_mount
    return wanted is None or not wanted.volatile


def vm_memory(core: Core, *hosts: HostConfig) -> int:
    """Return the VM's memory in bytes: the limit and the guest's own need, or the default.

    *hosts* are the wishes of a container and of those that are to join it: each limit counts, and
    the default once for all that have none.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limited = sum(host.memory for host in hosts)
    size = limited + limited // 40 + core.config.sandbox_overhead if limited else 0
    if not all(host.memory for host in hosts):
        size += min(core.config.sandbox_memory, total // 2)
    if len(hosts) > 1:
        size = min(size, max(total, vm_memory(core, hosts[0])))
    return -(-size // MiB) * MiB


def vm_cpus(host: HostConfig) -> int:
    """Return how many CPUs the VM gets where its VMM can have several."""
    if host.nano_cpus:
        return max(1, -(-host.nano_cpus // 1_000_000_000))
    return os.cpu_count() or 1


def cgroup_limits(host: HostConfig, memory: int) -> CgroupLimits:
    """Return the limits of the sandbox's cgroup on the host, whose VM has *memory* bytes.

    Memory and processes are not the container's limits, which the guest keeps, but a bound on what
    VMM and helpers can take of the host with any guest. Caches of files count, and give way.
    """
    period = host.cpu_period or 100_000
    quota = host.cpu_quota
    if host.nano_cpus:
        period, quota = 100_000, host.nano_cpus // 10_000
    return CgroupLimits(
        cpu_quota=quota if quota > 0 else None,
        cpu_period=period if quota > 0 else None,
        cpu_weight=host.cpu_shares or None,
        memory=memory + memory // 2 + BESIDE,
        pids=most_processes(memory) + HELPERS,
        cpus=host.cpuset_cpus,
        nodes=host.cpuset_mems,
        devices=device_limits(host),
    )


def device_limits(host: HostConfig) -> tuple[DeviceLimit, ...]:
    """Return the limits of block devices. Raises InternalError for a path that is not there."""
    wishes = (
        (Kind.READ_BPS, host.blkio_device_read_bps),
        (Kind.WRITE_BPS, host.blkio_device_write_bps),
        (Kind.READ_IOPS, host.blkio_device_read_iops),
        (Kind.WRITE_IOPS, host.blkio_device_write_iops),
    )
    return tuple(
        DeviceLimit(kind=kind, device=device_number(wish.path), rate=wish.rate)
        for kind, devices in wishes
        for wish in devices
    )
