"""Containers that share a sandbox: how one moves in while others run, and how it moves out.

Who joins a running container gets its layers, disk, mounts and network cards into the machine that
is there. Each leaves by itself; the machine ends with the last of them. ``row.containers`` says who
is in, from before anything is added to after everything is taken away, so that a later daemon can
finish what this one began.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hyperstack.engine import claims, joining, networking, rooms, runtimes, volumes
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.record import in_any_case
from hyperstack.engine.sandbox import Sandbox, layer_name
from hyperstack.engine.spec import DEFAULT_SHARES, SHOWN_SINCE, cpu_time, limits
from hyperstack.errors import GuestError, HyperError, InvalidParameter
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.ids import ContainerId
from hyperstack.model import Container
from hyperstack.network.rows import Endpoint
from hyperstack.platform.blockio import DeviceLimit
from hyperstack.platform.cgroup import CgroupLimits
from hyperstack.vmm.base import Disk, Runtime

log = logging.getLogger(__name__)

UNMOUNT = 70.0
"""Seconds within which a guest has unmounted a container's root."""
VACATE = 120.0
"""Seconds for all that a guest has to do when a container leaves it."""
PERIOD = 100_000
"""Microseconds within which CPU time is counted."""
BUSY, PAUSE = 5.0, 0.05
"""Seconds for which a guest's kernel may hold what was given back, and between two tries."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a container can start: its sandbox, what is prepared there, and its networks."""

    sandbox: Sandbox
    prepared: rooms.Prepared
    plugged: networking.Plugged
    joins: tuple[messages.Join, ...] = ()


def others(sandbox: Sandbox, container: ContainerId) -> bool:
    """Tell whether a sandbox is anybody else's, too."""
    return any(identifier != container for identifier in sandbox.row.containers)


# -- in


async def enter(core: Core, container: Container, joined: joining.Joined) -> Place:
    """Bring a container into the sandbox of those that it joins. Nothing is left if it fails.

    Called at once after ``joining.find``. Raises HyperError.
    """
    sandbox = joined.sandbox
    _admit(core, container, sandbox)
    if joined.network is not None:
        networking.take_names(container, joined.network)
    mounted = False
    try:
        prepared = await rooms.prepare(
            core,
            container,
            Runtime(sandbox.row.runtime),
            disk=_disk_name(container.id),
            prefix=f"j{sandbox.next_handle()}",
        )
        volumes.mounted(core, container)
        mounted = True
        await _furnish(core, sandbox, prepared)
        plugged = await _plug(core, container, joined)
        await core.sandboxes.remember(sandbox)
        await share_out(core, sandbox, newcomer=container)
    except BaseException:
        await core.tasks.carry_through("undo of a join", leave(core, container.id, sandbox))
        if mounted:
            volumes.unmounted(core, container)
        raise
    return Place(sandbox=sandbox, prepared=prepared, plugged=plugged, joins=joined.joins)


def _admit(core: Core, container: Container, sandbox: Sandbox) -> None:
    """Count a container to a sandbox before anything is waited for: it won't end from now on."""
    if not sandbox.machine.alive():
        raise GuestError("the virtual machine that the container joins has ended")
    runtime = Runtime(sandbox.row.runtime)
    if container.runtime not in ("", runtimes.HOST_DEFAULT, runtime):
        raise InvalidParameter(
            f"a container can't join one of runtime {runtime} with runtime {container.runtime}: "
            "they share a virtual machine"
        )
    if not core.sandboxes.driver(runtime).capabilities.hot_disk:
        raise InvalidParameter(f"containers of runtime {runtime} can't be joined")
    sandbox.row.containers = (*sandbox.row.containers, container.id)


def _disk_name(container: ContainerId) -> str:
    return f"d{container[:19]}"


async def _furnish(core: Core, sandbox: Sandbox, prepared: rooms.Prepared) -> None:
    """Give the machine a container's layers, disk, mounts and sockets."""
    row, machine, plan = sandbox.row, sandbox.machine, prepared.plan
    row.sockets = {**row.sockets, **plan.sockets}
    names = (*(mount.name for mount in plan.shares), *plan.sockets)
    row.mounts = {**row.mounts, prepared.container.id: names}
    await core.sandboxes.remember(sandbox)  # the intent
    for path in prepared.layers:
        await machine.add_layer(Disk(path=path, read_only=True, name=layer_name(path)))
    for name, path in plan.disks:
        await machine.add_disk(Disk(path=path, read_only=False, name=name))
    await core.sandboxes.share(sandbox, plan.shares)


