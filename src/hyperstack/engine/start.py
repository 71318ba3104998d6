"""``start``: boot the container's sandbox and start its process in it."""

from __future__ import annotations

import asyncio
import logging

from hyperstack.engine import (
    bounds,
    claims,
    filling,
    health,
    joining,
    monitor,
    networking,
    remove,
    rooms,
    runtimes,
    siblings,
    sockets,
    volumes,
)
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.logging.drivers import begin_log
from hyperstack.engine.logging.logfile import LogWriter
from hyperstack.engine.record import in_any_case, record
from hyperstack.engine.refusals import UNKNOWN, exit_code_of, start_error
from hyperstack.engine.seccomp import filter_for
from hyperstack.engine.spec import container_message
from hyperstack.errors import Conflict, HyperError, InternalError, NotModified
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.model import Container, Status

log = logging.getLogger(__name__)


async def start(core: Core, container: Container) -> None:
    """Start a container.

    Raises NotModified if it runs, Conflict if its state forbids it, InvalidParameter when its
    command can't be run, GuestError when its machine fails.
    """
    async with core.table.lock(container.id):
        check_startable(core, container)
        core.restart_waits.pop(container.id, None)
        container.state.manually_stopped = False
        container.state.restart_count = 0
        await start_locked(core, container)


def check_startable(core: Core, container: Container) -> None:
    """Raise in Docker's words unless *container* may be started."""
    status = container.state.status
    if core.table.find(container.id) is None:
        raise Conflict("container is marked for removal and cannot be started")
    if status == Status.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    if status == Status.RUNNING or container.id in core.restarts:
        raise NotModified(f"container {container.id} is already running")
    if status in (Status.REMOVING, Status.DEAD):
        raise Conflict("container is marked for removal and cannot be started")


def cancel_restart(core: Core, container: Container) -> None:
    """Stop a restart policy's wait, if one is under way."""
    task = core.restarts.pop(container.id, None)
    if task is not None and task is not asyncio.current_task():
        task.cancel()


async def start_locked(core: Core, container: Container) -> None:
    """Start a container whose lock is held. A failure is recorded, then raised."""
    core.starting.add(container.id)
    try:
        live = await _launch(core, container)
    except asyncio.CancelledError:
        error = InternalError("the start was cancelled")
        await core.tasks.carry_through("failed start", _failed(core, container, error))
        raise
    except HyperError as refused:
        await _failed(core, container, refused)
        raise
    except OSError as error:
        mapped = InternalError(f"the container could not be started: {error}")
        await _failed(core, container, mapped)
        raise mapped from error
    finally:
        core.starting.discard(container.id)
    core.networks.announce(container.id)
    core.event(container, "start")
    core.tasks.start(f"container {container.id[:12]}", monitor.watch(core, live))
    health.start(core, live)
    log.info("container %s started in sandbox %s", container.name, live.sandbox.id[:12])


async def _launch(core: Core, container: Container) -> Live:
    await filling.fill_in_turn(core, container)
    joined = await joining.find(core, container)
    writer = await begin_log(core, container)
    try:
        moving = siblings.enter(core, container, joined) if joined else _boot(core, container)
        live = await _start_in(core, container, await moving, writer)
    except BaseException:
        writer.close()
        raise
    return live


async def _start_in(
    core: Core, container: Container, place: siblings.Place, writer: LogWriter
) -> Live:
    publishing: asyncio.Task[None] | None = None
    try:
        publishing = asyncio.create_task(networking.publish(core, container, place.plugged))
        live = await _start_process(core, container, place, writer)
        await publishing
        await _record_start(core, container, place)
    except BaseException:
        if publishing is not None:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
        core.live.pop(container.id, None)
        await siblings.depart(core, container, place.sandbox, clean=False)
        await core.tasks.carry_through("unplug", networking.unplug(core, container))
        volumes.unmounted(core, container)
        raise
    return live


async def _boot(core: Core, container: Container) -> siblings.Place:
    """Boot a sandbox for a container. Nothing is left if that fails. Raises HyperError."""
    prepared = await rooms.prepare(core, container, runtimes.resolve(core, container.runtime))
    volumes.mounted(core, container)
    plugged: networking.Plugged | None = None

    async def plug(sandbox_id: str, uid: int) -> object:
        nonlocal plugged
        plugged = await networking.plug(core, container, sandbox_id, uid)
        return plugged.taps

    try:
        row = core.sandboxes.new_row(prepared.plan)
        sandbox = await core.sandboxes.boot(row, prepared.plan, plug)
    except BaseException:
        await core.tasks.carry_through("unplug", networking.unplug(core, container))
        volumes.unmounted(core, container)
        raise
    assert plugged is not None
    return siblings.Place(sandbox=sandbox, prepared=prepared, plugged=plugged)


async def _start_process(
    core: Core, container: Container, place: siblings.Place, writer: LogWriter
) -> Live:
    sandbox, prepared = place.sandbox, place.prepared
    assert sandbox.agent is not None
    if prepared.plan.sockets and sandbox.agent.version < sockets.SINCE:
        raise InternalError("this guest kit can't serve sockets: build it anew (hyper kit build)")
    handle = sandbox.next_handle()
    streams = Live.streams(container, handle)
    live = Live(core, container, sandbox, handle, writer)
    sandbox.on_event = monitor.dispatcher(core, sandbox)
    core.live[container.id] = live
    message = container_message(
        container,
        prepared.rooms(sandbox, place.plugged, place.joins),
        handle=handle,
        seccomp=filter_for(container.host),
        streams=streams,
        version=sandbox.version,
    )
    bounds.check_container(message)
    try:
        started: messages.Started = await sandbox.call(
            messages.Op.CONTAINER_START, message, timeout=60.0
        )
    except AgentFailure as failure:
        if place.joins and failure.stage == messages.Stage.NAMESPACE:
            await joining.find(core, container)  # who has ended meanwhile is told of as before
        folder = container.config.working_dir
        raise start_error(failure, container.mounts, folder) from failure
    live.open_streams(streams)
    container.state.started_ns = claims.moment(started.started_ns)
    return live


async def _record_start(core: Core, container: Container, place: siblings.Place) -> None:
    sandbox, plugged = place.sandbox, place.plugged
    state = container.state
    state.status = Status.RUNNING
    state.pid = sandbox.machine.pid
    state.exit_code = 0
    state.oom_killed = False
    state.error = ""
    state.endpoints = plugged.endpoints
    state.ports = plugged.ports
    health.begin(container)
    container.sandbox = sandbox.id
    container.generation += 1
    await core.table.save(container)


async def _failed(core: Core, container: Container, error: HyperError) -> None:
    state = container.state
    state.error = error.message
    code = exit_code_of(error)
    if code != UNKNOWN or not state.exit_code:
        state.exit_code = code  # else that of the last run stays, as with dockerd
    state.pid = 0
    state.ports = {}
    if core.closing and state.status == Status.RESTARTING:
        log.info("the next daemon goes on with the restart of %s", container.name)
    elif state.status != Status.CREATED:
        state.status = Status.EXITED
    container.sandbox = None
    await core.volumes.release(container.mounts, container.id)
    await record(core, container)
    core.hub(container.id).finish()
    log.warning("container %s could not be started: %s", container.name, error)
    if container.host.auto_remove:
        await in_any_case(
            f"removal of {container.name}", remove.remove_locked(core, container, volumes=True)
        )
