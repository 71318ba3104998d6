"""Connections of log drivers to their servers: datagrams and streams, failures in Go's words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hyperstack.errors import InternalError, InvalidParameter

_PORT = re.compile(r":([^:\]]{1,20})\Z")
BOUND = 10.0
"""Seconds for connecting."""
_UNKNOWN_ISSUER = (18, 19, 20, 21)
"""OpenSSL's numbers (``x509_vfy.h``) for a chain that ends at nobody who is trusted."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server is: host and port as they were given, or the path of a unix socket."""

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    place: str = ""
    """Host and port as one text."""


def parse_url(text: str) -> Address:
    """Take a URL apart. Raises InvalidParameter in the words of Go's ``net/url``."""
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise InvalidParameter(f"parse \"{text}\": missing ']' in host") from error
    port = _PORT.search(url.netloc)
    if port is not None and not (port[1].isascii() and port[1].isdigit()):
        raise InvalidParameter(f'parse "{text}": invalid port ":{port[1]}" after host')
    return Address(
        scheme=url.scheme,
        host=url.hostname or "",
        port=int(port[1]) if port is not None else None,
        path=url.path,
        place=url.netloc,
    )


class Connection(ABC):
    """A way for messages to one server."""

    @abstractmethod
    def alive(self) -> bool:
        """Tell whether the server has not ended it, as far as is known."""

    @abstractmethod
    def send_now(self, message: bytes) -> bool:
        """Send a message if that takes no waiting; False if it has to wait. Raises OSError."""

    @abstractmethod
    async def send(self, message: bytes) -> None:
        """Send a message. Raises OSError."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""


class Stream(Connection):
    """A byte stream: TCP, TLS, unix."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def alive(self) -> bool:
        """Tell whether neither side has ended it."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    def send_now(self, message: bytes) -> bool:
        """Say that a stream may always have to wait."""
        return False

    async def send(self, message: bytes) -> None:
        """Write a message. Raises OSError."""
        self._writer.write(message)
        await self._writer.drain()

    async def receive(self, most: int) -> bytes:
        """Return what the server says next, *most* bytes at most; nothing at its end."""
        return await self._reader.read(most)

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


class Datagrams(Connection):
    """A datagram socket, UDP or unix."""

    def __init__(self, made: socket.socket, address: Any) -> None:
        """Connect the socket; it is closed if that fails. Raises OSError."""
        self.socket = made
        try:
            made.setblocking(False)
            made.connect(address)
        except OSError:
            made.close()
            raise

    def alive(self) -> bool:
        """Say that nothing is known of the other side."""
        return True

    def send_now(self, message: bytes) -> bool:
        """Send a datagram if there is room for it. Raises OSError."""
        with contextlib.suppress(BlockingIOError):
            self.socket.send(message)
            return True
        return False

    async def send(self, message: bytes) -> None:
        """Send a datagram when there is room for it. Raises OSError."""
        while not self.send_now(message):
            await self._writable()

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Event = asyncio.Event()
        loop.add_writer(self.socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self.socket)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


async def dial(
    scheme: str, place: str, port: int = 0, secure: ssl.SSLContext | None = None
) -> Connection:
    """Connect to a server within ``BOUND``.

    *scheme* is tcp, udp (*place* is a host), unix or unixgram (a path); *secure* makes TCP TLS.
    Raises InternalError in the words of Go.
    """
    if port > 65535:
        raise InternalError(f"dial {scheme}: address {port}: invalid port")
    local = scheme.startswith("unix")
    words = f"dial {scheme} {place if local else _joined(place, port)}"
    try:
        async with asyncio.timeout(BOUND):
            if local:
                return await _connect(scheme, place)
            return await _dial_host(scheme, place, port, secure)
    except TimeoutError:
        raise InternalError(f"{words}: i/o timeout") from None
    except ssl.SSLCertVerificationError as error:
        unknown = error.verify_code in _UNKNOWN_ISSUER
        why = "certificate signed by unknown authority" if unknown else error.verify_message
        raise InternalError(f"tls: failed to verify certificate: x509: {why}") from error
    except ssl.SSLError as error:
        raise InternalError(f"tls: {error.reason or error}") from error
    except socket.gaierror as error:
        raise InternalError(f"dial {scheme}: lookup {place}: no such host") from error
    except OSError as error:
        raise InternalError(f"{words}: connect: {_reason(error)}") from error


async def _connect(scheme: str, path: str) -> Connection:
    if scheme == "unix":
        return Stream(*await asyncio.open_unix_connection(path))
    return Datagrams(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), path)


async def _dial_host(
    scheme: str, host: str, port: int, secure: ssl.SSLContext | None
) -> Connection:
    """Try a host's addresses in turn; the first failure is what is told, with its address."""
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
    failure: InternalError | None = None
    for family, _, protocol, _, address in await loop.getaddrinfo(host, port, type=kind):
        try:
            if scheme != "tcp":
                return Datagrams(socket.socket(family, kind, protocol), address)
            named = host if secure else None
            made = await asyncio.open_connection(
                str(address[0]), port, ssl=secure, server_hostname=named
            )
            return Stream(*made)
        except ssl.SSLError:
            raise
        except OSError as error:
            words = f"dial {scheme} {_joined(str(address[0]), port)}: connect: {_reason(error)}"
            failure = failure or InternalError(words)
    raise failure or InternalError(f"dial {scheme}: lookup {host}: no such host")


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
