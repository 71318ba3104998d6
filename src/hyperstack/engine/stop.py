"""``stop`` and ``kill``: signals to a container's first process, with Docker's patience."""

from __future__ import annotations

import asyncio
import logging
import re
import signal as signals

from hyperstack.engine import start
from hyperstack.engine.core import Core
from hyperstack.engine.live import Live
from hyperstack.engine.record import record
from hyperstack.errors import (
    Conflict,
    GuestError,
    HyperError,
    InternalError,
    InvalidParameter,
    NotModified,
)
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.model import Container, Status

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 10
"""Seconds between the stop signal and SIGKILL."""
KILL_BOUND = 10.0
"""Seconds that SIGKILL may take before the machine itself is killed."""
LAST_SIGNAL = 64
LAST_BOUND = 60.0
"""Seconds that the end of a killed machine may take."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\Z")
_REALTIME = re.compile(r"RTM(?:IN(?:\+(\d+))?|AX(?:-(\d+))?)\Z")


def signal_number(text: str) -> int:
    """Parse ``TERM``, ``SIGTERM``, ``15``, ``RTMIN+3`` (moby/sys, ``signal.ParseSignal``).

    Any number but 0 is one; whether there is such a signal, its use tells. Raises InvalidParameter.
    """
    if _NUMBER.match(text):
        if not int(text):
            raise InvalidParameter(f"invalid signal: {text}")
        return int(text)
    name = text.upper().removeprefix("SIG")
    if name in ("POLL", "IO", "CLD", "IOT"):
        return {"POLL": 29, "IO": 29, "CLD": 17, "IOT": 6}[name]
    if match := _REALTIME.match(name):
        number = 34 + int(match[1] or 0) if "IN" in name else 64 - int(match[2] or 0)
        if 34 <= number <= 64:
            return number
    found = getattr(signals, f"SIG{name}", None)
    if isinstance(found, signals.Signals):
        return int(found)
    raise InvalidParameter(f"invalid signal: {text}")


async def stop(
    core: Core,
    container: Container,
    *,
    timeout: int | None,
    signal: str | None,
    restarting: bool = False,
) -> None:
    """Stop a container: its stop signal, then SIGKILL after *timeout* seconds (-1: never).

    Raises NotModified if it does not run.
    """
    await core.settled(container.id)
    if not container.state.status.is_up:
        raise NotModified(f"container {container.id} is already stopped")
    number = signal_number(signal or container.config.stop_signal or "TERM")
    if timeout is None:
        timeout = container.config.stop_timeout
    seconds = DEFAULT_TIMEOUT if timeout is None else timeout
    if not restarting:
        container.state.manually_stopped = True
        await record(core, container)
    if container.state.status == Status.RESTARTING:
        await stop_restarting(core, container)
    if (live := core.live.get(container.id)) is not None:
        live.stopping = True
        live.restarting = restarting
        live.stops += 1
        await _signal_and_wait(core, live, number, seconds)
    else:
        core.event(container, "stop")


async def stop_restarting(core: Core, container: Container) -> None:
    """End the wait of a restart policy; if its start came first, the container runs then."""
    async with core.table.lock(container.id):
        start.cancel_restart(core, container)
        if container.state.status == Status.RESTARTING:
            container.state.status = Status.EXITED
            await record(core, container)
            core.waiters.exited(container)


async def _signal_and_wait(core: Core, live: Live, number: int, seconds: int) -> None:
    try:
        await send(core, live, number)
        if live.container.state.status == Status.PAUSED:
            await _thaw(core, live, told=number != 9)
    except HyperError as error:
        log.warning("signal %d to %s: %s", number, live.container.name, error)
        seconds = min(seconds, 2) if seconds >= 0 else 2
    try:
        async with asyncio.timeout(None if seconds < 0 else seconds):
            await live.finished.wait()
        return
    except TimeoutError:
        log.info("container %s did not end in %d s, killing it", live.container.name, seconds)
    await kill_live(core, live)


async def _thaw(core: Core, live: Live, *, told: bool) -> None:
    """Let a paused container run on, so that it can end; *told*: with an ``unpause`` event."""
    container = live.container
    try:
        await live.sandbox.call(messages.Op.FREEZE, messages.Freeze(id=container.id, frozen=False))
    except HyperError as error:
        log.log(logging.WARNING if told else logging.DEBUG, "thaw of %s: %s", container.name, error)
    if container.state.status == Status.PAUSED:  # it may have ended meanwhile
        container.state.status = Status.RUNNING
        if told:  # before anything is waited for: what ends then, ends after it
            core.event(container, "unpause")
        await record(core, container)


async def send(core: Core, live: Live, number: int) -> None:
    """Send a signal to a running container's first process and publish the ``kill`` event.

    Raises InvalidParameter if there is no such signal.
    """
    if not 0 < number <= LAST_SIGNAL:
        raise InvalidParameter(f"the linux daemon does not support signal {number}")
    message = messages.Signal(handle=live.handle, signal=number)
    try:
        await live.sandbox.call(messages.Op.SIGNAL, message, timeout=10.0)
    except AgentFailure as failure:
        log.debug("signal: %s", failure.detail)
    core.event(live.container, "kill", signal=str(number))


async def kill_live(core: Core, live: Live) -> None:
    """Kill a container and wait for its end; its machine is killed if the guest does not answer."""
    live.stopping = live.stopping or live.container.state.manually_stopped
    try:
        await send(core, live, 9)
        if live.container.state.status == Status.PAUSED:
            await _thaw(core, live, told=False)
        async with asyncio.timeout(KILL_BOUND):
            await live.finished.wait()
    except (TimeoutError, GuestError) as error:
        log.warning("killing the machine of %s: %s", live.container.name, error)
        await live.sandbox.machine.kill()
        await _gone(live)


async def _gone(live: Live) -> None:
    try:
        async with asyncio.timeout(LAST_BOUND):
            await live.finished.wait()
    except TimeoutError:
        raise InternalError(
            f"container {live.container.id}: tried to kill container, but did not receive an exit "
            "event"
        ) from None


def signal_to_send(signal: str) -> int:
    """Return the number of the signal that ``kill`` is asked for. Raises InvalidParameter."""
    number = signal_number(signal) if signal else 9
    if not 0 < number <= LAST_SIGNAL:
        raise InvalidParameter(f"the linux daemon does not support signal {number}")
    return number


async def kill(core: Core, container: Container, signal: str) -> None:
    """Send a signal; with SIGKILL wait for the end, as Docker does. Raises Conflict if not up."""
    number = signal_to_send(signal)
    await core.settled(container.id)
    state = container.state
    if state.status == Status.RESTARTING:
        state.manually_stopped = True
        await stop_restarting(core, container)
        if not state.status.is_up:
            return
    live = core.live.get(container.id)
    if not state.status.is_up or live is None:
        raise Conflict(f"container {container.id} is not running")
    # As moby's killWithSignal: any signal is a stop, unless the container names another one for it.
    named = container.config.stop_signal
    if number == 9 or not named or number == signal_number(named):
        state.manually_stopped = True
        live.stopping = True
        await record(core, container)
    if number == 9:
        await kill_live(core, live)
        return
    await send(core, live, number)
    if live.stopping and state.status == Status.PAUSED:
        await _thaw(core, live, told=True)
