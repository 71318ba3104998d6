"""Log driver ``syslog``: each line of a container as one message to a syslog server.

Addresses are ``unix://``, ``unixgram://``, ``udp://``, ``tcp://`` and ``tcp+tls://``, none is the
host's own ``/dev/log``. The forms of messages are those that moby gets from its library: the one of
local sockets, RFC 3164, RFC 5424 with seconds or microseconds; over TLS RFC 5425's lengths frame
those of RFC 5424. What the server does not take is lost, as with Docker; the copy that ``docker
logs`` reads is not (``logging.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hyperstack.errors import HyperError, InternalError, InvalidParameter
from hyperstack.model import StreamKind

log = logging.getLogger(__name__)

OPTIONS = frozenset(
    {
        "env",
        "env-regex",
        "labels",
        "labels-regex",
        "syslog-address",
        "syslog-facility",
        "syslog-format",
        "syslog-tls-ca-cert",
        "syslog-tls-cert",
        "syslog-tls-key",
        "syslog-tls-skip-verify",
        "tag",
    }
)
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
PORT = 514
BOUND = 10.0
"""Seconds for connecting, and for one message to go out."""
AGAIN = 1.0
"""Seconds between two tries to connect again."""
LAST = 5.0
"""Seconds for which what waits at a container's end may still go out."""
WAITING = 1 << 20
"""Bytes of messages that wait at most; in blocking mode the container waits then."""
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - - "
    "local0 local1 local2 local3 local4 local5 local6 local7"
).split()
_UNKNOWN_ISSUER = (18, 19, 20, 21)
"""OpenSSL's numbers (``x509_vfy.h``) for a chain that ends at nobody who is trusted."""
_SEVERITY = {StreamKind.STDOUT: 6, StreamKind.STDERR: 3}


