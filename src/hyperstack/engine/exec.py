"""``exec``: further processes in a running container, their streams and exit codes."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import Any

import msgspec

from hyperstack.engine import bounds, claims, links
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live, Pump
from hyperstack.engine.refusals import start_error
from hyperstack.engine.seccomp import filter_for
from hyperstack.engine.session import InputGate, Session
from hyperstack.engine.spec import Streams, exec_process
from hyperstack.errors import (
    Conflict,
    GuestError,
    HyperError,
    InternalError,
    InvalidParameter,
    NotFound,
)
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.ids import ExecId, new_id
from hyperstack.model import Container, Exec, ExecConfig, Status, StreamKind

log = logging.getLogger(__name__)

KEPT = 300.0
"""Seconds for which an ended exec can still be inspected."""
NOT_RUN = 126
"""Exit code of what could not be executed."""
NEVER_RAN = 128
"""Exit code of what could not be started for another reason."""
READY = 10.0
"""Seconds for which a resize waits for its exec's start."""
MOST_ID = (1 << 31) - 1
MOST = 1000
"""Execs of one container that have not ended at most."""


async def create(core: Core, container: Container, config: ExecConfig, named: str = "") -> ExecId:
    """Prepare a process; *named* is how the client calls the container.

    Raises Conflict unless the container runs unpaused, InvalidParameter for a user that it lacks.
    """
    await core.settled(container.id)
    live = running(core, container, named)
    if not config.cmd:
        raise InvalidParameter("No exec command specified")
    mine = (e for e in core.execs.values() if e.container == container.id)
    if sum(e.exit_code is None for e in mine) >= MOST:
        raise Conflict(f"container {container.id} has {MOST} execs that have not ended")
    if config.user.isdecimal():
        if len(config.user) > 10 or int(config.user) > MOST_ID:
            raise InvalidParameter(f"uids and gids must be in range 0-{MOST_ID}")
    elif config.user:
        await _look_up(core, live, config)
    identifier = ExecId(new_id())
    core.execs[identifier] = Exec(id=identifier, container=container.id, config=config)
    core.event(container, f"exec_create: {_in_events(config)}", execID=identifier)
    return identifier


def running(core: Core, container: Container, named: str = "") -> Live:
    """Return a container that can have execs now. Raises Conflict."""
    live = core.live.get(container.id)
    status = container.state.status
    if status == Status.PAUSED:
        called = named or container.id
        raise Conflict(f"Container {called} is paused, unpause the container before exec")
    if status == Status.RESTARTING:
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if live is None or status != Status.RUNNING:
        raise Conflict(f"container {container.id} is not running")
    return live


def _in_events(config: ExecConfig) -> str:
    """Return the command as events show it: program, a blank, arguments, if there are any."""
    return f"{config.cmd[0]} {' '.join(config.cmd[1:])}"


def get(core: Core, identifier: str) -> Exec:
    """Find an exec by its id. Raises NotFound."""
    found = core.execs.get(ExecId(identifier))
    if found is None or core.table.find(found.container) is None:
        raise NotFound(f"No such exec instance: {identifier}")
    return found


def usable(core: Core, identifier: str) -> Exec:
    """Find an exec whose container can run it now. Raises NotFound, Conflict."""
    found = get(core, identifier)
    running(core, core.table.get(found.container))
    return found


