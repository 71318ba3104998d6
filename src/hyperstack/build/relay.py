"""The only way out of git's jail: connections that the daemon makes for it, by its own rules.

The jail's network namespace has nothing but loopback, so git resolves no name and reaches no
address itself. It speaks SOCKS 5 (RFC 1928, CONNECT alone) to a listener of the daemon's in that
namespace for ``http`` and ``https``; for ``git`` and ``ssh``, whose clients know no proxy, one port
leads to the host that the user named. A host that somebody else named (a redirect, a submodule)
may not be near, that is this host itself or on its link, unless the user's own is.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from hyperstack.image.endpoints import is_near
from hyperstack.platform import netns

SOCKS_PORT = 1080
MOST_CONNECTIONS = 32
CONNECT_TIMEOUT = 30.0
"""Seconds for a name's look-up and its host's answer."""
HELLO_TIMEOUT = 10.0
MAX_BYTES = 16 << 30
"""Of all that comes in."""
_PIECE = 1 << 16
_VERSION, _CONNECT, _NO_AUTH = 5, 1, 0
_IPV4, _NAME, _IPV6 = 1, 3, 4
_DONE, _FORBIDDEN, _UNREACHABLE, _UNKNOWN = 0, 2, 4, 7
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Refused(Exception):
    """A connection that is not made.

    *words* are curl's, *reason* those of the system or its resolver, *address* what was tried
    last, if the name led to any; *code* is that of SOCKS.
    """

    def __init__(
        self, words: str, *, reason: str = "", address: str = "", code: int = _UNREACHABLE
    ) -> None:
        super().__init__(words)
        self.words = words
        self.reason = reason
        self.address = address
        self.code = code


class Relay:
    """The listeners of one jail. ``open`` before use, ``close`` ends every connection."""

    def __init__(self, namespace: Path, named: str) -> None:
        """*named*: the host of the user's address, in lower case."""
        self._namespace = namespace
        self._named = named
        self._near = False
        self._received = 0
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: Refused | None = None
        """The last connection that was not made."""

    async def open(self, forward: int | None = None) -> None:
        """Listen; *forward* is the port that leads to the same port of the named host.

        Raises InternalError if the namespace is gone.
        """
        await self._listen("127.0.0.1", SOCKS_PORT, self._socks)
        if forward is None:
            return

        async def straight(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._carry(reader, writer, await self._connect(self._named, forward))

        await self._listen("0.0.0.0", forward, straight)

    async def _listen(self, address: str, port: int, handler: Handler) -> None:
        def bound() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            made.bind((address, port))
            return made

        listening = await asyncio.to_thread(netns.in_netns, self._namespace, bound)

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._tasks) >= MOST_CONNECTIONS:
                writer.transport.abort()
                return
            task = asyncio.create_task(self._serve(handler, reader, writer), name="git's relay")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._servers.append(await asyncio.start_server(accepted, sock=listening))

    async def _serve(
        self, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await handler(reader, writer)
        except Refused as refused:
            self.failed = refused
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # git tells what it lacks
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        """End all of it."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT):
            _, methods = await reader.readexactly(2)
            await reader.readexactly(methods)
            writer.write(bytes((_VERSION, _NO_AUTH)))
            version, command, _, kind = await reader.readexactly(4)
            host = await _host(reader, kind)
            port = int.from_bytes(await reader.readexactly(2), "big")
        if (version, command) != (_VERSION, _CONNECT):
            writer.write(_answer(_UNKNOWN))
            return
        try:
            far = await self._connect(host, port)
        except Refused as refused:
            writer.write(_answer(refused.code))
            await writer.drain()
            raise
        writer.write(_answer(_DONE))
        await self._carry(reader, writer, far)

    async def _connect(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a host that git asks for. Raises Refused."""
        begun = time.monotonic()
        reason = address = ""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                for address in await self._addresses(host, port):
                    try:
                        return await asyncio.open_connection(address, port)
                    except OSError as error:
                        reason = os.strerror(error.errno or errno.EIO)
        except TimeoutError:
            reason = os.strerror(errno.ETIMEDOUT)
        took = int((time.monotonic() - begun) * 1000)
        raise Refused(
            f"Failed to connect to {host} port {port} after {took} ms: Couldn't connect to server",
            reason=reason,
            address=address,
        )

    async def _addresses(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "Name or service not known"
            raise Refused(f"Could not resolve host: {host}", reason=reason) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        near = any(map(is_near, addresses))
        if host.lower() == self._named:
            self._near = self._near or near
        elif near and not self._near:
            raise Refused(f"{host} leads to this host", code=_FORBIDDEN)
        return addresses

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Carry bytes both ways until both have ended."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far[1], counted=False))
                group.create_task(self._pump(far[0], writer, counted=True))
        except* OSError:
            pass  # one side is gone; git tells what it lacks
        finally:
            far[1].transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        while data := await reader.read(_PIECE):
            self._received += len(data) if counted else 0
            if self._received > MAX_BYTES:
                self.failed = Refused(f"more than {MAX_BYTES >> 30} GiB")
                raise ConnectionAbortedError
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _host(reader: asyncio.StreamReader, kind: int) -> str:
    """Read an address of SOCKS. Raises OSError for a kind that there is not."""
    if kind == _NAME:
        (length,) = await reader.readexactly(1)
        return (await reader.readexactly(length)).decode("ascii", "replace")
    if kind not in (_IPV4, _IPV6):
        raise OSError("no kind of address")
    return str(ipaddress.ip_address(await reader.readexactly(4 if kind == _IPV4 else 16)))


def _answer(code: int) -> bytes:
    return bytes((_VERSION, code, 0, _IPV4)) + bytes(6)
