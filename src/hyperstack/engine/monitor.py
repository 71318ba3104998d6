"""Watches a running container to its end: exit, restart policy, auto-remove, dead machines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from hyperstack.engine import (
    claims,
    health,
    naming,
    remove,
    restart,
    siblings,
    sockets,
    volumes,
)
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.record import in_any_case, record
from hyperstack.engine.sandbox import Sandbox
from hyperstack.guest import messages
from hyperstack.guest.messages import EventKind
from hyperstack.model import Container, Status
from hyperstack.vmm.console import last_words

log = logging.getLogger(__name__)

KILLED = 137
"""Exit code of a container whose machine died: what SIGKILL of it would have left."""
MOST_QUESTIONS = 256
"""DNS questions of one sandbox that are dealt with at once; further ones are dropped."""
OOM_PAUSE = 1.0
"""Seconds between two events of the kind oom of one container."""


def dispatcher(core: Core, sandbox: Sandbox) -> Callable[[EventKind, Any], None]:
    """Return what hands a sandbox's events to its containers."""
    asked: set[asyncio.Task[Any]] = set()

    def handle(kind: EventKind, message: Any) -> None:
        lives = [core.live[c] for c in sandbox.row.containers if c in core.live]
        if kind == EventKind.EXIT:
            for live in lives:
                live.process_exited(message)
        elif kind == EventKind.OOM:
            for live in lives:
                if live.container.id == message.id:
                    _oom(core, live)
        elif kind == EventKind.DNS_QUERY and len(asked) < MOST_QUESTIONS:
            task = core.tasks.start("dns", naming.answer_dns(core, sandbox, message))
            asked.add(task)
            task.add_done_callback(asked.discard)
        elif kind == EventKind.SOCKET_OPEN:
            sockets.opened(core.tasks, sandbox, message)

    return handle


def _oom(core: Core, live: Live) -> None:
    """Tell of a kill for memory, once in a while: the guest decides how many there are."""
    now = time.monotonic()
    if not live.oom_seen or now - live.oom_told >= OOM_PAUSE:
        live.oom_told = now
        core.event(live.container, "oom")
    live.oom_seen = True


async def watch(core: Core, live: Live) -> None:
    """Wait for the container's end and do all that follows from it."""
    machine = asyncio.create_task(_watch_machine(live))
    try:
        state = await live.settle()
    except Exception:
        # A defect in moving output must not leave a container that nobody can end.
        log.exception("the output of %s could not be brought to its end", live.container.name)
        state = await live.ended
    finally:
        machine.cancel()
    if state is not None:
        await sockets.drained(live.sandbox)
    name = f"exit of {live.container.id[:12]}"
    try:
        await core.tasks.carry_through(name, _exited(core, live, state))
    finally:
        if not core.closing:
            live.finished.set()  # whatever went wrong: nobody waits for ever


async def _watch_machine(live: Live) -> None:
    await live.sandbox.machine.wait()
    live.machine_gone()


async def _exited(core: Core, live: Live, state: messages.ProcessState | None) -> None:
    container = live.container
    async with core.table.lock(container.id):
        lifetime = _record_exit(container, live, state)
        again = restart.wanted(core, container, stopping=live.stopping)
        if again:
            container.state.status = Status.RESTARTING
            container.state.restart_count += 1
        core.live.pop(container.id, None)
        _drop_unstarted(core, container)
        live.log.close()
        await in_any_case("networks", siblings.unplug(core, container, live.sandbox))
        volumes.unmounted(core, container)
        await in_any_case("volumes", core.volumes.release(container.mounts, container.id))
        _tell(core, live, lifetime)
        if container.host.auto_remove and not again and not live.restarting:
            await _auto_remove(core, live)
            return
        await record(core, container)
        core.waiters.exited(container)
        live.finished.set()
        await in_any_case("end of a sandbox", _tear_down(core, live, state is not None))
    if again:
        restart.schedule(core, container, lifetime)


def _tell(core: Core, live: Live, lifetime: float) -> None:
    """Publish the end in the order of dockerd 28: what the user asked for comes before ``die``."""
    for _ in range(live.stops):
        core.event(live.container, "stop")
    live.stops = 0
    core.event(
        live.container,
        "die",
        exitCode=str(live.container.state.exit_code),
        execDuration=str(int(lifetime)),
    )


def _drop_unstarted(core: Core, container: Container) -> None:
    """Forget the execs that nobody has started: they can't be any more."""
    for execution in list(core.execs.values()):
        if execution.container == container.id and not execution.started:
            del core.execs[execution.id]


def _record_exit(container: Container, live: Live, ended: messages.ProcessState | None) -> float:
    """Write how it ended into the container's state; return its lifetime in seconds."""
    state = container.state
    state.finished_ns = claims.moment(ended.finished_ns if ended else 0)
    if ended is not None:
        state.exit_code = claims.exit_code(ended.code)
        state.oom_killed = ended.oom or (live.oom_seen and ended.signal == 9)
        state.error = ""
    else:
        state.exit_code = KILLED
        tail = last_words(live.sandbox.machine.console_tail())
        failure = live.sandbox.failure
        state.error = "the container's virtual machine ended unexpectedly"
        if failure:
            state.error = f"the container's virtual machine was killed: {failure}"
        if tail and not live.stopping:
            state.error += f"; its console ended with: {tail}"
        if live.stopping:
            state.error = ""
    state.status = Status.EXITED
    state.pid = 0
    health.closed(container)
    container.sandbox = None
    return max(0.0, (state.finished_ns - state.started_ns) / 1e9)


async def _tear_down(core: Core, live: Live, clean: bool) -> None:
    if (keep := core.keepers.pop(live.container.id, None)) is not None:
        await keep(live.sandbox if clean else None)
    if clean:
        await live.release()
    await siblings.depart(core, live.container, live.sandbox, clean=clean)


async def _auto_remove(core: Core, live: Live) -> None:
    """Remove a ``--rm`` container: its disk dies with it, so nothing has to be unmounted."""
    container = live.container
    core.waiters.exited(container)
    departure = siblings.depart(core, container, live.sandbox, clean=False)
    await in_any_case("end of a sandbox", departure)
    await in_any_case(
        f"removal of {container.name}", remove.remove_locked(core, container, volumes=True)
    )
    live.finished.set()
