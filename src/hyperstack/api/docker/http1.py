"""HTTP/1.1 messages without sockets (RFC 9112): request heads, bodies and their exact bounds.

Strict where a lenient reader could be told two stories by one message: there is no folding, one
Content-Length at most, none beside Transfer-Encoding, no other coding than chunked, and lines of
chunks end with CRLF. What does not fit ends the connection, in the words of Go's ``net/http`` where
it has some. As there, lines of a head may end with LF alone, for requests typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_HEAD = 64 << 10
"""Bytes of request line and headers together."""
MAX_HEADERS = 200
MAX_CHUNK_LINE = 4096
MAX_TRAILERS = 8 << 10

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_TARGET = re.compile(rb"[\x21-\x7e]+\Z")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[!$%&'()*+,\-.0-9:;=A-Z\[\]_a-z~]*\Z")
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])\Z")
_HEAD_END = re.compile(rb"\n\r?\n")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\Z")

REASONS = {
    100: "Continue",
    101: "UPGRADED",
    200: "OK",
    201: "Created",
    204: "No Content",
    301: "Moved Permanently",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Request Entity Too Large",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class ProtocolError(Exception):
    """The peer does not speak HTTP/1.1 as it must; the connection ends after *status*."""

    def __init__(self, status: int, sentence: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence

    @property
    def answer(self) -> bytes:
        """What the peer is told, in plain text and without a length, as Go's server tells it."""
        words = f"{self.status} {REASONS[self.status]}"
        if self.sentence:
            words += f": {self.sentence}"
        fields = "Content-Type: text/plain; charset=utf-8\r\nConnection: close"
        return f"HTTP/1.1 {words}\r\n{fields}\r\n\r\n{words}".encode("latin-1", "replace")


