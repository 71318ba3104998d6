"""Web sockets for ``attach/ws``: the server's side of RFC 6455, no extensions.

``FrameReader`` takes frames out of bytes without sockets; ``WebSocket`` is the ``Wire`` of a
session: messages carry input and output as they are, in binary frames.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from hyperstack.api.docker.connection import Connection
from hyperstack.api.docker.http1 import Head

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_FRAME = 1 << 20
NORMAL, PROTOCOL_ERROR, TOO_BIG = 1000, 1002, 1009


class FrameError(Exception):
    """The peer broke the protocol; ``code`` goes into the close frame."""

    def __init__(self, code: int) -> None:
        super().__init__(f"web socket error {code}")
        self.code = code


@dataclass(frozen=True)
class Frame:
    """One frame, unmasked."""

    opcode: int
    payload: bytes


class HandshakeError(Exception):
    """The request asks for no web socket; ``answer`` is the whole answer, as dockerd's."""

    def __init__(self, sentence: str, header: str = "") -> None:
        super().__init__(sentence)
        self.answer = f"HTTP/1.1 400 Bad Request\r\n{header}\r\n{sentence}".encode()


def handshake(head: Head) -> list[tuple[str, str]]:
    """Return the headers that accept a web socket (RFC 6455, 4.2). Raises HandshakeError.

    As strict and as lenient as Go's ``golang.org/x/net/websocket``, and in its words.
    """
    if head.upgrade != "websocket":
        raise HandshakeError("not websocket protocol")
    if head.headers.get("sec-websocket-version") != "13":
        version = "Sec-WebSocket-Version: 13\r\n"
        raise HandshakeError("missing or bad WebSocket Version", version)
    if not (key := head.headers.get("sec-websocket-key", "")):
        raise HandshakeError("mismatch challenge/response")
    protocol = head.headers.get("sec-websocket-protocol", "").strip()
    if "," in protocol:
        raise HandshakeError("")
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    accepted = [("Sec-WebSocket-Accept", base64.b64encode(digest).decode())]
    return [*accepted, *([("Sec-WebSocket-Protocol", protocol)] if protocol else [])]


def frame(opcode: int, payload: bytes) -> bytes:
    """Return an unmasked final frame's header for *payload* (the payload itself follows)."""
    size = len(payload)
    first = 0x80 | opcode
    if size < 126:
        return struct.pack(">BB", first, size)
    if size < 1 << 16:
        return struct.pack(">BBH", first, 126, size)
    return struct.pack(">BBQ", first, 127, size)


def unmask(data: bytes, mask: bytes) -> bytes:
    """Apply a mask; as one long number, which is far faster than byte by byte."""
    if not data:
        return b""
    pad = (mask * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")
    return number.to_bytes(len(data), "little")


class FrameReader:
    """Takes a client's frames out of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fragmented = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes, return the frames that are whole now. Raises FrameError."""
        self._buffer += data
        found = []
        while (got := self._next()) is not None:
            found.append(got)
        return found

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        opcode, size, start = buffer[0] & 0x0F, buffer[1] & 0x7F, 2
        self._check(buffer[0], buffer[1], opcode, size)
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
            if size > MAX_FRAME:
                raise FrameError(TOO_BIG)
        end = start + 4 + size
        if len(buffer) < end:
            return None
        mask, payload = bytes(buffer[start : start + 4]), bytes(buffer[start + 4 : end])
        self._follow(buffer[0], opcode)
        del buffer[:end]
        return Frame(opcode, unmask(payload, mask))

    def _check(self, first: int, second: int, opcode: int, size: int) -> None:
        control = opcode >= CLOSE
        if first & 0x70 or not second & 0x80:
            raise FrameError(PROTOCOL_ERROR)  # an extension, or a client that does not mask
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(PROTOCOL_ERROR)
        if control and (size > 125 or not first & 0x80):
            raise FrameError(PROTOCOL_ERROR)

    def _follow(self, first: int, opcode: int) -> None:
        if opcode >= CLOSE:
            return
        if (opcode == CONTINUATION) != self._fragmented:
            raise FrameError(PROTOCOL_ERROR)
        self._fragmented = not first & 0x80


class WebSocket:
    """A session's wire over a connection that has become a web socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = FrameReader()
        self._ready: list[bytes] = []
        self._closed = False

    async def read(self) -> bytes:
        """Return the next message's bytes, b"" when the client closes."""
        while not self._ready:
            if self._closed or not (data := await self._connection.read()):
                return b""
            try:
                for got in self._reader.feed(data):
                    await self._take(got)
            except FrameError as error:
                await self.close(error.code)
        return self._ready.pop(0)

    async def _take(self, got: Frame) -> None:
        if got.opcode in (TEXT, BINARY, CONTINUATION):
            if got.payload:
                self._ready.append(got.payload)
        elif got.opcode == PING:
            await self._connection.write(frame(PONG, got.payload), got.payload)
        elif got.opcode == CLOSE:
            await self.close(NORMAL)

    async def write(self, *parts: bytes) -> None:
        """Send one binary message. Raises ConnectionResetError."""
        data = b"".join(parts)
        if self._closed:
            raise ConnectionResetError("the web socket is closed")
        await self._connection.write(frame(BINARY, data), data)

    def send(self, data: bytes) -> None:
        """Send one binary message without waiting."""
        if not self._closed:
            self._connection.send(frame(BINARY, data) + data)

    async def drain(self) -> None:
        """Wait while the client is slow. Raises ConnectionResetError."""
        await self._connection.drain()

    async def close(self, code: int = NORMAL) -> None:
        """Send the close frame, once."""
        if not self._closed:
            self._closed = True
            payload = struct.pack(">H", code)
            await self._connection.write(frame(CLOSE, payload), payload)

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back when the client is gone."""
        self._connection.on_gone(callback)
