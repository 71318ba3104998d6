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
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hyperstack.engine.logging import sending, tagging
from hyperstack.engine.logging.sending import Line, Terms
from hyperstack.engine.logging.transport import Connection, dial, parse_url
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import Container, StreamKind

OPTIONS = tagging.OPTIONS | {
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
}
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
PORT = 514
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_INTEGER = re.compile(r"\+?[0-9]{1,9}\Z")
_FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - - "
    "local0 local1 local2 local3 local4 local5 local6 local7"
).split()
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
    url = parse_url(text)
    if url.scheme in ("unix", "unixgram"):
        return url.scheme, url.path, 0
    if url.scheme not in ("udp", "tcp", "tcp+tls"):
        raise InvalidParameter(f"unsupported scheme: '{url.scheme}'")
    return url.scheme, url.host or "localhost", PORT if url.port is None else url.port


def parse_facility(text: str) -> int:
    """Return a facility's number, of its name or number. Raises InvalidParameter."""
    if not text:
        return _FACILITIES.index("daemon")
    if text != "-" and text in _FACILITIES:
        return _FACILITIES.index(text)
    if _INTEGER.match(text) and 0 <= int(text) < len(_FACILITIES):
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
            text = Path(authority).read_text(errors="replace")
        except OSError as error:
            words = f'could not read CA certificate "{authority}": {_opened(error, authority)}'
            raise InvalidParameter(words) from error
        try:
            context.load_verify_locations(cadata=text)
        except (ValueError, ssl.SSLError) as error:
            words = f'failed to append certificates from PEM file: "{authority}"'
            raise InternalError(words) from error
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


class Sender(sending.Sender):
    """One container's messages on their way to a syslog server."""

    name = "syslog"

    def __init__(self, options: Mapping[str, str], tag: str, terms: Terms) -> None:
        super().__init__(terms)
        self._options = options
        self._scheme, self._place, self._port = parse_address(options.get("syslog-address", ""))
        self._form = form_of(options, tag)

    def message(self, line: Line) -> bytes:
        """Return a line's message; empty ones are not sent, as with Docker."""
        return self._form.message(line.kind, line.text, line.time_ns) if line.text else b""

    async def dial(self) -> Connection:
        """Connect to the server. Raises InternalError or InvalidParameter in Docker's words."""
        if not self._scheme:
            return await _local()
        secure: ssl.SSLContext | None = None
        if self._scheme == "tcp+tls":
            secure = await asyncio.to_thread(tls_context, self._options)
        return await dial(self._scheme.removesuffix("+tls"), self._place, self._port, secure)


async def _local() -> Connection:
    """Connect to the host's own server: a datagram socket, or a stream where it is one."""
    for scheme in ("unixgram", "unix"):
        for place in _LOCAL:
            with contextlib.suppress(InternalError):
                return await dial(scheme, place)
    raise InternalError("Unix syslog delivery error")


def sender(container: Container, terms: Terms) -> Sender:
    """Return the way of a container's lines to its syslog server. Raises HyperError."""
    options = container.host.log_config.config
    return Sender(options, tagging.tag(container, options.get("tag") or tagging.DEFAULT), terms)