async def start(
    core: Core, execution: Exec, *, detach: bool, tty: bool, console_size: tuple[int, int]
) -> Session | None:
    """Start a prepared process; returns its session unless *detach*.

    Raises Conflict if it was started before, InvalidParameter if it can't be run.
    """
    container = core.table.get(execution.container)
    if execution.started:
        if execution.running:
            raise Conflict(f"exec command {execution.id} is already running")
        raise Conflict(f"exec command {execution.id} has already run")
    live = running(core, container)
    linked = links.environment(core, container)
    execution.started = True
    config = execution.config
    streams, handle = _streams(live, config, detach)
    process = exec_process(
        container,
        config if console_size == (0, 0) else _sized(config, console_size),
        handle=handle,
        seccomp=filter_for(container.host),
        streams=streams,
        linked=linked,
    )
    try:
        _check_names(config)
        bounds.check_process(process)
    except HyperError as refused:
        argument = isinstance(refused, InvalidParameter)
        execution.exit_code = NOT_RUN if argument else NEVER_RAN
        _forget_later(core, execution)
        raise (_exec_error(refused) if argument else refused) from refused
    ended: asyncio.Future[messages.ProcessState] = asyncio.get_running_loop().create_future()
    live.exec_ended[handle] = ended
    execution.handle = handle
    core.event(container, f"exec_start: {_in_events(config)}", execID=execution.id)
    try:
        request = messages.Exec(
            container=container.id, process=process, privileged=config.privileged
        )
        started: messages.Started = await live.sandbox.call(messages.Op.EXEC, request)
    except AgentFailure as failure:
        error = _exec_error(start_error(failure))
        execution.exit_code = _code_of(error)
        raise error from failure
    except BaseException:
        execution.exit_code = NOT_RUN
        raise
    finally:
        if execution.exit_code is not None:
            live.exec_ended.pop(handle, None)
            _forget_later(core, execution)
    execution.running, execution.pid = True, started.pid
    session = _open(core, live, execution, streams, None if detach else config, raw=tty)
    core.tasks.start(f"exec {execution.id[:12]}", _watch(core, live, execution, ended, session))
    return session


def _check_names(config: ExecConfig) -> None:
    """Refuse what runc takes for no variable. Raises InternalError."""
    for entry in config.env:
        if entry.startswith("="):
            raise InternalError(
                "OCI runtime exec failed: exec failed: unable to start container process: "
                f'environment variable name can\'t be empty: "{entry}"'
            )


async def _look_up(core: Core, live: Live, config: ExecConfig) -> None:
    """Have the guest look a user up, as dockerd does when an exec is made. Raises HyperError.

    The guest reads its own passwd file; that it finds no program of an empty name ends this.
    """
    handle = live.sandbox.next_handle()
    process = exec_process(
        live.container,
        msgspec.structs.replace(config, cmd=("",), tty=False),
        handle=handle,
        seccomp=filter_for(live.container.host),
        streams=Streams.of(handle, stdin=False, stdout=False, stderr=False),
    )
    bounds.check_process(process)
    request = messages.Exec(container=live.container.id, process=process)
    try:
        await live.sandbox.call(messages.Op.EXEC, request)
    except AgentFailure as failure:
        if failure.stage == messages.Stage.USER:
            raise InvalidParameter(failure.detail) from failure


def _code_of(error: HyperError) -> int:
    """Return what an exec that could not be started ends with (moby, ``daemon/exec.go``)."""
    if "not found" in error.message or "no such file or directory" in error.message:
        return 127
    if "permission denied" in error.message or "a directory" in error.message:
        return NOT_RUN
    return NEVER_RAN


def _sized(config: ExecConfig, size: tuple[int, int]) -> ExecConfig:
    return msgspec.structs.replace(config, console_size=size)


def _exec_error(error: HyperError) -> HyperError:
    _, _, detail = error.message.partition("unable to start container process: ")
    if not detail:
        return error
    if detail.startswith('chdir to cwd ("') and not detail.startswith('chdir to cwd ("/'):
        return InternalError("OCI runtime exec failed: exec failed: Cwd must be an absolute path")
    detail = detail.removesuffix(": unknown")
    detail = detail.removeprefix("error during container init: ")
    return InvalidParameter(
        "OCI runtime exec failed: exec failed: unable to start container process: " + detail
    )


def _streams(live: Live, config: ExecConfig, detach: bool) -> tuple[Streams, int]:
    handle = live.sandbox.next_handle()
    if detach:
        return Streams.of(handle, stdin=False, stdout=config.tty, stderr=False), handle
    return (
        Streams.of(
            handle,
            stdin=config.attach_stdin,
            stdout=config.attach_stdout or config.tty,
            stderr=config.attach_stderr and not config.tty,
        ),
        handle,
    )


