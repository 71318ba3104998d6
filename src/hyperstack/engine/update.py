"""``update`` and ``rename``: limits, restart policy and name of an existing container."""

from __future__ import annotations

import msgspec

from hyperstack.engine import links, networking, rooms, siblings
from hyperstack.engine.core import Core
from hyperstack.engine.record import record
from hyperstack.engine.spec import limits
from hyperstack.engine.validate import check_resources
from hyperstack.errors import Conflict, GuestError, InternalError, InvalidParameter
from hyperstack.guest import messages
from hyperstack.ids import is_container_name
from hyperstack.model import Container, HostConfig, RestartPolicy, Status, WeightDevice
from hyperstack.vmm.base import Runtime


class UpdateConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What ``docker update`` may change; 0 and None leave a value as it is.

    Those from ``blkio_weight`` to ``oom_kill_disable`` are looked at and come to nothing.
    """

    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] = ()
    cpu_percent: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    nano_cpus: int = 0
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    pids_limit: int | None = None
    restart_policy: RestartPolicy | None = None


def check(changes: UpdateConfig) -> tuple[UpdateConfig, list[str]]:
    """Return what of *changes* comes to anything, and Docker's warnings of the rest.

    Called before the container is looked for. Raises InvalidParameter.
    """
    if changes.io_maximum_iops or changes.io_maximum_bandwidth:
        raise InvalidParameter(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps"
        )
    asked = {k: v for k, v in msgspec.structs.asdict(changes).items() if v is not None}
    if changes.restart_policy is not None and not changes.restart_policy.name:
        del asked["restart_policy"]
    settled, warnings = check_resources(HostConfig(**asked))
    kept = {name: getattr(settled, name) for name in asked}
    if changes.pids_limit is not None:
        kept["pids_limit"] = max(changes.pids_limit, 0)  # what Docker writes for "no limit"
    return UpdateConfig(**kept), warnings


async def update(core: Core, container: Container, changes: UpdateConfig) -> None:
    """Apply new limits, which ``check`` has seen, to row, guest and host.

    Raises Conflict, InvalidParameter, or InternalError as dockerd for what its runtime refuses.
    """
    async with core.table.lock(container.id):
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict('container is marked for removal and cannot be "update"')
        old = container.host
        container.host = _merged(container, changes)
        try:
            if core.live.get(container.id) is not None and container.state.status.is_up:
                await _apply(core, container)
        except BaseException:
            container.host = old
            raise
        await record(core, container)
    core.event(container, "update")


def _merged(container: Container, changes: UpdateConfig) -> HostConfig:
    host = container.host
    new = msgspec.structs.asdict(changes)
    kept = {k: v for k, v in new.items() if v not in (0, None, "", ())}
    if changes.pids_limit is not None:
        kept["pids_limit"] = changes.pids_limit
    policy = changes.restart_policy
    if policy is not None and host.auto_remove and policy.name != "no":
        raise Conflict(
            f"Cannot update container {container.id}: Restart policy cannot be updated because "
            "AutoRemove is enabled for the container"
        )
    if conflict := _conflict(host, changes):
        raise Conflict(f"Cannot update container {container.id}: {conflict}")
    return msgspec.structs.replace(host, **kept)


def _conflict(host: HostConfig, changes: UpdateConfig) -> str:
    """Say what of *changes* can't go with what is set, as moby's UpdateContainer; "" if nothing."""
    for new, old, names in (
        (changes.nano_cpus, host.cpu_period, ("Nano CPUs", "CPU Period")),
        (changes.nano_cpus, host.cpu_quota, ("Nano CPUs", "CPU Quota")),
        (changes.cpu_period, host.nano_cpus, ("CPU Period", "NanoCPUs")),
        (changes.cpu_quota, host.nano_cpus, ("CPU Quota", "NanoCPUs")),
    ):
        if new > 0 and old > 0:
            return (
                f"Conflicting options: {names[0]} cannot be updated as {names[1]} has already "
                "been set"
            )
    if changes.memory > host.memory_swap and changes.memory and not changes.memory_swap:
        return (
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time"
        )
    return ""


async def _apply(core: Core, container: Container) -> None:
    live = core.live[container.id]
    if 0 < container.host.memory_swap < container.host.memory:
        raise InternalError(
            f"Cannot update container {container.id}: runc did not terminate successfully: "
            "exit status 1: memory+swap limit should be >= memory limit"
        )
    memory = rooms.vm_memory(core, container.host)
    row = live.sandbox.row
    driver = core.sandboxes.driver(Runtime(row.runtime))
    if container.host.memory and memory > row.memory and not driver.capabilities.resize_memory:
        raise InvalidParameter(
            f"the container's virtual machine has {row.memory >> 20} MiB and can't grow while it "
            "runs; stop the container first"
        )
    told = limits(container.host, version=live.sandbox.version)
    message = messages.Update(id=container.id, limits=told)
    try:
        await live.sandbox.call(messages.Op.UPDATE, message)
    except GuestError as failure:
        if not live.explains(failure):
            raise
        return  # it has ended meanwhile: its next start has the new limits
    if siblings.others(live.sandbox, container.id):
        await siblings.share_out(core, live.sandbox)
    else:
        core.sandboxes.update_limits(row.id, rooms.cgroup_limits(container.host, row.memory))


async def rename(core: Core, container: Container, name: str) -> None:
    """Give a container another name. Raises InvalidParameter or Conflict."""
    new = name.removeprefix("/")
    if not name:
        raise InvalidParameter("Neither old nor new names may be empty")
    if not is_container_name(new):
        raise InvalidParameter(
            f"Error when allocating new name: Invalid container name (/{new}), only "
            "[a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    async with core.table.lock(container.id):
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict('container is marked for removal and cannot be "rename"')
        old = container.name
        if new == old:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        try:
            core.table.claim(new, container.id)
        except Conflict as error:
            raise Conflict(f"Error when allocating new name: {error.message}") from error
        container.name = new
        try:
            await core.table.save(container)
        except BaseException:
            container.name = old
            core.table.release_name(new, container.id)
            raise
        core.table.release_name(old, container.id)
        await links.renamed(core, container)
        networking.rename(core, container)
    core.event(container, "rename", oldName=f"/{old}")