@dataclass(frozen=True, kw_only=True)
class Head:
    """A request's line and headers. Header names are lower case; ``length`` None is chunked."""

    method: str
    target: str
    """Path and query; ``*`` for OPTIONS of the server itself."""
    minor: int
    """0 or 1: HTTP/1.0 or HTTP/1.1"""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = 0
    keep_alive: bool = True
    upgrade: str = ""
    """Value of Upgrade if Connection names it, lower case."""

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before it sends the body."""
        return self.minor == 1 and self.headers.get("expect", "").lower() == "100-continue"


def head_end(buffer: bytes | bytearray, start: int) -> tuple[int, int]:
    """Return where a head ends and what follows it begins, looking from *start*; -1: not yet."""
    found = _HEAD_END.search(buffer, start)
    if found is None:
        return -1, -1
    end = found.start()
    return end - (buffer[end - 1 : end] == b"\r"), found.end()


def parse_head(block: bytes) -> Head:
    """Parse everything before the blank line (without it). Raises ProtocolError."""
    line, *rest = (line.removesuffix(b"\r") for line in block.split(b"\n"))
    method, target, minor = _request_line(line)
    if len(rest) > MAX_HEADERS:
        raise ProtocolError(431, "too many headers")
    headers = _headers(rest)
    if minor == 1 and "host" not in headers:
        raise ProtocolError(400, "missing required Host header")
    if absolute := _ABSOLUTE.match(target):
        # RFC 9112, 3.2.2: the target's authority counts, whatever Host says.
        headers["host"] = absolute[1]
        target = target[absolute.end() :]
    _check_target(method, target, headers.get("host", ""))
    if minor == 1 and headers.get("expect", "100-continue").lower() != "100-continue":
        raise ProtocolError(417)
    tokens = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    return Head(
        method=method,
        target=target,
        minor=minor,
        headers=headers,
        length=_length(headers, minor),
        keep_alive="close" not in tokens and (minor == 1 or "keep-alive" in tokens),
        upgrade=headers.get("upgrade", "").strip().lower() if "upgrade" in tokens else "",
    )


def _check_target(method: str, target: str, host: str) -> None:
    path = target.partition("?")[0]
    if not (path.startswith("/") or (method == "OPTIONS" and path == "*") or not path):
        raise ProtocolError(400)
    if _BAD_ESCAPE.search(path):
        raise ProtocolError(400)
    if not _HOST.match(host):
        raise ProtocolError(400, "malformed Host header")


def _request_line(line: bytes) -> tuple[str, str, int]:
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.match(parts[0]) or not _TARGET.match(parts[1]):
        raise ProtocolError(400)
    version = _VERSION.match(parts[2])
    if version is None:
        raise ProtocolError(400)
    if version[1] != b"1":
        raise ProtocolError(505, "unsupported protocol version")
    return parts[0].decode("ascii"), parts[1].decode("ascii"), min(int(version[2]), 1)


_SINGLE = frozenset({"host", "content-length", "transfer-encoding", "content-type", "expect"})


def _headers(lines: Iterable[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _VALUE.match(value):
            raise ProtocolError(400)
        if not _TOKEN.match(name):
            raise ProtocolError(400, "invalid header name")
        key = name.decode("ascii").lower()
        text = value.strip(b" \t").decode("latin-1")
        if key not in found:
            found[key] = text
        elif key in _SINGLE:
            raise ProtocolError(400, f"more than one {key} header")
        else:
            found[key] += f", {text}"
    return found


def _length(headers: Mapping[str, str], minor: int) -> int | None:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or minor == 0:
            raise ProtocolError(400, "Transfer-Encoding does not go with this request")
        if coding.lower() != "chunked":
            raise ProtocolError(501, "Unsupported transfer encoding")
        return None
    if length is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise ProtocolError(400, "bad Content-Length")
    return int(length)


class BodyReader:
    """Takes a body out of the bytes that follow a head. ``rest`` is what comes after its end."""

    def __init__(self, length: int | None) -> None:
        self._left = length or 0
        self._chunked = length is None
        self._buffer = bytearray()
        self._expect = b"size"
        self._trailers = 0
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return parts of the body. Raises ProtocolError. Not called once ``done``."""
        if self._chunked:
            return self._feed_chunked(data)
        part, self.rest = data[: self._left], data[self._left :]
        self._left -= len(part)
        self.done = self._left == 0
        return [part] if part else []

    def _feed_chunked(self, data: bytes) -> list[bytes]:
        parts: list[bytes] = []
        while data and not self.done:
            if self._left:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                parts.append(part)
                if not self._left:
                    self._expect = b"end"
                continue
            line, data = self._line(data)
            if line is not None:
                self._take_line(line)
        self.rest = data
        return parts

    def _line(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Return the next whole line without its CRLF (None: not there yet) and what follows."""
        start = max(len(self._buffer) - 1, 0)
        before = len(self._buffer)
        self._buffer += data[: MAX_CHUNK_LINE + 2 - before]
        end = self._buffer.find(b"\n", start) - 1
        if end >= -1 and self._buffer[end : end + 1] != b"\r":
            raise ProtocolError(400, "chunked line ends with bare LF")
        if end < 0:
            if len(self._buffer) >= MAX_CHUNK_LINE + 2:
                raise ProtocolError(400, "chunk line too long")
            return None, b""
        line = bytes(self._buffer[:end])
        self._buffer.clear()
        return line, data[end + 2 - before :]

    def _take_line(self, line: bytes) -> None:
        if self._expect == b"end":
            if line:
                raise ProtocolError(400, "malformed chunked encoding")
            self._expect = b"size"
        elif self._expect == b"size":
            match = _CHUNK.match(line)
            if match is None:
                raise ProtocolError(400, "invalid byte in chunk length")
            self._left = int(match[1], 16)
            if not self._left:
                self._expect = b"trailer"
        elif not line:
            self.done = True
        else:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS:
                raise ProtocolError(431, "trailers too long")


def response_head(
    status: int, headers: Iterable[tuple[str, str]], minor: int = 1, reason: str = ""
) -> bytes:
    """Return a response's status line (HTTP/1.*minor*) and headers, blank line included."""
    lines = [f"HTTP/1.{minor} {status} {reason or REASONS.get(status, 'Unknown')}"]
    for name, value in headers:
        if "\r" in value or "\n" in value:
            value = " ".join(value.split())
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def chunk(size: int) -> bytes:
    """Return the line before a chunk of *size* bytes; ``CHUNK_END`` follows the chunk."""
    return b"%x\r\n" % size


CHUNK_END = b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"