def _open(
    core: Core,
    live: Live,
    execution: Exec,
    streams: Streams,
    config: ExecConfig | None,
    *,
    raw: bool,
) -> Session | None:
    """Begin to move the process's streams to a new session (no *config*: output is dropped).

    A *raw* client, one that expects a terminal, has no way to tell stderr, and does not get it.
    """
    agent = live.sandbox.agent
    if agent is None:
        raise GuestError("the guest's agent is not connected")
    if config is None:
        if streams.stdout:
            agent.open_output(streams.stdout).reset()
        return None
    gate = InputGate()
    kinds = {StreamKind.STDOUT: streams.stdout, StreamKind.STDERR: streams.stderr}
    session = Session(
        tty=config.tty,
        kinds=frozenset(
            kind
            for kind, stream in kinds.items()
            if stream and not (raw and kind is StreamKind.STDERR)
        ),
        gate=gate if streams.stdin else None,
    )

    async def deliver(kind: StreamKind, offset: int, data: bytes) -> int:
        if offset >= 0:
            await session.feed(kind, data)
            taken[kind] = offset + len(data)
        return taken[kind]

    taken = dict.fromkeys(kinds, 0)
    pumps = [Pump(kind, stream, deliver) for kind, stream in kinds.items() if stream]
    for pump in pumps:
        pump.begin(agent)
    live.exec_pumps[execution.handle] = pumps
    if streams.stdin:
        live.exec_gates[execution.handle] = gate
        gate.open(agent.open_input(streams.stdin))
    return session


async def _watch(
    core: Core,
    live: Live,
    execution: Exec,
    ended: asyncio.Future[messages.ProcessState],
    session: Session | None,
) -> None:
    ends: set[asyncio.Future[Any]] = {ended, live.ended}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        await asyncio.wait({ended}, timeout=1.0)
    execution.exit_code = claims.exit_code(ended.result().code) if ended.done() else 137
    pumps = live.exec_pumps.get(execution.handle, [])
    await _drain(pumps)
    execution.running = False
    if session is not None:
        session.end()
    live.exec_pumps.pop(execution.handle, None)
    live.exec_gates.pop(execution.handle, None)
    live.exec_ended.pop(execution.handle, None)
    core.event(live.container, "exec_die", execID=execution.id, exitCode=str(execution.exit_code))
    if not live.ended.done():
        await _release(live, execution.handle)
    _forget_later(core, execution)


def _forget_later(core: Core, execution: Exec) -> None:
    asyncio.get_running_loop().call_later(KEPT, core.execs.pop, execution.id, None)


async def _drain(pumps: list[Pump]) -> None:
    """Wait for the output's end; descendants that keep it open don't hold the exit back."""
    if pumps:
        waits = [asyncio.ensure_future(pump.done.wait()) for pump in pumps]
        await asyncio.wait(waits, timeout=2.0)
        for wait in waits:
            wait.cancel()
        for pump in pumps:
            await pump.stop()


async def _release(live: Live, handle: int) -> None:
    try:
        await live.sandbox.call(messages.Op.RELEASE, messages.ProcessRef(handle=handle))
    except HyperError as error:
        log.debug("release of exec %d: %s", handle, error)


async def resize(core: Core, execution: Exec, rows: int, columns: int) -> None:
    """Tell the process's terminal its size; one that is about to start is waited for.

    Raises Conflict if the container does not run or is paused, NotFound if the process has ended,
    InternalError if nobody starts it.
    """
    running(core, core.table.get(execution.container))
    bound = time.monotonic() + READY
    while execution.exit_code is None and not execution.running:
        if execution.container not in core.live:
            break
        if time.monotonic() > bound:
            raise InternalError("timeout waiting for exec session ready")
        await asyncio.sleep(0.05)
    live = core.live.get(execution.container)
    if live is None:
        raise Conflict(f"container {execution.container} is not running")
    if not execution.running:
        raise NotFound(f"NotFound: process does not exist {execution.id}: not found")
    await resize_terminal(live, execution.handle, rows, columns)


async def resize_terminal(live: Live, handle: int, rows: int, columns: int) -> None:
    """Tell a process's terminal its size; as with Docker, one without a terminal takes it too."""
    request = messages.Resize(handle=handle, rows=rows, columns=columns)
    try:
        await live.sandbox.call(messages.Op.RESIZE, request)
    except AgentFailure as failure:
        if failure.errno not in (errno.ENOTTY, errno.ESRCH):
            raise


async def kill(core: Core, execution: Exec) -> None:
    """Kill the process (a health check that takes too long)."""
    live = core.live.get(execution.container)
    if live is not None and execution.running:
        try:
            await live.sandbox.call(
                messages.Op.SIGNAL, messages.Signal(handle=execution.handle, signal=9)
            )
        except HyperError as error:
            log.debug("kill of exec %s: %s", execution.id[:12], error)
