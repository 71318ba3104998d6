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


def start(core: Core, live: Live) -> None:
    """Begin to watch a container that has just been started (or adopted)."""
    check = effective(live.container)
    if check is None:
        live.container.state.health = None
        return
    if live.container.state.health is None or not live.adopted:
        live.container.state.health = Health(status="starting")
    core.tasks.start(f"health {live.container.id[:12]}", _watch(core, live, check))


def closed(container: Container) -> None:
    """Nobody probes the container any more: until the next verdict Docker calls that unhealthy."""
    if container.state.health is not None and effective(container) is not None:
        container.state.health = msgspec.structs.replace(container.state.health, status="unhealthy")


async def _watch(core: Core, live: Live, check: Healthcheck) -> None:
    container = live.container
    began = time.monotonic()
    while not live.ended.done():
        early = (time.monotonic() - began) * SECOND < check.start_period
        starting = container.state.health is not None and (
            container.state.health.status == "starting"
        )
        pause = check.start_interval if early and starting else check.interval
        await asyncio.wait({live.ended}, timeout=pause / SECOND)
        if live.ended.done():
            return
        if container.state.status != Status.RUNNING:
            continue
        probe = await _probe(core, container, check)
        if live.ended.done():
            return
        in_grace = (time.monotonic() - began) * SECOND < check.start_period
        await _judge(core, container, check, probe, in_grace=in_grace)


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


async def _judge(
    core: Core, container: Container, check: Healthcheck, probe: HealthProbe, *, in_grace: bool
) -> None:
    old = container.state.health or Health(status="starting")
    kept = (*old.log, probe)[-KEPT:]
    status, streak = old.status, old.failing_streak
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
