"""The API's server: requests of every connection, one after the other, to their handlers.

Errors become Docker's JSON here and nowhere else. A handler that only waits (``Route.waits``) is
cancelled when its client leaves; one that changes something runs to its end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import platform
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from hyperstack.api.docker import errors, http1
from hyperstack.api.docker.connection import Connection
from hyperstack.api.docker.hangup import HangupWatch
from hyperstack.api.docker.request import UNVERSIONED, BodyTooLarge, Request
from hyperstack.api.docker.router import (
    Route,
    Router,
    TooOld,
    check_version,
    cleaned,
    split_version,
)
from hyperstack.errors import Forbidden, HyperError, InvalidParameter, NotFound

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

log = logging.getLogger(__name__)

HEAD_BOUND = 30.0
"""Seconds from a request's first byte to the end of its headers."""
IDLE_BOUND = 3600.0
"""Seconds for which a connection may stay open without a request."""
MOST_CONNECTIONS = 4096


class ApiServer:
    """Serves one engine on any number of listeners."""

    def __init__(self, engine: Engine, router: Router) -> None:
        self._engine = engine
        self._router = router
        self._watch = HangupWatch(asyncio.get_running_loop())
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def connection(
        self, tls: ssl.SSLContext | None = None, *, over_tcp: bool = False
    ) -> Connection:
        """Make the protocol of a connection that was just accepted (a protocol factory)."""
        return Connection(self._serve, self._watch, tls, over_tcp=over_tcp)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def close(self, patience: float = 5.0) -> None:
        """End every connection: requests under way have *patience* seconds."""
        for connection in list(self._connections):
            connection.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._empty.wait()
        self._watch.close()

    async def _serve(self, connection: Connection) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            log.warning("more than %d API connections: one was refused", MOST_CONNECTIONS)
            return
        self._connections.add(connection)
        self._empty.clear()
        try:
            while await self._one(connection):
                pass
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    async def _one(self, connection: Connection) -> bool:
        """Answer one request; tell whether another may follow."""
        try:
            block = await _read_head(connection)
            if block is None:
                return False
            head = http1.parse_head(block)
        except http1.ProtocolError as error:
            await _refuse(connection, error)
            return False
        path, _, query = head.target.partition("?")
        request = Request(head, connection, query)
        await self._answer(request, path)
        return await _finish(request)

    async def _answer(self, request: Request, path: str) -> None:
        try:
            if request.connection.over_tcp:
                check_origin(request)
            route = await self._route(request, path)
            if route is not None:
                await self._run(request, route)
        except HyperError as error:
            await self._fail(request, error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except http1.ProtocolError as error:
            request.keep_alive = False
            if not request.answered:
                await request.answer(error.status, errors.body_of(error.sentence))
        except Exception:
            log.exception("%s %s failed", request.head.method, path)
            request.keep_alive = False
            if not request.answered:
                await request.answer(500, errors.body_of("internal error, see the daemon's log"))

    async def _route(self, request: Request, target: str) -> Route | None:
        """Find the handler. None: answered already. Raises NotFound or InvalidParameter."""
        path, method = unquote(target), request.head.method
        if path == "*":
            request.standing = ()
            await request.answer(200)
            return None
        if (clean := cleaned(path)) != path:
            request.standing = ()
            await request.answer(301, headers=[("Location", _location(clean, request))])
            return None
        version, path = split_version(path)
        found = self._router.find(method, path)
        if found is None and method != "OPTIONS":
            request.standing = ()
            raise NotFound("page not found")
        if version is not None:
            try:
                request.version = check_version(version)
            except InvalidParameter:
                request.standing = UNVERSIONED
                raise
        if found is None:
            await request.answer(200)
            return None
        route, request.params = found
        return route

    async def _run(self, request: Request, route: Route) -> None:
        connection = request.connection
        if route.waits and request.body.done and not request.head.upgrade:
            # With a body it is the handler's to say, once that has come.
            connection.end_when_gone()
        try:
            await route.handler(request, self._engine)
        finally:
            connection.cancel_when_gone = False

    async def _fail(self, request: Request, error: HyperError) -> None:
        if request.answered:
            log.debug("an answer under way was cut: %s", error)
            request.keep_alive = False
            request.connection.abort(soft=True)
            return
        status = 413 if isinstance(error, BodyTooLarge) else errors.status_of(error)
        if status >= 500:
            level = logging.ERROR if status == 500 else logging.INFO
            log.log(level, "%s %s: %s", request.head.method, request.head.target[:200], error)
        if status == 304:
            await request.answer(304)
        elif isinstance(error, TooOld):
            # Errors are JSON since API 1.23: who is older than that is told in plain text.
            headers = [("X-Content-Type-Options", "nosniff")]
            text = f"{error.message}\n".encode()
            await request.answer(status, text, "text/plain; charset=utf-8", headers)
        else:
            await request.answer(status, errors.body_of(error.message))


def _location(path: str, request: Request) -> str:
    """Return where a request is sent: *path* as Go's ``net/url`` writes it, with its query."""
    separator, query = request.head.target.partition("?")[1:]
    return quote(path, safe="/$&+,:;=@~") + separator + query


async def _read_head(connection: Connection) -> bytes | None:
    """Return a request's head without its blank line, None at the end of input."""
    buffer = bytearray()
    searched = 0
    try:
        async with asyncio.timeout(IDLE_BOUND) as bound:
            while (ends := http1.head_end(buffer, searched))[0] < 0:
                searched = max(len(buffer) - 3, 0)
                if len(buffer) > http1.MAX_HEAD:
                    raise http1.ProtocolError(431, "request header is too large")
                data = await connection.read()
                if not data:
                    return None
                if not buffer:
                    bound.reschedule(asyncio.get_running_loop().time() + HEAD_BOUND)
                    data = data.lstrip(b"\r\n")  # RFC 9112, 2.2: a blank line in front
                buffer += data
    except TimeoutError:
        if not buffer:
            return None
        raise http1.ProtocolError(408, "request header did not arrive in time") from None
    if ends[0] > http1.MAX_HEAD:
        raise http1.ProtocolError(431, "request header is too large")
    connection.unread(bytes(buffer[ends[1] :]))
    return bytes(buffer[: ends[0]])


async def _refuse(connection: Connection, error: http1.ProtocolError) -> None:
    await connection.write(error.answer)
    await connection.linger()


async def _finish(request: Request) -> bool:
    """Get the connection ready for the next request; tell whether there may be one."""
    if request.hijacked or not request.keep_alive:
        if not request.hijacked and not request.body.done:
            await request.connection.linger()
        return False
    if not request.body.done:
        # The handler did not want the body. A short one is skipped, a long one ends it all.
        if (request.head.length or 1 << 40) > 64 << 10:
            await request.connection.linger()
            return False
        with suppress(HyperError, http1.ProtocolError):
            await request.read()
    return request.body.done


def check_origin(request: Request) -> None:
    """Refuse what a browser page could send to a TCP listener.

    A page names itself in Origin; a name of the attacker's that resolves to this host (DNS
    rebinding) shows in Host, where without TLS only addresses, names without a dot and this host's
    own name are taken.
    """
    headers = request.head.headers
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", ""):
        raise Forbidden("requests of browser pages are not answered")
    if request.connection.over_tcp and not request.connection.secure:
        host = headers.get("host", "")
        if not _is_plain_host(host):
            raise Forbidden(f"host {host[:100]!r} is not one of this daemon's")


def _is_plain_host(host: str) -> bool:
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        name = host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.split(".")[0] == platform.node().split(".")[0]
    return True
