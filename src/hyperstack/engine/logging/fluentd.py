"""Log driver ``fluentd``: each line of a container as an event of Fluentd's forward protocol.

Forward Protocol Specification v1 (github.com/fluent/fluentd/wiki), message mode: one MessagePack
array of tag, time, record and option for each line, over TCP, TLS or a unix socket; with
``fluentd-request-ack`` the server confirms each.
"""

from __future__ import annotations

import base64
import re
import secrets
import ssl
import struct
from collections.abc import Mapping

import msgspec

from hyperstack.engine.logging import sending, tagging
from hyperstack.engine.logging.kept import parse_boolean, parse_size
from hyperstack.engine.logging.sending import Line, Terms
from hyperstack.engine.logging.transport import Address, Connection, Stream, dial, parse_url
from hyperstack.errors import InvalidParameter
from hyperstack.model import Container
from hyperstack.until import parse_duration

OPTIONS = tagging.OPTIONS | {
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-request-ack",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
    "fluentd-write-timeout",
}
HOST, PORT = "127.0.0.1", 24224
ANSWER = 4096
"""Bytes of a confirmation at most."""
_ID = 24
"""Characters of the id that a confirmation names, at the very end of its message."""
_UNSIGNED = re.compile(r"[0-9]+\Z")
_FLAGS = ("fluentd-async", "fluentd-sub-second-precision", "fluentd-request-ack")


