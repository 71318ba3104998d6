"""A request being answered: what was asked, its body, and the ways to answer it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

from hyperstack import __version__
from hyperstack.api.docker import gojson, gotime, http1
from hyperstack.api.docker.connection import Connection
from hyperstack.api.docker.filters import Filters
from hyperstack.api.docker.filters import parse as parse_filters
from hyperstack.api.docker.mediatype import JSON, check_json
from hyperstack.api.docker.query import Query
from hyperstack.errors import HyperError, InvalidParameter

API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
SERVER = f"Hyper/{__version__} (linux)"

MAX_JSON = 4 << 20
"""Bytes of a JSON body at most."""
JSON_BOUND = 60.0
"""Seconds for which a JSON body may take to arrive."""
UNVERSIONED = (("Api-Version", API_VERSION), ("Ostype", "linux"), ("Server", SERVER))
"""Standing headers of an answer to a client whose version is not spoken."""
_STANDING = (*UNVERSIONED, ("Docker-Experimental", "false"))
_date = (0, "")


def version_tuple(text: str) -> tuple[int, int]:
    """Return an API version for comparison."""
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


class BodyTooLarge(HyperError):
    """A JSON body over the bound: status 413."""


class Request:
    """One request on its connection. Exactly one of the answering methods is called."""

    def __init__(self, head: http1.Head, connection: Connection, query: str) -> None:
        self.head = head
        self.connection = connection
        self.query = Query(query)
        self.params: dict[str, str] = {}
        self.version = version_tuple(API_VERSION)
        self.standing: tuple[tuple[str, str], ...] = _STANDING
        """Headers of every answer; a path that has no route is answered without, as by dockerd."""
        self.answered = False
        self.hijacked = False
        self.keep_alive = head.keep_alive
        self.body = http1.BodyReader(head.length)
        self._continued = self.body.done or not head.expects_continue

    # --- what was asked

    def at_least(self, version: str) -> bool:
        """Tell whether the client speaks API *version* or newer."""
        return self.version >= version_tuple(version)

    @property
    def name(self) -> str:
        """The object's name or id in the path."""
        return self.params["name"]

    @property
    def filters(self) -> Filters:
        """The ``filters`` parameter."""
        return parse_filters(self.query.text("filters"))

    @property
    def has_body(self) -> bool:
        """Whether a body comes with the request."""
        return self.head.length != 0

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises ConnectionResetError if it is cut."""
        if self.body.done:
            return
        await self._say_continue()
        while not self.body.done:
            data = await self.connection.read()
            if not data:
                raise ConnectionResetError("the request's body was cut")
            parts = self.body.feed(data)
            if self.body.done:
                self.connection.unread(self.body.rest)
            for part in parts:
                yield part

    async def _say_continue(self) -> None:
        if not self._continued:
            self._continued = True
            await self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def read(self, bound: int = MAX_JSON) -> bytes:
        """Return the whole body. Raises BodyTooLarge or InvalidParameter (too slow)."""
        if (self.head.length or 0) > bound:
            raise BodyTooLarge(f"request body is larger than {bound} bytes")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(JSON_BOUND):
                async for part in self.stream():
                    size += len(part)
                    if size > bound:
                        raise BodyTooLarge(f"request body is larger than {bound} bytes")
                    parts.append(part)
        except TimeoutError:
            raise InvalidParameter("request body did not arrive in time") from None
        return b"".join(parts)

    async def json(self, *, needed: bool = False, lenient: bool = False) -> Any:
        """Return the JSON body, None if there is none. Raises InvalidParameter.

        *needed*: an empty body is an error. One of blanks alone always is, unless *lenient*.
        """
        given = self.head.headers.get("content-type", "")
        if self.has_body or given:
            check_json(given)
        try:
            data = await self.read()
        except http1.ProtocolError as error:
            raise http1.ProtocolError(error.status, f"invalid JSON: {error.sentence}") from error
        if not data.strip():
            if needed or (data and not lenient):
                raise InvalidParameter("invalid JSON: got EOF while reading request body")
            return None
        return gojson.decode(data)

    async def object(self, schema: gojson.Schema[Any], *, needed: bool = False) -> Any:
        """Return the JSON body read by *schema*; its zero value for null or no body."""
        raw = await self.json(needed=needed)
        return schema.model() if raw is None else schema.read(raw)

    # --- answers

    async def answer(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = JSON,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Send a whole answer."""
        self.answered = True
        fields = [*self.standing, *headers]
        if body or content_type != JSON:
            fields.append(("Content-Type", content_type))
        if status not in (204, 304):
            fields.append(("Content-Length", str(len(body))))
        if self.head.method == "HEAD":
            body = b""
        await self.connection.write(self._head(status, fields) + body)

    async def answer_json(self, value: Any, status: int = 200) -> None:
        """Send a value as JSON."""
        await self.answer(status, gojson.encode(value))

    async def start(
        self,
        status: int = 200,
        content_type: str = JSON,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Stream:
        """Send the head of an answer whose body is written piece by piece."""
        self.answered = True
        fields = [*self.standing, *headers, ("Content-Type", content_type)]
        chunked = self.head.minor == 1
        if chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        else:
            self.keep_alive = False
        await self.connection.write(self._head(status, fields))
        return Stream(self, chunked=chunked)

    async def hijack(self, content_type: str, *, standing: bool = False) -> Connection:
        """Take the connection for a process's streams: 101 if the client asked to upgrade.

        *standing*: with the headers that every other answer has, as dockerd does for execs alone.
        """
        fields = [("Content-Type", content_type)]
        status = 200
        if self.head.upgrade:
            status = 101
            fields += [("Connection", "Upgrade"), ("Upgrade", "tcp")]
        return await self._take_over(status, [*fields, *(self.standing if standing else ())])

    async def upgrade(self, protocol: str, headers: Iterable[tuple[str, str]]) -> Connection:
        """Take the connection for another protocol, by 101."""
        fields = [*headers, ("Connection", "Upgrade"), ("Upgrade", protocol)]
        return await self._take_over(101, fields, "Switching Protocols")

    async def say(self, raw: bytes) -> None:
        """Send the bytes of a whole answer that has not the form of the others, and end."""
        self.answered = True
        self.keep_alive = False
        await self.connection.write(raw)

    async def _take_over(
        self, status: int, fields: list[tuple[str, str]], reason: str = ""
    ) -> Connection:
        # Old clients send an empty chunked body with their upgrade; what follows it is input.
        if not self.body.done:
            await self.read()
        self.answered = self.hijacked = True
        self.keep_alive = False
        await self.connection.write(http1.response_head(status, fields, reason=reason))
        return self.connection

    def _head(self, status: int, fields: list[tuple[str, str]]) -> bytes:
        if not self._continued:
            # The client may send the body or keep it: only an end tells the next request from it.
            self.keep_alive = False
        fields.append(("Date", _now()))
        if not self.keep_alive:
            fields += [("Connection", "close")] if self.head.minor else []
        elif self.head.minor == 0:
            fields.append(("Connection", "keep-alive"))
        return http1.response_head(status, fields, self.head.minor)


def _now() -> str:
    global _date
    seconds = int(time.time())
    if _date[0] != seconds:
        _date = (seconds, gotime.http_date(seconds))
    return _date[1]


class Stream:
    """An answer's body under way. ``end`` completes it; without it the client sees it was cut."""

    def __init__(self, request: Request, *, chunked: bool) -> None:
        self._connection = request.connection
        self._chunked = chunked
        self._silent = request.head.method == "HEAD"

    async def write(self, *parts: bytes) -> None:
        """Send a part of the body, waiting for a slow client. Raises ConnectionResetError."""
        size = sum(map(len, parts))
        if not size or self._silent:
            return
        if self._chunked:
            await self._connection.write(http1.chunk(size), *parts, http1.CHUNK_END)
        else:
            await self._connection.write(*parts)

    def send(self, data: bytes) -> None:
        """Send a part of the body without waiting."""
        if self._silent or not data:
            return
        if self._chunked:
            data = b"".join((http1.chunk(len(data)), data, http1.CHUNK_END))
        self._connection.send(data)

    async def drain(self) -> None:
        """Wait while the client is slow. Raises ConnectionResetError."""
        await self._connection.drain()

    async def end(self) -> None:
        """Complete the body."""
        if self._chunked and not self._silent:
            await self._connection.write(http1.LAST_CHUNK)
