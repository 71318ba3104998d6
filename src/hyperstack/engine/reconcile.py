"""What a new daemon does with what an earlier one left: finish it or undo it, and say so once.

Sandboxes that still run are adopted: their containers go on as if nothing had been. Those that are
gone leave containers that ended with 137 and a reason. Half-made starts are finished if the process
runs and undone otherwise. Nothing may be left that no row explains.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from dataclasses import dataclass

from hyperstack.engine import (
    claims,
    disks,
    health,
    monitor,
    networking,
    remove,
    restart,
    siblings,
)
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.logging.drivers import resume_log
from hyperstack.engine.record import in_any_case, record
from hyperstack.engine.rows import SandboxRow, load_sandboxes
from hyperstack.engine.sandbox import Sandbox
from hyperstack.errors import HyperError
from hyperstack.guest import messages
from hyperstack.ids import ContainerId
from hyperstack.model import Container, Status

log = logging.getLogger(__name__)

GONE = "the container's virtual machine was gone when the daemon came back"
PARALLEL = 16
ADOPTION = 20.0
"""Seconds within which a guest tells what runs in it; the API waits for that."""


@dataclass
class Summary:
    """What was found; printed as one line."""

    adopted: int = 0
    lost: int = 0
    swept: int = 0

    def __str__(self) -> str:
        return (
            f"found {self.adopted} running sandboxes, {self.lost} containers that ended "
            f"without us, removed {self.swept} leftovers"
        )


async def reconcile(core: Core) -> Summary:
    """Bring rows and reality together. Called once, before the API answers."""
    summary = Summary()
    gate = asyncio.Semaphore(PARALLEL)
    claimed: set[ContainerId] = set()

    async def one(row: SandboxRow) -> None:
        async with gate:
            claimed.update(await _sandbox(core, row, summary))

    await asyncio.gather(*(one(row) for row in load_sandboxes(core.db)))
    for container in core.table:
        if container.id not in claimed:
            await _unclaimed(core, container, summary)
    _sweep_folders(core, summary)
    return summary


async def _sandbox(core: Core, row: SandboxRow, summary: Summary) -> set[ContainerId]:
    """Adopt one sandbox or clear it away; return the containers that live on in it."""
    sandbox = None if row.service else await core.sandboxes.adopt(row)
    if sandbox is None:
        await core.sandboxes.discard(row)
        summary.swept += 1
        return set()
    try:
        async with asyncio.timeout(ADOPTION):
            state = await _look(sandbox)
    except (HyperError, TimeoutError) as error:
        log.warning("sandbox %s can't be taken up: %s", row.id[:12], error or "it is silent")
        await core.sandboxes.end(sandbox, clean=False)
        summary.swept += 1
        return set()
    firsts = {p.container: p for p in state.processes if p.init}
    kept = {
        container.id
        for identifier in row.containers
        if (container := core.table.find(identifier)) is not None
        and identifier in firsts
        and await _resume(core, container, sandbox, firsts[identifier], state)
    }
    if not kept:
        await core.sandboxes.end(sandbox, clean=True)
        summary.swept += 1
        return kept
    summary.adopted += 1
    for identifier in set(row.containers) - kept:
        core.tasks.start(f"leave of {identifier[:12]}", _finish_leave(core, sandbox, identifier))
    return kept


async def _finish_leave(core: Core, sandbox: Sandbox, identifier: ContainerId) -> None:
    """Take out of a sandbox that lives on what an earlier daemon was adding or taking away."""
    async with core.table.lock(identifier):
        live = core.live.get(identifier)
        if live is None or live.sandbox is not sandbox:
            await siblings.finish(core, identifier, sandbox)


async def _look(sandbox: Sandbox) -> messages.State:
    """Ask what runs in a sandbox, and leave what is nobody's any more. Raises HyperError."""
    state = claims.check(await sandbox.call(messages.Op.LIST))
    for process in state.processes:
        sandbox.seen_handle(process.handle)
        if not process.init:
            await _orphan(sandbox, process)
    return state


async def _orphan(sandbox: Sandbox, process: messages.ProcessState) -> None:
    """Let an earlier daemon's exec run on: its client is gone, so nobody wants its output."""
    assert sandbox.agent is not None
    for stream in (process.stdout, process.stderr):
        if stream:
            sandbox.agent.open_output(stream).reset()
    if not process.running:
        try:
            await sandbox.call(messages.Op.RELEASE, messages.ProcessRef(handle=process.handle))
        except HyperError as error:
            log.debug("release of exec %d: %s", process.handle, error)