async def _plug(core: Core, container: Container, joined: joining.Joined) -> networking.Plugged:
    if joined.network is not None:
        return networking.joined(core, container, joined.network)
    sandbox = joined.sandbox
    plugged = await networking.plug(core, container, sandbox.id, sandbox.row.uid)
    for tap in plugged.taps:
        await sandbox.machine.add_nic(tap)
    return plugged


# -- out


async def depart(core: Core, container: Container, sandbox: Sandbox, *, clean: bool) -> None:
    """A container has ended, or has not started: end its sandbox, or leave it to the others.

    *clean*: let the guest unmount the disk of a sandbox that ends.
    """
    if others(sandbox, container.id):
        await core.tasks.carry_through(
            f"leave of {container.id[:12]}", leave(core, container.id, sandbox)
        )
    else:
        await core.sandboxes.end(sandbox, clean=clean)


async def leave(core: Core, identifier: ContainerId, sandbox: Sandbox) -> None:
    """Take everything of a container out of a sandbox; if nobody else is left in it, end it.

    A guest that does not let go of a disk is killed: nobody else may use the disk meanwhile.
    """
    if sandbox.machine.alive():
        if (container := core.table.find(identifier)) is not None:
            await in_any_case("networks", unplug(core, container, sandbox))
        try:
            async with asyncio.timeout(VACATE):
                await _vacate(core, identifier, sandbox)
        except (HyperError, TimeoutError) as error:
            if sandbox.machine.alive():
                words = str(error) or f"it took more than {VACATE:.0f} s"
                reason = f"it does not let go of container {identifier[:12]}: {words}"
                await core.sandboxes.condemn(sandbox, reason)
    if not others(sandbox, identifier):
        await core.sandboxes.end(sandbox, clean=sandbox.machine.alive())
        return
    row = sandbox.row
    row.containers = tuple(other for other in row.containers if other != identifier)
    if sandbox.machine.alive():
        await in_any_case("a sandbox's row", core.sandboxes.remember(sandbox))
        await in_any_case("limits", share_out(core, sandbox))


async def finish(core: Core, identifier: ContainerId, sandbox: Sandbox) -> None:
    """Take out of a sandbox what an earlier daemon was bringing in or out when it died."""
    cards = [e.tap for e in core.networks.book.of(identifier) if e.sandbox == sandbox.id]
    await in_any_case(
        "what was half added", sandbox.machine.recover([_disk_name(identifier)], cards)
    )
    await leave(core, identifier, sandbox)


async def _vacate(core: Core, identifier: ContainerId, sandbox: Sandbox) -> None:
    await _forget_processes(identifier, sandbox)
    await _removed(identifier, sandbox)
    machine, row = sandbox.machine, sandbox.row
    name = rooms.DISK if row.first == identifier else _disk_name(identifier)
    if f"disk:{name}" in machine.record.slots:
        await machine.remove_disk(name)
    names = row.mounts.get(identifier, ())
    shared = [name for name in names if not name.startswith("/")]
    await in_any_case("a sandbox's share", core.sandboxes.unshare(sandbox, shared))
    row.mounts = {owner: held for owner, held in row.mounts.items() if owner != identifier}
    row.sockets = {name: path for name, path in row.sockets.items() if name not in names}
    if row.first == identifier:
        row.first = None


async def _forget_processes(container: ContainerId, sandbox: Sandbox) -> None:
    """Release what the agent still knows of a container's processes that have ended."""
    state = claims.check(await sandbox.call(messages.Op.LIST))
    for process in state.processes:
        if process.container == container and not process.running:
            try:
                await sandbox.call(messages.Op.RELEASE, messages.ProcessRef(handle=process.handle))
            except AgentFailure as failure:
                log.debug("release of %d: %s", process.handle, failure.detail)


async def _removed(container: ContainerId, sandbox: Sandbox) -> None:
    """Have the guest unmount a container's root; one that a dead daemon was starting may linger."""
    bound = time.monotonic() + UNMOUNT
    while True:
        try:
            await sandbox.call(
                messages.Op.CONTAINER_REMOVE,
                messages.ContainerRef(id=container),
                timeout=UNMOUNT,
            )
            return
        except AgentFailure as failure:
            if failure.errno == errno.ENOENT:
                return
            if failure.errno != errno.EBUSY or time.monotonic() > bound:
                raise
        await asyncio.sleep(PAUSE)


