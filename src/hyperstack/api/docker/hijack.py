"""A taken-over connection: a client on one side, a session of a process on the other.

Both directions run by themselves with back-pressure. The client's end of input becomes the
process's (``Session.close_input``), the end of output closes the connection, and a client that
vanishes frees everything at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from hyperstack.api.docker import stdcopy
from hyperstack.api.docker.coalesce import Coalescer
from hyperstack.api.docker.detach import Detacher
from hyperstack.engine.session import Session

log = logging.getLogger(__name__)


class Wire(Protocol):
    """A client's two directions: a connection, or a web socket on one."""

    async def read(self) -> bytes:
        """Return the next input, b"" at its end."""
        ...

    async def write(self, *parts: bytes) -> None:
        """Send output, waiting for a slow client. Raises ConnectionResetError."""
        ...

    def send(self, data: bytes) -> None:
        """Send output without waiting."""
        ...

    async def drain(self) -> None:
        """Wait while the client is slow. Raises ConnectionResetError."""
        ...

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back when the client is gone altogether."""
        ...


async def pump(
    wire: Wire, session: Session, *, framed: bool, stdin: bool, keys: bytes | None
) -> bool:
    """Move bytes until the process's output ends, the client leaves or its detach keys come.

    *framed* output is in stdcopy's format. Tells whether the client detached by its keys.
    """
    detacher = Detacher(keys) if keys else None
    taking = asyncio.create_task(_input(wire, session, detacher, stdin=stdin), name="api stdin")
    wire.on_gone(session.close)
    try:
        await _output(wire, session, framed=framed)
    except ConnectionError:
        log.debug("a client left its session")
    except asyncio.CancelledError:
        # The daemon stops: the process must not take this for the end of its input.
        raise
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    wire.on_gone(None)
    session.close()
    return detacher is not None and detacher.detached


async def _output(wire: Wire, session: Session, *, framed: bool) -> None:
    coalescer = Coalescer(wire)
    async for kind, data in session.output():
        if framed:
            await coalescer.put(stdcopy.header(kind, len(data)), data)
        else:
            await coalescer.put(data)
    await coalescer.flush()


async def _input(wire: Wire, session: Session, detacher: Detacher | None, *, stdin: bool) -> None:
    """Give the client's input to the process; without *stdin* only its end is waited for."""
    try:
        while data := await wire.read():
            if detacher is not None:
                data = detacher.feed(data)
            if data and stdin:
                await session.write(data)
            if detacher is not None and detacher.detached:
                session.close()
                return
        if stdin:
            await session.close_input()
    except ConnectionError:
        session.close()
    except Exception:
        log.exception("a client's input could not be passed on")
        session.close()
