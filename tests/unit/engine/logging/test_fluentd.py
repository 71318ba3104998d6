from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperstack.engine.logging import fluentd
from hyperstack.engine.logging.sending import Line, Partial, Terms
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import StreamKind

NOW = 1_700_000_000_123_456_789


def line(text: bytes, partial: Partial | None = None) -> Line:
    return Line(kind=StreamKind.STDERR, text=text, time_ns=NOW, partial=partial)


def sender(**options: str) -> fluentd.Sender:
    named = {f"fluentd-{key.replace('_', '-')}": value for key, value in options.items()}
    return fluentd.Sender(named, "t", {"container_name": "/c"}, {"X": "1"}, Terms())


def decoded(message: bytes) -> list[Any]:
    found: list[Any] = msgspec.msgpack.decode(message)
    return found


@pytest.mark.parametrize("length", [0, 31, 32, 255, 256, 16384])
def test_a_line_is_an_event_with_dockerds_record(length: int) -> None:
    assert decoded(sender().message(line(b"x" * length))) == [
        "t",
        NOW // 10**9,
        {"container_name": "/c", "source": "stderr", "log": "x" * length, "X": "1"},
        {},
    ]


def test_parts_exact_times_and_bytes_that_are_no_text_are_sent() -> None:
    partial = Partial(id="p", ordinal=2, last=True)
    message = sender(sub_second_precision="true").message(line(b"\xff", partial))
    assert b"\xa3log\xa1\xff" in message
    _, moment, record, _ = decoded(message.replace(b"\xa1\xff", b"\xa1y"))
    seconds, rest = divmod(NOW, 10**9)
    assert (moment.code, moment.data) == (0, seconds.to_bytes(4) + rest.to_bytes(4))
    assert {key: value for key, value in record.items() if key.startswith("partial")} == {
        "partial_message": "true",
        "partial_id": "p",
        "partial_ordinal": "2",
        "partial_last": "true",
    }


async def test_what_is_not_confirmed_is_sent_again(tmp_path: Path) -> None:
    got: list[str] = []
    enough = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            _, _, record, option = decoded(data)
            got.append(record["log"])
            chunk = "another" if len(got) == 1 else option["chunk"]
            writer.write(msgspec.msgpack.encode({"ack": chunk}))
            if len(got) == 3:
                enough.set()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "s")
    made = sender(address=f"unix://{tmp_path / 's'}", request_ack="true")
    await made.connect()
    for text in (b"one", b"two"):
        made.put(line(text))
    await asyncio.wait_for(enough.wait(), 5)
    await made.flushed()
    made.close()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.05)
    assert got == ["one", "one", "two"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"address": "udp://h:1"},
            "invalid fluentd-address (udp://h:1): unsupported scheme: 'udp'",
        ),
        (
            {"address": "tcp://h:1/p"},
            "invalid fluentd-address (tcp://h:1/p): should not contain a path element",
        ),
        ({"address": "unix://"}, "invalid fluentd-address (unix://): path is empty"),
        (
            {"address": "h:x"},
            'invalid fluentd-address (h:x): parse "tcp://h:x": invalid port ":x" after host',
        ),
        ({"async": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ({"buffer-limit": "x"}, "invalid size: 'x'"),
        ({"retry-wait": "10"}, 'time: missing unit in duration "10"'),
        ({"max-retries": "-1"}, 'strconv.ParseUint: parsing "-1": invalid syntax'),
        (
            {"async-reconnect-interval": "1ms"},
            'invalid value for fluentd-async-reconnect-interval: value ("1ms") must be between '
            "100ms and 10s",
        ),
        (
            {"write-timeout": "-1s"},
            "invalid value for fluentd-write-timeout: value must be a duration that is "
            "non-negative",
        ),
    ],
)
def test_wrong_options_are_refused_in_dockers_words(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        fluentd.check({f"fluentd-{key}": value for key, value in options.items()})
    assert refused.value.message == words


async def test_messages_are_dropped_after_as_many_tries_as_were_asked_for() -> None:
    made = sender(address="127.0.0.1:1", max_retries="1", retry_wait="1ms")
    with pytest.raises(InternalError, match="connection refused"):
        await made.connect()
    made.put(line(b"lost"))
    async with asyncio.timeout(5):
        while made._waiting:
            await asyncio.sleep(0.02)
    made.close()