def check(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter in Docker's words for an address, facility or format that is none."""
    scheme, place, _ = parse_address(options.get("syslog-address", ""))
    if scheme in ("unix", "unixgram") and not (place and Path(place).exists()):
        raise InvalidParameter(f"stat {place}: no such file or directory")
    parse_facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in FORMATS:
        raise InvalidParameter("Invalid syslog format")


def parse_address(text: str) -> tuple[str, str, int]:
    """Return scheme, path or host, and port; all empty for the host's own.

    Raises InvalidParameter.
    """
    if not text:
        return "", "", 0
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise InvalidParameter(f'parse "{text}": {error}') from error
    if url.scheme in ("unix", "unixgram"):
        return url.scheme, url.path, 0
    if url.scheme not in ("udp", "tcp", "tcp+tls"):
        raise InvalidParameter(f"unsupported scheme: '{url.scheme}'")
    return url.scheme, url.hostname or "localhost", PORT if port is None else port


def parse_facility(text: str) -> int:
    """Return a facility's number, of its name or number. Raises InvalidParameter."""
    if not text:
        return _FACILITIES.index("daemon")
    if text != "-" and text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdigit() and len(text) < 3 and int(text) < len(_FACILITIES):
        return int(text)
    raise InvalidParameter("invalid syslog facility")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a line becomes a message."""

    format: str
    facility: int
    tag: str
    framed: bool
    """Whether its length goes before it (RFC 5425)."""

    def message(self, kind: StreamKind, line: bytes, time_ns: int) -> bytes:
        """Return one message with its end of line, as it goes to the server."""
        priority = self.facility << 3 | _SEVERITY.get(kind, 6)
        tag, pid, host = self.tag, os.getpid(), socket.gethostname()
        moment = datetime.fromtimestamp(time_ns // 1000 / 1e6).astimezone()
        stamp = f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S}"
        if self.format == "rfc3164":
            head = f"<{priority}>{stamp} {host} {tag}[{pid}]: "
        elif self.format:
            precision = "microseconds" if self.format == "rfc5424micro" else "seconds"
            exact = moment.isoformat(timespec=precision).replace("+00:00", "Z")
            head = f"<{priority}>1 {exact} {host} {tag} {pid} {tag} - "
        else:
            head = f"<{priority}>{stamp} {tag}[{pid}]: "
        text = head.encode() + line + b"\n"
        return b"%d " % len(text) + text if self.framed else text


def form_of(options: Mapping[str, str], tag: str) -> Form:
    """Return the form that a container's options choose."""
    chosen = options.get("syslog-format", "")
    secure = options.get("syslog-address", "").startswith("tcp+tls:")
    return Form(
        format=chosen,
        facility=parse_facility(options.get("syslog-facility", "")),
        tag=tag,
        framed=secure and chosen.startswith("rfc5424"),
    )


def tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """Return the client's side of TLS. Raises InvalidParameter in Docker's words."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authority := options.get("syslog-tls-ca-cert"):
        try:
            context.load_verify_locations(cadata=Path(authority).read_text())
        except (OSError, ValueError, ssl.SSLError) as error:
            words = f'could not read CA certificate "{authority}": {_opened(error, authority)}'
            raise InvalidParameter(words) from error
    certificate, key = options.get("syslog-tls-cert", ""), options.get("syslog-tls-key", "")
    if certificate or key:
        try:
            context.load_cert_chain(certificate, key or None)
        except (OSError, ValueError) as error:
            words = _opened(error, certificate)
            raise InvalidParameter(f"Could not load X509 key pair: {words}") from error
    if options.get("syslog-tls-skip-verify"):  # whatever it says: moby looks for its presence
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _opened(error: Exception, path: str) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"open {path}: {error.strerror.lower()}"
    return str(error)


class Sender:
    """One container's messages on their way. Made and used on the event loop."""

    def __init__(
        self, options: Mapping[str, str], tag: str, *, blocking: bool, bound: int = WAITING
    ) -> None:
        """*bound* is the bytes that may wait; without *blocking* further ones are dropped."""
        self._options = options
        self._scheme, self._place, self._port = parse_address(options.get("syslog-address", ""))
        self._form = form_of(options, tag)
        self._blocking = blocking
        self._bound = bound
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._socket: socket.socket | None = None
        self._stream: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def put(self, kind: StreamKind, line: bytes, time_ns: int) -> None:
        """Take a line without its end; empty ones are not sent, as with Docker."""
        if not line or self._closing:
            return
        message = self._form.message(kind, line, time_ns)
        if self._size + len(message) > self._bound and not self._blocking:
            return
        self._waiting.append(message)
        self._size += len(message)
        self._changed.set()
        if self._size > self._bound:
            self._room.clear()
        self.begin()

    async def room(self) -> None:
        """Wait, in blocking mode, until less waits than may."""
        await self._room.wait()

    def begin(self) -> None:
        """Start to send, if that has not been done."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="syslog")

    def close(self) -> None:
        """Say that nothing more comes; what waits has ``LAST`` seconds to go out."""
        self._closing = True
        self._changed.set()
        self._room.set()
        if self._task is None:
            self._disconnect()
        else:
            asyncio.get_running_loop().call_later(LAST, self._task.cancel)

    async def connect(self) -> None:
        """Connect to the server. Raises InternalError or InvalidParameter in Docker's words."""
        try:
            async with asyncio.timeout(BOUND):
                await self._connect()
        except TimeoutError:
            raise InternalError(f"dial {self._words()}: i/o timeout") from None
        except ssl.SSLCertVerificationError as error:
            unknown = error.verify_code in _UNKNOWN_ISSUER
            why = "certificate signed by unknown authority" if unknown else error.verify_message
            raise InternalError(f"tls: failed to verify certificate: x509: {why}") from error
        except ssl.SSLError as error:
            raise InternalError(f"tls: {error.reason or error}") from error
        except socket.gaierror as error:
            words = f"dial {self._scheme.partition('+')[0]}: lookup {self._place}: no such host"
            raise InternalError(words) from error
        except OSError as error:
            if not self._scheme:
                raise InternalError("Unix syslog delivery error") from error
            reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
            raise InternalError(f"dial {self._words()}: connect: {reason}") from error

    def _words(self) -> str:
        if self._port:
            return f"{self._scheme.partition('+')[0]} {self._place}:{self._port}"
        return f"{self._scheme} {self._place}"

    async def _connect(self) -> None:
        if self._scheme in ("tcp", "tcp+tls"):
            secure = tls_context(self._options) if self._scheme == "tcp+tls" else None
            _, self._stream = await asyncio.open_connection(self._place, self._port, ssl=secure)
        elif self._scheme == "unix":
            _, self._stream = await asyncio.open_unix_connection(self._place)
        elif self._scheme == "udp":
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(self._place, self._port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            self._datagrams(socket.socket(family, kind, protocol), address)
        else:
            await self._local()

    async def _local(self) -> None:
        """Connect to a datagram socket of the host's, or to a stream where it is one."""
        places = (self._place,) if self._place else _LOCAL
        for place in places:
            with contextlib.suppress(OSError):
                self._datagrams(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), place)
                return
            if not self._place:
                with contextlib.suppress(OSError):
                    _, self._stream = await asyncio.open_unix_connection(place)
                    return
        raise ConnectionRefusedError("no syslog server listens")

    def _datagrams(self, made: socket.socket, address: Any) -> None:
        try:
            made.setblocking(False)
            made.connect(address)
        except OSError:
            made.close()
            raise
        self._socket = made

    async def _run(self) -> None:
        try:
            while True:
                while self._waiting:
                    await self._send(self._waiting[0])
                    self._size -= len(self._waiting.popleft())
                    if self._size <= self._bound:
                        self._room.set()
                if self._closing:
                    return
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._room.set()
            self._disconnect()

    async def _send(self, message: bytes) -> None:
        """Send one message; what fails is tried once again on a new connection, then dropped."""
        for last in (False, True):
            try:
                if self._socket is None and self._stream is None:
                    await self.connect()
                async with asyncio.timeout(BOUND):
                    await self._write(message)
                return
            except (HyperError, OSError, TimeoutError) as error:
                self._disconnect()
                if last:
                    log.warning("a line for syslog is lost: %s", error or "it takes none")
                    await asyncio.sleep(AGAIN)

    async def _write(self, message: bytes) -> None:
        if self._stream is not None:
            self._stream.write(message)
            await self._stream.drain()
        elif self._socket is not None:
            await asyncio.get_running_loop().sock_sendall(self._socket, message)

    def _disconnect(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._socket is not None:
            self._socket.close()
        self._stream = self._socket = None