async def _resume(
    core: Core,
    container: Container,
    sandbox: Sandbox,
    process: messages.ProcessState,
    state: messages.State,
) -> bool:
    """Take a container up again in its sandbox, whether its process still runs or has ended."""
    if container.state.status == Status.REMOVING:
        return False
    if container.state.status == Status.EXITED and container.sandbox is None:
        return False  # its exit was stored; only the sandbox's end is missing
    if container.sandbox != sandbox.id:
        container.generation += 1  # the start had not been recorded, its log had begun
        health.begin(container)
    writer = resume_log(core, container)
    live = Live(core, container, sandbox, process.handle, writer)
    live.adopted = True
    core.live[container.id] = live
    core.volumes.take_up(container.mounts, container.id)
    sandbox.listen(monitor.dispatcher(core, sandbox))  # nothing since LIST is lost
    if not container.state.status.is_up or container.state.status == Status.RESTARTING:
        container.state.status = Status.RUNNING
    container.sandbox = sandbox.id
    container.state.pid = sandbox.machine.pid
    container.state.started_ns = claims.moment(process.started_ns or container.state.started_ns)
    live.open_streams(Live.streams(container, process.handle))
    await networking.adopt(core, container)
    await record(core, container)
    live.exits_of(state)
    core.tasks.start(f"container {container.id[:12]}", monitor.watch(core, live))
    health.start(core, live)
    return True


async def reconnected(core: Core, sandbox: Sandbox) -> None:
    """An agent's connection was made anew: ask what was missed."""
    sandbox.on_event = monitor.dispatcher(core, sandbox)
    state = claims.check(await sandbox.call(messages.Op.LIST))
    for identifier in sandbox.row.containers:
        if (live := core.live.get(identifier)) is not None:
            await live.reconnected(state)


async def _unclaimed(core: Core, container: Container, summary: Summary) -> None:
    """A container without a sandbox: what its row says may be out of date."""
    state = container.state
    if state.status == Status.REMOVING:
        await _remove(core, container, volumes=state.remove_volumes)
        summary.swept += 1
        return
    if state.status in (Status.RUNNING, Status.PAUSED):
        await _lost(core, container)
        summary.lost += 1
    elif container.sandbox is not None:
        container.sandbox = None
        await record(core, container)
    # As Docker, those too that were never started: whoever was to start them is gone.
    if container.host.auto_remove and state.status in (Status.CREATED, Status.EXITED):
        await _remove(core, container, volumes=True)


async def _remove(core: Core, container: Container, *, volumes: bool) -> None:
    step = remove.remove_locked(core, container, volumes=volumes)
    await in_any_case(f"removal of {container.name}", step)


async def _lost(core: Core, container: Container) -> None:
    state = container.state
    state.status = Status.EXITED
    state.exit_code = monitor.KILLED
    state.error = GONE
    state.finished_ns = time.time_ns()
    state.pid = 0
    container.sandbox = None
    await networking.unplug(core, container)
    await record(core, container)
    core.event(container, "die", exitCode=str(state.exit_code), execDuration="0")


def _sweep_folders(core: Core, summary: Summary) -> None:
    """Remove folders of containers and sandboxes that no row knows, and half-made templates."""
    disks.sweep_templates(core)
    known = {container.id for container in core.table}
    folder = core.config.data_root / "containers"
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name not in known:
                shutil.rmtree(entry, ignore_errors=True)
                summary.swept += 1
    live = {sandbox.id for sandbox in core.sandboxes.live.values()}
    for base, names in (
        (core.config.data_root / "sandboxes", live),
        (core.config.exec_root / "sandboxes", {name[:16] for name in live}),
    ):
        if base.is_dir():
            for entry in base.iterdir():
                if entry.name not in names:
                    shutil.rmtree(entry, ignore_errors=True)
                    summary.swept += 1


def restart_policies(core: Core) -> None:
    """Start what its policy wants up: called when the API answers already."""
    gate = asyncio.Semaphore(PARALLEL)
    for container in core.table:
        state = container.state
        if state.status == Status.RESTARTING or (
            state.status == Status.EXITED
            and container.id not in core.live
            and _wanted_at_boot(container)
        ):
            restart.at_boot(core, container, gate)


def _wanted_at_boot(container: Container) -> bool:
    """As dockerd at its start: always means always, unless-stopped remembers the user's stop."""
    policy = container.host.restart_policy.name
    if policy == "always":
        return True
    if policy == "unless-stopped":
        return not container.state.manually_stopped
    return restart.failed(container)