async def unplug(core: Core, container: Container, sandbox: Sandbox) -> None:
    """Cut a container off; a machine that lives on loses its network cards before their taps."""
    if others(sandbox, container.id) and sandbox.machine.alive():
        for endpoint in core.networks.book.of(container.id):
            if endpoint.sandbox == sandbox.id:
                await in_any_case("a network card", _take_nic(core, container, sandbox, endpoint))
    await networking.unplug(core, container)


async def _take_nic(core: Core, container: Container, sandbox: Sandbox, endpoint: Endpoint) -> None:
    """Take a card back from whoever has the network that its owner leaves behind."""
    nic = messages.Nic(mac=endpoint.mac, name=endpoint.interface)
    for live in _heirs(core, container, sandbox):
        try:
            await sandbox.call(
                messages.Op.NIC_REMOVE, messages.NicChange(container=live.container.id, nic=nic)
            )
            break
        except AgentFailure as failure:
            log.debug("card %s in %s: %s", endpoint.tap, live.container.name, failure.detail)
    bound = time.monotonic() + BUSY
    while f"nic:{endpoint.tap}" in sandbox.machine.record.slots:
        try:
            await sandbox.machine.remove_nic(endpoint.tap)
        except GuestError:
            # The kernel takes a network apart a while after its last process has ended.
            if time.monotonic() > bound:
                raise
            await asyncio.sleep(PAUSE)
    await core.networks.disconnect(endpoint)


def _heirs(core: Core, container: Container, sandbox: Sandbox) -> Iterator[Live]:
    for identifier in sandbox.row.containers:
        live = core.live.get(identifier)
        if (
            live is not None
            and identifier != container.id
            and live.sandbox is sandbox
            and joining.shares_network(core, live.container, container.id)
        ):
            yield live


# -- limits


async def share_out(core: Core, sandbox: Sandbox, newcomer: Container | None = None) -> None:
    """Let the host limit the machine as a whole, and the guest each container that shares it.

    One alone is limited by the host, whose clock is the better one.
    """
    members = [
        live.container
        for identifier in sandbox.row.containers
        if (live := core.live.get(identifier)) is not None and live.sandbox is sandbox
    ]
    everybody = [*members, newcomer] if newcomer is not None else members
    if not everybody:
        return
    core.sandboxes.update_limits(sandbox.id, machine_limits(everybody, sandbox.row.memory))
    version = sandbox.version
    for member in members:
        told = limits(member.host, version=version, shared=len(everybody) > 1)
        if len(everybody) == 1 and version < SHOWN_SINCE:
            told = messages.Limits(cpu_quota_us=-1, cpu_period_us=PERIOD)
        message = messages.Update(id=member.id, limits=told)
        try:
            await sandbox.call(messages.Op.UPDATE, message)
        except AgentFailure as failure:
            log.warning("limits of %s: %s", member.name, failure.detail)


def machine_limits(members: list[Container], memory: int) -> CgroupLimits:
    """Return the limits of the cgroup of a sandbox with *memory* bytes: what all may take."""
    if len(members) == 1:
        return rooms.cgroup_limits(members[0].host, memory)
    times = [cpu_time(member.host) for member in members]
    bounded = rooms.cgroup_limits(members[0].host, memory)
    quota = sum(quota * PERIOD // period for quota, period in times)
    limited = all(quota for quota, _ in times)
    return CgroupLimits(
        cpu_quota=quota if limited else None,
        cpu_period=PERIOD if limited else None,
        cpu_weight=sum(member.host.cpu_shares or DEFAULT_SHARES for member in members),
        memory=bounded.memory,
        pids=bounded.pids,
        devices=_shared_devices(members),
    )


def _shared_devices(members: list[Container]) -> tuple[DeviceLimit, ...]:
    """Return the limits of the devices that each of *members* has a limit of, added up."""
    rates = [{(d.kind, d.device): d.rate for d in rooms.device_limits(m.host)} for m in members]
    return tuple(
        DeviceLimit(kind=kind, device=device, rate=sum(rate[kind, device] for rate in rates))
        for kind, device in rates[0]
        if all((kind, device) in rate for rate in rates)
    )
