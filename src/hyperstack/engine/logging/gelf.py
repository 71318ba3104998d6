"""Log driver ``gelf``: each line of a container as a message of the Graylog Extended Log Format.

GELF 1.1 (go2docs.graylog.org, "GELF"): JSON, over UDP compressed and in chunks where it is long,
over TCP ended by a zero byte. The fields are those of moby's driver.
"""

from __future__ import annotations

import gzip
import re
import secrets
import socket
import zlib
from collections.abc import Callable, Mapping

from hyperstack.engine.logging import sending, tagging
from hyperstack.engine.logging.jsonline import escape, stamp
from hyperstack.engine.logging.sending import Line, Terms
from hyperstack.engine.logging.transport import Address, Connection, dial, parse_url
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import Container, StreamKind

OPTIONS = tagging.OPTIONS | {
    "gelf-address",
    "gelf-compression-level",
    "gelf-compression-type",
    "gelf-tcp-max-reconnect",
    "gelf-tcp-reconnect-delay",
}
CHUNK = 1420
"""Bytes of a datagram; a longer message goes in chunks, each with a head of 12 bytes."""
CHUNKS = 128
_HEAD = 12
_LEVEL = {StreamKind.STDOUT: 6, StreamKind.STDERR: 3}
_COUNT = re.compile(r"\+?[0-9]{1,9}\Z")
_COMPRESSION = re.compile(r"-1\Z|\+?[0-9]\Z")


def check(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter in Docker's words for options that make no sense."""
    scheme = parse_address(options.get("gelf-address", "")).scheme
    for key, value in options.items():
        if key.startswith("gelf-tcp-"):
            if scheme != "tcp":
                raise InvalidParameter(f'"{key}" is only valid for TCP')
            if _COUNT.match(value) is None:
                raise InvalidParameter(f'"{key}" must be a positive integer')
        elif key.startswith("gelf-compression-"):
            if scheme != "udp":
                raise InvalidParameter("compression is only supported on UDP")
            known = value in ("gzip", "zlib", "none")
            if not (known if key.endswith("-type") else _COMPRESSION.match(value)):
                words = f'unknown value "{value}" for log opt "{key}" for gelf log driver'
                raise InvalidParameter(words)


def parse_address(text: str) -> Address:
    """Return the server's address, which has a port. Raises InvalidParameter."""
    if not text:
        raise InvalidParameter("gelf-address is a required parameter")
    address = parse_url(text)
    if address.scheme not in ("udp", "tcp"):
        raise InvalidParameter("gelf: endpoint needs to be TCP or UDP")
    if address.port is None:
        raise InvalidParameter("gelf: please provide gelf-address as proto://host:port")
    return address


def _packer(options: Mapping[str, str]) -> Callable[[bytes], bytes]:
    level = int(options.get("gelf-compression-level", "1"))
    match options.get("gelf-compression-type", "gzip"):
        case "gzip":
            return lambda text: gzip.compress(text, level, mtime=0)
        case "zlib":
            return lambda text: zlib.compress(text, level)
        case _:
            return bytes


class Chunks(Connection):
    """Datagrams, several for a message that is too long for one."""

    def __init__(self, datagrams: Connection) -> None:
        self._datagrams = datagrams

    def alive(self) -> bool:
        """Say that nothing is known of the other side."""
        return self._datagrams.alive()

    def send_now(self, message: bytes) -> bool:
        """Send a message that needs no chunks, if there is room for it. Raises OSError."""
        return len(message) <= CHUNK and self._datagrams.send_now(message)

    async def send(self, message: bytes) -> None:
        """Send a message. Raises OSError if it is too long or is not taken."""
        for chunk in chunks_of(message):
            await self._datagrams.send(chunk)

    def close(self) -> None:
        """Close the socket."""
        self._datagrams.close()


def chunks_of(message: bytes) -> list[bytes]:
    """Cut a message into datagrams. Raises OSError if these are more than may be."""
    if len(message) <= CHUNK:
        return [message]
    room = CHUNK - _HEAD
    count = -(-len(message) // room)
    if count > CHUNKS:
        raise OSError(f"a message that needs {count} chunks")
    head = b"\x1e\x0f" + secrets.token_bytes(8)
    return [
        head + bytes((number, count)) + message[number * room : (number + 1) * room]
        for number in range(count)
    ]


class Sender(sending.Sender):
    """One container's messages on their way to a GELF server."""

    name = "gelf"

    def __init__(self, options: Mapping[str, str], fields: Mapping[str, str], terms: Terms) -> None:
        """*fields* go into each message."""
        super().__init__(terms)
        self._address = parse_address(options.get("gelf-address", ""))
        self._host = _text(socket.gethostname())
        pairs = (b",%s:%s" % (_text(key), _text(fields[key])) for key in sorted(fields))
        self._tail = b"".join(pairs) + b"}"
        if self._address.scheme == "tcp":
            self.again = float(options.get("gelf-tcp-reconnect-delay", "1"))
            self.tries = max(1, int(options.get("gelf-tcp-max-reconnect", "3")))
            self._pack: Callable[[bytes], bytes] = lambda text: text + b"\0"
        else:
            self._pack = _packer(options)

    def message(self, line: Line) -> bytes:
        """Return a line's message; empty ones are not sent, as with Docker."""
        if not line.text:
            return b""
        made = b'{"version":"1.1","host":%s,"short_message":"%s","timestamp":%s,"level":%d' % (
            self._host,
            escape(line.text),
            _seconds(line.time_ns),
            _LEVEL.get(line.kind, 6),
        )
        return self._pack(made + self._tail)

    async def dial(self) -> Connection:
        """Connect to the server. Raises InternalError in Docker's words."""
        address = self._address
        try:
            made = await dial(address.scheme, address.host or "localhost", address.port or 0)
        except InternalError as error:
            words = f"gelf: cannot connect to GELF endpoint: {address.place} {error.message}"
            raise InternalError(words) from error
        return made if address.scheme == "tcp" else Chunks(made)


def _text(value: str) -> bytes:
    return b'"%s"' % escape(value.encode(errors="replace"))


def _seconds(time_ns: int) -> bytes:
    """Return a time to the millisecond, as Go prints such a number."""
    seconds, rest = divmod(time_ns // 1_000_000, 1000)
    return f"{seconds}.{rest:03d}".rstrip("0").rstrip(".").encode() if rest else b"%d" % seconds


def sender(container: Container, terms: Terms) -> Sender:
    """Return the way of a container's lines to its GELF server. Raises HyperError."""
    options = container.host.log_config.config
    fields = {
        "_container_id": container.id,
        "_container_name": container.name,
        "_image_id": container.image_id,
        "_image_name": container.config.image,
        "_command": " ".join((container.path, *container.args)),
        "_tag": tagging.tag(container, options.get("tag") or tagging.DEFAULT),
        "_created": stamp(container.created_ns),
    }
    for key, value in tagging.attributes(container):
        fields[key if key.startswith("_") else f"_{key}"] = value
    return Sender(options, fields, terms)
