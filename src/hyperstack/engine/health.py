"""Health checks: an exec at intervals, its verdict in the container's state and in events.

As Docker: ``starting`` until the first success or, after the start period, until ``retries``
failures in a row; the last five probes are kept, 4 KiB of output each.
"""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from hyperstack.build.metadata import go_duration
from hyperstack.engine import exec
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.record import record
from hyperstack.errors import HyperError
from hyperstack.model import (
    Container,
    ExecConfig,
    Health,
    Healthcheck,
    HealthProbe,
    Status,
)

log = logging.getLogger(__name__)

SECOND = 1_000_000_000
OUTPUT = 4096
KEPT = 5
TIMED_OUT = -1


def effective(container: Container) -> Healthcheck | None:
    """Return the check with Docker's defaults filled in, None if there is none."""
    check = container.config.healthcheck
    if check is None or not check.test or check.test[0] not in ("CMD", "CMD-SHELL"):
        return None
    return msgspec.structs.replace(
        check,
        interval=check.interval or 30 * SECOND,
        timeout=check.timeout or 30 * SECOND,
        retries=check.retries or 3,
        start_interval=check.start_interval or 5 * SECOND,
    )


def command(container: Container, check: Healthcheck) -> tuple[str, ...]:
    """Return the probe's argv: CMD as it is, CMD-SHELL by the image's shell."""
    kind, *rest = check.test
    if kind == "CMD-SHELL":
        return (*(container.config.shell or ("/bin/sh", "-c")), *rest)
    return tuple(rest)


def begin(container: Container) -> None:
    """Forget the verdict of an earlier run, but not its probes, as Docker: a start is recorded."""
    old = container.state.health
    fresh = Health(status="starting", log=old.log if old is not None else ())
    container.state.health = fresh if effective(container) else None


def start(core: Core, live: Live) -> None:
    """Begin to watch a container that has just been started, or go on with one that was found."""
    check = effective(live.container)
    if check is not None:
        core.tasks.start(f"health {live.container.id[:12]}", _watch(core, live, check))


def closed(container: Container) -> None:
    """Nobody probes the container any more: until the next verdict Docker calls that unhealthy."""
    if container.state.health is not None and effective(container) is not None:
        container.state.health = msgspec.structs.replace(container.state.health, status="unhealthy")


async def _watch(core: Core, live: Live, check: Healthcheck) -> None:
    container = live.container
    pause = _until_due(container, check, time.time_ns())
    while True:
        await asyncio.wait({live.ended}, timeout=pause / SECOND)
        if live.ended.done():
            return
        if container.state.status == Status.RUNNING:
            probe = await _probe(core, container, check)
            if live.ended.done():
                return
            # One that a pause has met says nothing; as Docker, which gives it up then.
            if container.state.status == Status.RUNNING:
                await _judge(core, container, check, probe)
        pause = _interval(container, check, time.time_ns())


def _until_due(container: Container, check: Healthcheck, now_ns: int) -> int:
    """Return the ns until the first probe of this daemon: an earlier one's count goes on."""
    health, started_ns = container.state.health, container.state.started_ns
    last_ns = max(started_ns, health.log[-1].end_ns if health and health.log else 0)
    interval = _interval(container, check, last_ns)
    return min(max(last_ns + interval - now_ns, 0), interval)


def _interval(container: Container, check: Healthcheck, now_ns: int) -> int:
    """Return the ns from *now_ns* to the next probe; they are fewer while a container starts."""
    health = container.state.health
    starting = health is not None and health.status == "starting"
    early = now_ns - container.state.started_ns < check.start_period
    return check.start_interval if early and starting else check.interval


async def _probe(core: Core, container: Container, check: Healthcheck) -> HealthProbe:
    start_ns = time.time_ns()
    config = ExecConfig(cmd=command(container, check), attach_stdout=True, attach_stderr=True)
    output = bytearray()
    try:
        identifier = await exec.create(core, container, config)
        execution = exec.get(core, identifier)
        session = await exec.start(core, execution, detach=False, tty=False, console_size=(0, 0))
        assert session is not None
        try:
            async with asyncio.timeout(check.timeout / SECOND):
                async for _, data in session.output():
                    output += data[: OUTPUT + 1 - len(output)]
            if len(output) > OUTPUT:
                output[OUTPUT:] = b"..."
            code = execution.exit_code if execution.exit_code is not None else TIMED_OUT
        except TimeoutError:
            await exec.kill(core, execution)
            session.close()
            code = TIMED_OUT
            words = f"Health check exceeded timeout ({go_duration(check.timeout)})".encode()
            output[:] = words + (b": " + output if output else b"")
    except HyperError as error:
        code = TIMED_OUT
        output[:] = error.message.encode()[:OUTPUT]
    return HealthProbe(
        start_ns=start_ns,
        end_ns=time.time_ns(),
        exit_code=code,
        output=output.decode(errors="replace"),
    )


async def _judge(core: Core, container: Container, check: Healthcheck, probe: HealthProbe) -> None:
    old = container.state.health or Health(status="starting")
    kept = (*old.log, probe)[-KEPT:]
    status, streak = old.status, old.failing_streak
    in_grace = probe.start_ns - container.state.started_ns < check.start_period
    if probe.exit_code == 0:
        status, streak = "healthy", 0
    elif not (in_grace and old.status == "starting"):
        streak += 1
        if streak >= check.retries:
            status = "unhealthy"
    container.state.health = Health(status=status, failing_streak=streak, log=kept)
    await record(core, container)
    if status != old.status:
        core.event(container, f"health_status: {status}")
