"""The daemon's connection to the agent of one sandbox: calls, events and streams over asyncio.

What bytes mean is decided in ``protocol``; this module moves them. One ``AgentClient`` is one TCP
connection: when it breaks, ``closed`` is set, calls and streams fail with GuestError, and the
engine makes a new client and reopens its streams at the offsets that it has stored.
"""

from __future__ import annotations

import asyncio
import errno as errnos
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyperstack.errors import GuestError
from hyperstack.guest.codec import ProtocolError
from hyperstack.guest.messages import (
    GUEST_ADDRESS,
    MAX_DATA,
    PORT,
    WINDOW,
    EventKind,
    Failure,
    Op,
    Stage,
)
from hyperstack.guest.protocol import (
    Connection,
    Credit,
    Data,
    End,
    Event,
    Happening,
    Hello,
    Reply,
    Reset,
)
from hyperstack.log import one_line
from hyperstack.platform import netns as namespaces

log = logging.getLogger(__name__)

ATTEMPT = 0.1
"""Seconds for one attempt to connect: a guest that isn't up answers nothing at all."""
PAUSE = 0.015
"""Seconds between attempts."""
GREETING = 2.0
"""Seconds for the agent's HELLO on a new connection, after which another one is tried."""
FLUSH = 1.0
"""Seconds for what was written to leave when a client is closed."""
MAX_EVENTS = 256
"""Events kept until ``on_event`` is set."""
UNSENT = 1 << 20
"""Bytes that wait to be sent before writers of input streams are held back."""
MAX_UNSENT = 64 << 20
"""Bytes that wait for an agent that doesn't read; then the connection is given up."""
SMALL = 4096
"""Pieces of output below this size are collected, so that they cost no object each."""
MAX_DETAIL = 1024
"""Characters of an agent's words that are kept."""
SHARE = 4
"""A guest whose bytes took T CPU seconds to handle is not read for SHARE * T seconds."""
BRIEF = 0.004
"""Seconds of handling that cost no pause: far more than the bulk of a stream takes."""
LONGEST_PAUSE = 1.0
BATCH = 256 << 10
"""Bytes of output in one step of iteration, about."""


class AgentFailure(GuestError):
    """The agent refused or failed a request: *errno*, at which stage, and its words.

    The words are a guest's: they are cut, and what is not printable in them is escaped.
    """

    def __init__(self, errno: int, stage: int = Stage.OTHER, detail: str = "") -> None:
        if len(detail) > MAX_DETAIL:
            # A long path perhaps, whose end with the reason is cut off, here or there.
            detail = f"{detail[:MAX_DETAIL]}...: {os.strerror(errno)}"
        words = one_line(detail)
        super().__init__(words or os.strerror(errno))
        self.errno = errno
        self.stage = stage
        self.detail = words


class OutputStream:
    """Bytes that the guest sends. One consumer iterates and says what it has stored."""

    def __init__(self, client: AgentClient, stream: int, start: int) -> None:
        self._client = client
        self.id = stream
        self._offset = start
        self._queue: deque[bytes] = deque()
        self._small = bytearray()
        self._ended = False
        self._error: GuestError | None = None
        self._readable: asyncio.Future[None] | None = None

    def __aiter__(self) -> OutputStream:
        return self

    async def __anext__(self) -> tuple[int, bytes]:
        """Return the next bytes and their offset. Raises GuestError if the rest can't come."""
        while not self._queue and not self._small:
            if self._ended:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            self._readable = asyncio.get_running_loop().create_future()
            try:
                await self._readable
            finally:
                self._readable = None
        data = self._next()
        offset = self._offset
        self._offset += len(data)
        return offset, data

    def _next(self) -> bytes:
        if not self._queue:
            data = bytes(self._small)
            self._small.clear()
            return data
        if len(self._queue) == 1:
            return self._queue.popleft()
        parts, size = [], 0
        while self._queue and size < BATCH:
            parts.append(self._queue.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def take(self, offset: int) -> None:
        """Tell the agent that it need not keep bytes before *offset*."""
        self._client._take(self.id, offset)

    def reset(self, code: int = errnos.ECANCELED) -> None:
        """Give the stream up: the guest discards what it would still send."""
        self._client._drop(self.id, code)
        self._queue.clear()
        self._small.clear()
        self._fail(AgentFailure(code))

    def _feed(self, data: memoryview) -> None:
        if len(data) < SMALL:
            self._small += data
        else:
            self._flush()
            self._queue.append(bytes(data))
        self._wake()

    def _flush(self) -> None:
        if self._small:
            self._queue.append(bytes(self._small))
            self._small.clear()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _fail(self, error: GuestError) -> None:
        if self._error is None and not self._ended:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)