def check(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter in Docker's words for options that make no sense."""
    parse_address(options.get("fluentd-address", ""))
    if options.get("fluentd-buffer-limit"):
        parse_size(options["fluentd-buffer-limit"])
    if options.get("fluentd-retry-wait"):
        _seconds(options["fluentd-retry-wait"])
    retries = options.get("fluentd-max-retries", "")
    if retries and _UNSIGNED.match(retries) is None:
        raise InvalidParameter(f'strconv.ParseUint: parsing "{retries}": invalid syntax')
    for key in _FLAGS:
        if options.get(key):
            parse_boolean(options[key])
    _check_interval(options.get("fluentd-async-reconnect-interval", ""))
    _check_timeout(options.get("fluentd-write-timeout", ""))


def _check_interval(text: str) -> None:
    words = "invalid value for fluentd-async-reconnect-interval"
    if not text:
        return
    try:
        seconds = _seconds(text)
    except InvalidParameter as error:
        raise InvalidParameter(f"{words}: {error.message}") from error
    if seconds and not 0.1 <= seconds <= 10:
        raise InvalidParameter(f'{words}: value ("{text}") must be between 100ms and 10s')


def _check_timeout(text: str) -> None:
    words = "invalid value for fluentd-write-timeout: value must be a duration"
    if not text:
        return
    try:
        seconds = _seconds(text)
    except InvalidParameter as error:
        raise InvalidParameter(f"{words}: {error.message}") from error
    if seconds < 0:
        raise InvalidParameter(f"{words} that is non-negative")


def parse_address(text: str) -> Address:
    """Return the server's address. Raises InvalidParameter."""
    if not text:
        return Address(scheme="tcp", host=HOST, port=PORT)
    words = f"invalid fluentd-address ({text})"
    try:
        found = parse_url(text if "://" in text else f"tcp://{text}")
    except InvalidParameter as error:
        raise InvalidParameter(f"{words}: {error.message}") from error
    if found.scheme == "unix":
        if not found.path.strip("/"):
            raise InvalidParameter(f"{words}: path is empty")
        return found
    if found.scheme not in ("tcp", "tls"):
        raise InvalidParameter(f"{words}: unsupported scheme: '{found.scheme}'")
    if found.path:
        raise InvalidParameter(f"{words}: should not contain a path element")
    return Address(scheme=found.scheme, host=found.host or HOST, port=found.port or PORT)


class Confirmed(Connection):
    """A stream whose server confirms each message."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def alive(self) -> bool:
        """Tell whether neither side has ended it."""
        return self._stream.alive()

    def send_now(self, message: bytes) -> bool:
        """Say that a confirmation has always to be waited for."""
        return False

    async def send(self, message: bytes) -> None:
        """Send a message and wait until it is confirmed. Raises OSError."""
        await self._stream.send(message)
        answer = b""
        while len(answer) < ANSWER:
            part = await self._stream.receive(ANSWER - len(answer))
            if not part:
                break
            answer += part
            try:
                found = msgspec.msgpack.decode(answer, type=dict[str, str])
            except msgspec.MsgspecError:
                continue
            if found.get("ack") == message[-_ID:].decode():
                return
            break
        raise ConnectionError("a message was not confirmed")

    def close(self) -> None:
        """End the connection."""
        self._stream.close()


class Sender(sending.Sender):
    """One container's events on their way to Fluentd."""

    name = "fluentd"

    def __init__(
        self,
        options: Mapping[str, str],
        tag: str,
        fields: Mapping[str, str],
        extra: Mapping[str, str],
        terms: Terms,
    ) -> None:
        """*fields* go into each record, and *extra*, which stands over what the line says."""
        super().__init__(terms)
        self._address = parse_address(options.get("fluentd-address", ""))
        self._tag = tag
        self._fields = dict(fields)
        self._extra = dict(extra)
        self.lazy = _is_on(options, "fluentd-async")
        self._exact = _is_on(options, "fluentd-sub-second-precision")
        self._confirmed = _is_on(options, "fluentd-request-ack")
        wait = "fluentd-async-reconnect-interval" if self.lazy else "fluentd-retry-wait"
        if options.get(wait):
            self.again = min(60.0, max(0.1, _seconds(options[wait])))
        if retries := options.get("fluentd-max-retries"):
            self.tries = 1 + int(retries[:9])
        if limit := options.get("fluentd-write-timeout"):
            self.patience = _seconds(limit) or self.patience

    def message(self, line: Line) -> bytes:
        """Return a line's event."""
        seconds, rest = divmod(line.time_ns, 10**9)
        moment: object = seconds
        if self._exact:
            moment = msgspec.msgpack.Ext(0, struct.pack(">II", seconds, rest))
        option: dict[str, str] = {}
        if self._confirmed:
            option["chunk"] = base64.b64encode(secrets.token_bytes(16)).decode()
        return msgspec.msgpack.encode((self._tag, moment, self._record(line), option))

    def _record(self, line: Line) -> dict[str, object]:
        made: dict[str, object] = {
            **self._fields,
            "source": str(line.kind),
            "log": msgspec.Raw(_raw_text(line.text)),
            **self._extra,
        }
        if (partial := line.partial) is not None:
            made["partial_message"] = "true"
            made["partial_id"] = partial.id
            made["partial_ordinal"] = str(partial.ordinal)
            made["partial_last"] = "true" if partial.last else "false"
        return made

    async def dial(self) -> Connection:
        """Connect to the server. Raises InternalError in Docker's words."""
        address = self._address
        if address.scheme == "unix":
            made = await dial("unix", address.path)
        else:
            secure = ssl.create_default_context() if address.scheme == "tls" else None
            made = await dial("tcp", address.host, address.port or PORT, secure)
        return Confirmed(made) if self._confirmed and isinstance(made, Stream) else made


def _seconds(text: str) -> float:
    """Return a Go duration in seconds. Raises InvalidParameter in Go's words."""
    found = 0 if text == "0" else parse_duration(text)
    if found is None:
        unit = "missing unit in" if text.lstrip("+-").isdigit() else "invalid"
        raise InvalidParameter(f'time: {unit} duration "{text}"')
    return found / 1e9


def _is_on(options: Mapping[str, str], key: str) -> bool:
    return bool(options.get(key)) and parse_boolean(options[key])


def _raw_text(text: bytes) -> bytes:
    """Return bytes as a string of MessagePack, which need not be UTF-8."""
    if len(text) < 32:
        return bytes((0xA0 | len(text),)) + text
    return b"\xda" + len(text).to_bytes(2, "big") + text


def sender(container: Container, terms: Terms) -> Sender:
    """Return the way of a container's lines to Fluentd. Raises HyperError."""
    options = container.host.log_config.config
    tag = tagging.tag(container, options.get("tag") or tagging.DEFAULT)
    fields = {"container_id": container.id, "container_name": f"/{container.name}"}
    if limit := options.get("fluentd-buffer-limit"):
        terms = Terms(blocking=terms.blocking, bound=min(terms.bound, parse_size(limit)))
    return Sender(options, tag, fields, dict(tagging.attributes(container)), terms)
