"""One client's connection: bytes in and out with back-pressure, over plain sockets or TLS.

What the bytes mean is decided above (``server.py``: HTTP; ``hijack.py``: a process's streams).
Reading and writing end independently: a client that closes its sending side still gets answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
import ssl
import sys
import termios
from collections import deque
from collections.abc import Awaitable, Callable

from hyperstack.api.docker.hangup import HangupWatch
from hyperstack.api.docker.tls import PLAIN_HTTP, TlsEngine

log = logging.getLogger(__name__)

READ_HIGH = 256 << 10
"""Bytes that wait to be read before the client is held back."""
WRITE_HIGH = 512 << 10
"""Bytes that wait to be sent before writers are held back."""
SEND_BUFFER = 1 << 20
SO_SNDBUFFORCE = 32
"""socket(7): beyond wmem_max, for root; a large buffer saves wake-ups of both ends."""
HANDSHAKE_BOUND = 10.0
FLUSH_BOUND = 30.0
"""Seconds that a closed connection may take to send what is queued."""
READ_STEP = 0.001
READ_TRIES = 20
LINGER = 2.0
"""Seconds for which input is still read and dropped before an early answer's close."""


class Connection(asyncio.Protocol):
    """One accepted connection. ``serve`` runs as its task until either side ends it."""

    def __init__(
        self,
        serve: Callable[[Connection], Awaitable[None]],
        watch: HangupWatch,
        tls: ssl.SSLContext | None = None,
        *,
        over_tcp: bool = False,
    ) -> None:
        self._serve = serve
        self._watch = watch
        self._tls = TlsEngine(tls) if tls else None
        self.over_tcp = over_tcp
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._eof = False
        self._reading = True
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._write_paused = False
        self._lost = False
        self._fd = -1
        self.cancel_when_gone = False
        """Whether the task ends as soon as the client closes, see ``end_when_gone``."""
        self._gone_callback: Callable[[], None] | None = None

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport and begin to serve."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        sock: socket.socket = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)
        if self.over_tcp:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._tls is None:
            self._begin()
        else:
            self._loop.call_later(HANDSHAKE_BOUND, self._handshake_late)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run(), name="api connection")

    def _handshake_late(self) -> None:
        if self._tls is not None and not self._tls.ready:
            self.abort()

    async def _run(self) -> None:
        try:
            await self._serve(self)
        except (ConnectionError, asyncio.CancelledError):
            log.debug("client left")
        except Exception:
            log.exception("a connection's task failed")
        finally:
            self.close()

    def data_received(self, data: bytes) -> None:
        """Queue what arrived, deciphered if need be."""
        if self._tls is None:
            self._queue(data)
            return
        try:
            for text in self._tls.receive(data):
                self._queue(text)
        except ssl.SSLError as error:
            log.debug("TLS: %s", error)
            if self._tls.plain_http and self._transport is not None:
                self._transport.write(PLAIN_HTTP)
            else:
                self._flush_tls()
            self.abort(soft=True)
            return
        self._flush_tls()
        if self._tls.ready and self._task is None:
            self._begin()
        if self._tls.ended:
            self._end_of_input()

    def _flush_tls(self) -> None:
        assert self._tls is not None
        if self._transport is not None and (data := self._tls.pending()):
            self._transport.write(data)

    def _queue(self, data: bytes) -> None:
        if not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._wake_reader()
        if self._size >= READ_HIGH and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Keep the connection open for what is still to be sent."""
        self._end_of_input()
        return True

    def _end_of_input(self) -> None:
        if self._eof:
            return
        self._eof = True
        self._wake_reader()
        if self.cancel_when_gone and self._task is not None:
            self._cancel_once(self._task)
        elif self._gone_callback is not None:
            self._watch_hangup()

    def pause_writing(self) -> None:
        """The send buffer is full."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The send buffer has room again."""
        self._write_paused = False
        self._wake_writers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everybody who waits for this client."""
        self._lost = self._eof = True
        self._watch.forget(self._fd)
        self._transport = None
        self._wake_reader()
        self._wake_writers()
        if self._task is not None and self.cancel_when_gone:
            self._cancel_once(self._task)
        self._tell_gone()

    def _cancel_once(self, task: asyncio.Task[None]) -> None:
        """Cancel the handler: not again where it cleans up, when the end is followed by a loss."""
        self.cancel_when_gone = False
        task.cancel()

    # --- what servers call

    @property
    def secure(self) -> bool:
        """Whether TLS protects the connection."""
        return self._tls is not None

    @property
    def at_eof(self) -> bool:
        """Whether the client has closed its sending side and everything of it was read."""
        return self._eof and not self._chunks

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._lost or self._transport is None or self._transport.is_closing()

    def end_when_gone(self) -> None:
        """Let the task end as soon as the client closes: for waits that only it wants.

        Raises ConnectionResetError if it has closed already.
        """
        if self.at_eof or self.gone:
            raise ConnectionResetError("the client is gone")
        self.cancel_when_gone = True

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end of input."""
        while not self._chunks:
            if self._eof:
                return b""
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks.popleft()
        self._size -= len(data)
        if not self._reading and self._size < READ_HIGH // 2 and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of what comes next."""
        if data:
            self._chunks.appendleft(data)
            self._size += len(data)

    async def write(self, *parts: bytes) -> None:
        """Send bytes, waiting while too much is under way. Raises ConnectionResetError."""
        if self.gone:
            raise ConnectionResetError("the client is gone")
        self.send(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._write_paused:
            await self.drain()

    def send(self, data: bytes) -> None:
        """Send bytes without waiting; the next ``write`` waits for them too."""
        if not self.gone:
            assert self._transport is not None
            self._transport.write(data if self._tls is None else self._tls.send(data))

    async def drain(self) -> None:
        """Wait until the send buffer has room. Raises ConnectionResetError."""
        while self._write_paused and not self._lost:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._writers.append(waiter)
            await waiter
        if self._lost:
            raise ConnectionResetError("the client is gone")

    async def until_read(self) -> None:
        """Wait, for a moment at most, until the client has read what was sent.

        HTTP libraries that read ahead would take output that comes along with a head for part of
        it, and lose it when they hand out the socket.
        """
        with contextlib.suppress(OSError):
            for _ in range(READ_TRIES):
                unread = fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4))
                if self.gone or not int.from_bytes(unread, sys.byteorder):
                    return
                await asyncio.sleep(READ_STEP)

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the client has closed both directions (None: no more)."""
        self._gone_callback = callback
        if callback is None:
            self._watch.forget(self._fd)
        elif self._lost:
            self._tell_gone()
        elif self._eof:
            self._watch_hangup()

    def _watch_hangup(self) -> None:
        # TCP has no such sign: a peer that is gone shows when something is sent to it.
        if not self.over_tcp and self._fd >= 0 and not self.gone:
            self._watch.watch(self._fd, self._hung_up)

    def _hung_up(self) -> None:
        self._tell_gone()
        self.abort()

    def _tell_gone(self) -> None:
        callback, self._gone_callback = self._gone_callback, None
        if callback is not None:
            callback()

    async def linger(self) -> None:
        """End our side and drop what still arrives, so that the client gets to read the answer.

        A socket closed with unread input resets the connection, and the answer is lost with it.
        """
        if self._transport is not None and self._tls is None and not self._transport.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while await self.read():
                    pass

    def close(self) -> None:
        """Send what is queued, then close."""
        if self._transport is None or self._transport.is_closing():
            return
        self._watch.forget(self._fd)
        if self._tls is not None and self._tls.ready:
            self._transport.write(self._tls.close())
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(FLUSH_BOUND, self._transport.abort)

    def abort(self, *, soft: bool = False) -> None:
        """Close at once; *soft* sends what is queued."""
        if self._transport is not None:
            self._watch.forget(self._fd)
            if soft:
                self._transport.close()
            else:
                self._transport.abort()

    def cancel(self) -> None:
        """End the connection's task: the server stops."""
        if self._task is not None:
            self._task.cancel()
        else:
            self.abort()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writers(self) -> None:
        while self._writers:
            waiter = self._writers.popleft()
            if not waiter.done():
                waiter.set_result(None)