class InputStream:
    """Bytes for the guest, as fast as it takes them."""

    def __init__(self, client: AgentClient, stream: int) -> None:
        self._client = client
        self.id = stream
        self._error: GuestError | None = None
        self.over = False
        """Nobody reads any more (or ``eof`` was said): what is written is dropped."""
        self._changed = asyncio.Event()

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, waiting for room; drops them if nobody reads. Raises GuestError if lost."""
        view = memoryview(data).cast("B")
        while view:
            size = await self._room(len(view))
            if not size:
                return
            self._client._write(self._client._connection.send(self.id, view[:size]))
            view = view[size:]

    async def _room(self, wanted: int) -> int:
        while True:
            await self._client._drained()
            if self._error is not None:
                raise self._error
            if self.over:
                return 0
            room = self._client._connection.room(self.id)
            if room > 0:
                return min(room, wanted, MAX_DATA)
            self._changed.clear()
            await self._changed.wait()

    async def eof(self) -> None:
        """End the stream after what was written."""
        while not self.over and self._error is None:
            if self._client._connection.begun(self.id):
                self._client._finish(self.id)
                self.over = True
                return
            self._changed.clear()
            await self._changed.wait()

    async def wait_over(self) -> None:
        """Return when nobody reads any more, or the connection is lost."""
        while not self.over and self._error is None:
            self._changed.clear()
            await self._changed.wait()

    def reset(self, code: int = errnos.ECANCELED) -> None:
        """Give the stream up: the guest drops what it has not consumed."""
        self._client._cancel(self.id, code)
        self._stop()

    def _stop(self) -> None:
        self.over = True
        self._changed.set()

    def _fail(self, error: GuestError) -> None:
        self._error = error
        self._changed.set()


class AgentClient:
    """One connection to the agent of a sandbox."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self._connection = Connection()
        self._transport: asyncio.Transport | None = None
        self._greeted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._outputs: dict[int, OutputStream] = {}
        self._inputs: dict[int, InputStream] = {}
        self._events: deque[Event] = deque()
        self._on_event: Callable[[EventKind, Any], None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._error: GuestError | None = None
        self._gone = asyncio.Event()

    # Connecting

    @classmethod
    async def connect(cls, netns: Path, *, deadline: float) -> AgentClient:
        """Connect to the agent in the network namespace at *netns* within *deadline* seconds.

        Raises GuestError if no agent answers in time.
        """
        try:
            async with asyncio.timeout(deadline):
                while True:
                    client = await cls._attempt(netns)
                    if client is not None:
                        return client
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise GuestError(f"the guest's agent did not answer within {deadline:g} s") from None

    @classmethod
    async def _attempt(cls, netns: Path) -> AgentClient | None:
        loop = asyncio.get_running_loop()
        try:
            sock = await asyncio.to_thread(
                namespaces.socket_in, netns, socket.AF_INET, socket.SOCK_STREAM
            )
        except OSError as error:
            raise GuestError(f"the sandbox's network namespace is not usable: {error}") from error
        try:
            sock.setblocking(False)
            async with asyncio.timeout(ATTEMPT):
                await loop.sock_connect(sock, (GUEST_ADDRESS, PORT))
            return await cls.over(sock, greeting=GREETING)
        except (OSError, GuestError):
            # TimeoutError is an OSError; a broken greeting is tried again like a refusal.
            sock.close()
            return None
        except BaseException:
            sock.close()
            raise

    @classmethod
    async def over(cls, sock: socket.socket, *, greeting: float = GREETING) -> AgentClient:
        """Return a client on a connected socket once the agent has said HELLO.

        Raises GuestError if it doesn't within *greeting* seconds.
        """
        loop = asyncio.get_running_loop()
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = cls()
        await loop.create_connection(lambda: _Wire(client), sock=sock)
        try:
            async with asyncio.timeout(greeting):
                await asyncio.shield(client._greeted)
        except TimeoutError:
            client._lose(GuestError("the guest's agent said nothing"))
            raise GuestError("the guest's agent said nothing") from None
        except BaseException:
            client._lose(GuestError("the connection to the guest's agent was given up"))
            raise
        return client

    @property
    def boot_nonce(self) -> int:
        """A random number that the agent drew when the guest booted."""
        assert self._connection.nonce is not None
        return self._connection.nonce

    @property
    def version(self) -> int:
        """Which version of the protocol the agent speaks."""
        return self._connection.version

    @property
    def error(self) -> GuestError | None:
        """Why the connection is over: ProtocolError if the agent's behaviour was the reason."""
        return self._error

    # Calls and events

    async def call(self, op: Op, message: Any, *, timeout: float = 30.0) -> Any:
        """Ask the agent and return the op's result message.

        Raises AgentFailure if the agent says no, GuestError if it can't be asked or is silent.
        """
        if self._error is not None:
            raise GuestError(self._error.message) from self._error
        number, frame = self._connection.request(op, message)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self._write(frame)
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise GuestError(
                f"the guest's agent did not answer {op.name} within {timeout:g} s"
            ) from None
        finally:
            self._calls.pop(number, None)
            self._connection.abandon(number)

    @property
    def on_event(self) -> Callable[[EventKind, Any], None] | None:
        """Called with each event, in order; set late, it gets what has come before."""
        return self._on_event

    @on_event.setter
    def on_event(self, callback: Callable[[EventKind, Any], None] | None) -> None:
        self._on_event = callback
        while callback is not None and self._events:
            self._event(self._events.popleft())

    # Streams

    def open_output(self, stream_id: int, *, start: int = 0, window: int = WINDOW) -> OutputStream:
        """Receive a stream's bytes from *start* on; *window* bytes at most are not yet taken."""
        stream = OutputStream(self, stream_id, start)
        if self._error is not None:
            stream._fail(self._error)
            return stream
        self._write(self._connection.open_receiver(stream_id, start, window))
        self._outputs[stream_id] = stream
        return stream

    def open_input(self, stream_id: int, *, start: int = 0) -> InputStream:
        """Send a stream's bytes; goes on where the agent says, which is not before *start*."""
        stream = InputStream(self, stream_id)
        if self._error is not None:
            stream._fail(self._error)
        elif self._connection.open_sender(stream_id, start):
            stream._stop()
        else:
            self._inputs[stream_id] = stream
        return stream

    def _take(self, stream: int, offset: int) -> None:
        self._write(self._connection.take(stream, offset))

    def _drop(self, stream: int, code: int) -> None:
        self._outputs.pop(stream, None)
        self._write(self._connection.drop(stream, code))

    def _finish(self, stream: int) -> None:
        self._inputs.pop(stream, None)
        self._write(self._connection.finish(stream))

    def _cancel(self, stream: int, code: int) -> None:
        self._inputs.pop(stream, None)
        self._write(self._connection.cancel(stream, code))

    # Closing

    async def wait_closed(self) -> None:
        """Return when the connection is over."""
        await self.closed.wait()

    async def close(self) -> None:
        """End the connection after what was written; the guest goes on."""
        transport = self._transport
        if transport is not None:
            transport.close()
        self._fail(GuestError("the connection to the guest's agent is closed"))
        try:
            async with asyncio.timeout(FLUSH):
                await self._gone.wait()
        except TimeoutError:
            if transport is not None:
                transport.abort()

    def _lose(self, error: GuestError) -> None:
        """Break the connection off and fail all that waits on it."""
        self._fail(error)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: GuestError) -> None:
        if self._error is None:
            self._error = error
            for stream in self._outputs.values():
                stream._fail(error)
            for sink in self._inputs.values():
                sink._fail(error)
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(error)
            if not self._greeted.done():
                self._greeted.set_exception(error)
                self._greeted.exception()
            self._outputs.clear()
            self._inputs.clear()
            self._writable.set()
            self.closed.set()

    # Bytes

    def _write(self, data: bytes) -> None:
        if not data or self._error is not None or self._transport is None:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self._lose(ProtocolError("the guest's agent does not read"))

    async def _drained(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()

    def _received(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            for happening in self._connection.receive(data):
                self._handle(happening)
        except ProtocolError as error:
            self._lose(error)

    def _handle(self, happening: Happening) -> None:
        match happening:
            case Data(stream=stream, data=data):
                if (output := self._outputs.get(stream)) is not None:
                    output._feed(data)
            case Credit(stream=stream):
                if (sink := self._inputs.get(stream)) is not None:
                    sink._changed.set()
            case Reply(request=request, code=code, message=message):
                self._answer(request, code, message)
            case Event():
                self._event(happening)
            case End(stream=stream):
                if (output := self._outputs.pop(stream, None)) is not None:
                    output._end()
                # A consumer that has taken everything already has nothing more to say.
                self._take(stream, 0)
            case Reset(stream=stream, code=code):
                if (output := self._outputs.pop(stream, None)) is not None:
                    output._fail(AgentFailure(code))
                if (sink := self._inputs.pop(stream, None)) is not None:
                    sink._stop()
            case Hello(nonce=nonce):
                self._greeted.set_result(nonce)

    def _answer(self, request: int, code: int, message: Any) -> None:
        answer = self._calls.get(request)
        if answer is None or answer.done():
            return
        if code:
            failure: Failure = message
            answer.set_exception(AgentFailure(code, failure.stage, failure.detail))
        else:
            answer.set_result(message)

    def _event(self, event: Event) -> None:
        if self._on_event is not None:
            try:
                self._on_event(event.kind, event.message)
            except Exception:
                # A defect of the listener must not cost the guest its connection.
                log.exception("an event of the guest's agent could not be handled")
            return
        if len(self._events) < MAX_EVENTS:
            self._events.append(event)
        elif event.kind is not EventKind.DNS_QUERY:
            # Any program in a container may ask as much as it likes, and asks again.
            raise ProtocolError("the guest's agent sends more events than can be kept")


class _Wire(asyncio.Protocol):
    """The transport's view of a client."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=UNSENT)
        self._client._transport = transport

    def data_received(self, data: bytes) -> None:
        begun = time.thread_time()
        self._client._received(data)
        spent = time.thread_time() - begun
        if spent > BRIEF:
            self._rest(min(spent * SHARE, LONGEST_PAUSE))

    def _rest(self, seconds: float) -> None:
        """Let others have the loop: a flood of small frames takes a fifth of it at most."""
        transport = self._client._transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_later(seconds, self._go_on, transport)

    @staticmethod
    def _go_on(transport: asyncio.Transport) -> None:
        if not transport.is_closing():
            transport.resume_reading()

    def pause_writing(self) -> None:
        self._client._writable.clear()

    def resume_writing(self) -> None:
        self._client._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f": {exc}" if exc is not None else ""
        self._client._fail(GuestError(f"the connection to the guest's agent was lost{reason}"))
        self._client._gone.set()
