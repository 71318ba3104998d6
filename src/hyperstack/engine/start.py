"""``start``: boot the container's sandbox and start its process in it."""

from __future__ import annotations

import asyncio
import errno
import logging
import time

from hyperstack.engine import claims, health, monitor, networking, remove, rooms, runtimes
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.logfile import LogWriter
from hyperstack.engine.logging import open_log
from hyperstack.engine.record import in_any_case, record
from hyperstack.engine.sandbox import Sandbox
from hyperstack.engine.seccomp import filter_for
from hyperstack.engine.spec import container_message
from hyperstack.errors import Conflict, HyperError, InternalError, InvalidParameter, NotModified
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import Stage
from hyperstack.model import Container, Status

log = logging.getLogger(__name__)

PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "unable to start container process: "
)


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
    core.event(container, "start")
    core.tasks.start(f"container {container.id[:12]}", monitor.watch(core, live))
    health.start(core, live)
    log.info("container %s started in sandbox %s", container.name, live.sandbox.id[:12])


async def _launch(core: Core, container: Container) -> Live:
    prepared = await rooms.prepare(core, container, runtimes.resolve(core, container.runtime))
    writer = open_log(core, container, fresh=True)
    plugged: networking.Plugged | None = None

    async def plug(sandbox_id: str, uid: int) -> object:
        nonlocal plugged
        plugged = await networking.plug(core, container, sandbox_id, uid)
        return plugged.taps

    try:
        publishing: asyncio.Task[None] | None = None
        row = core.sandboxes.new_row(prepared.plan)
        sandbox = await core.sandboxes.boot(row, prepared.plan, plug)
        assert plugged is not None
        try:
            publishing = asyncio.create_task(networking.publish(core, container, plugged))
            live = await _start_process(core, container, prepared, sandbox, plugged, writer)
            await publishing
            await _record_start(core, container, sandbox, plugged)
        except BaseException:
            if publishing is not None:
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)
            await core.sandboxes.end(sandbox, clean=False)
            raise
    except BaseException:
        writer.close()
        core.live.pop(container.id, None)
        await core.tasks.carry_through("unplug", networking.unplug(core, container))
        raise
    return live


async def _start_process(
    core: Core,
    container: Container,
    prepared: rooms.Prepared,
    sandbox: Sandbox,
    plugged: networking.Plugged,
    writer: LogWriter,
) -> Live:
    handle = sandbox.next_handle()
    streams = Live.streams(container, handle)
    live = Live(core, container, sandbox, handle, writer)
    sandbox.on_event = monitor.dispatcher(core, sandbox)
    core.live[container.id] = live
    message = container_message(
        container,
        prepared.rooms(sandbox, plugged),
        handle=handle,
        seccomp=filter_for(container.host),
        streams=streams,
    )
    try:
        started: messages.Started = await sandbox.call(
            messages.Op.CONTAINER_START, message, timeout=60.0
        )
    except AgentFailure as failure:
        raise start_error(failure) from failure
    live.open_streams(streams)
    container.state.started_ns = claims.moment(started.started_ns)
    return live


async def _record_start(
    core: Core, container: Container, sandbox: Sandbox, plugged: networking.Plugged
) -> None:
    state = container.state
    state.status = Status.RUNNING
    state.pid = sandbox.machine.pid
    state.exit_code = 0
    state.oom_killed = False
    state.error = ""
    state.endpoints = plugged.endpoints
    state.ports = plugged.ports
    container.sandbox = sandbox.id
    container.generation += 1
    await core.table.save(container)


def start_error(failure: AgentFailure) -> HyperError:
    """Word a refused start as Docker does, so that clients find their exit codes 126 and 127."""
    detail = failure.detail or errno.errorcode.get(failure.errno, str(failure.errno))
    if failure.stage == Stage.USER:
        return InvalidParameter(detail)  # dockerd looks users up itself, before its runtime
    if failure.stage in (Stage.EXEC, Stage.EXEC_LOOKUP, Stage.CWD):
        sentence = detail
        if failure.stage in (Stage.EXEC, Stage.EXEC_LOOKUP):
            sentence = f"error during container init: {detail}"
        return InvalidParameter(f"{PREFIX}{sentence}: unknown")
    if failure.errno == errno.ENOSPC:
        return InternalError(f"{PREFIX}{detail}: no space left on device")
    if failure.stage == Stage.ROOT and (damaged := damaged_root(detail)):
        return InternalError(f"{PREFIX}{damaged}: unknown")
    stage = Stage(failure.stage).name.lower() if failure.stage in list(Stage) else "guest"
    return InternalError(f"{PREFIX}{stage}: {detail}: unknown")


def damaged_root(detail: str) -> str:
    """Say what to do if the guest could not mount a layer or the disk; empty if it was not that."""
    if detail.startswith("mounting layer "):
        return f"a layer of the image is damaged ({detail}); remove the image and pull it again"
    if detail.startswith("mounting disk "):
        return (
            f"the container's disk is damaged ({detail}); remove the container and create it again"
        )
    return ""


def exit_code_of(error: HyperError) -> int:
    """Return the exit code that a failed start leaves, as moby derives it from the sentence."""
    text = error.message.lower()
    if PREFIX.lower() not in text:
        return 128
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    if "permission denied" in text or "is a directory" in text or "exec format error" in text:
        return 126
    return 128


async def _failed(core: Core, container: Container, error: HyperError) -> None:
    state = container.state
    state.error = error.message
    state.exit_code = exit_code_of(error)
    state.finished_ns = time.time_ns()
    state.pid = 0
    state.endpoints = {}
    state.ports = {}
    if core.closing and state.status == Status.RESTARTING:
        log.info("the next daemon goes on with the restart of %s", container.name)
    elif state.status != Status.CREATED:
        state.status = Status.EXITED
    container.sandbox = None
    await record(core, container)
    core.hub(container.id).finish()
    log.warning("container %s could not be started: %s", container.name, error)
    if container.host.auto_remove:
        await in_any_case(
            f"removal of {container.name}", remove.remove_locked(core, container, volumes=True)
        )
