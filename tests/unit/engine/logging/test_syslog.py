from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from hyperstack.engine.logging import syslog
from hyperstack.engine.logging.sending import Line, Terms
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import StreamKind

OUT, ERR = StreamKind.STDOUT, StreamKind.STDERR
NOW = 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("options", "head"),
    [
        ({}, "<30>{stamp} t[{pid}]: "),
        (
            {"syslog-format": "rfc3164", "syslog-facility": "local3"},
            "<158>{stamp} {host} t[{pid}]: ",
        ),
        ({"syslog-format": "rfc5424", "syslog-facility": "3"}, "<30>1 {exact} {host} t {pid} t - "),
    ],
)
def test_messages_have_the_heads_that_dockerd_gives_them(
    options: dict[str, str], head: str
) -> None:
    from datetime import datetime

    moment = datetime.fromtimestamp(NOW // 10**9).astimezone()
    expected = head.format(
        stamp=f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S}",
        exact=moment.isoformat().replace("+00:00", "Z"),
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    message = syslog.form_of(options, "t").message(OUT, b"line", NOW)
    assert message == f"{expected}line\n".encode()


def test_errors_are_more_severe_and_tls_counts_the_bytes() -> None:
    options = {"syslog-format": "rfc5424micro", "syslog-address": "tcp+tls://h:1"}
    message = syslog.form_of(options, "t").message(ERR, b"line", NOW)
    length, _, rest = message.partition(b" ")
    assert int(length) == len(rest)
    assert rest.startswith(b"<27>1 2023-11-14T22:13:20.123456")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("", "", 0)),
        ("udp://h", ("udp", "h", 514)),
        ("tcp://[::1]:9", ("tcp", "::1", 9)),
        ("unixgram:///dev/log", ("unixgram", "/dev/log", 0)),
    ],
)
def test_addresses_are_read(text: str, parts: tuple[str, str, int]) -> None:
    assert syslog.parse_address(text) == parts


@pytest.mark.parametrize("text", ["x", "ftp://x", "tcp://h:x", "tcp://[::1"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        syslog.parse_address(text)


def line(kind: StreamKind, text: bytes) -> Line:
    return Line(kind=kind, text=text, time_ns=NOW)


def _server(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(5)
    return made


async def test_lines_arrive_in_order_and_again_after_the_server_was_away(tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = _server(path)
    sender = syslog.Sender({"syslog-address": f"unixgram://{path}"}, "t", Terms())
    await sender.connect()
    for text in (b"one", b"", b"two"):
        sender.put(line(OUT, text))
    got = [await asyncio.to_thread(server.recv, 1000) for _ in range(2)]
    server.close()
    path.unlink()
    server = _server(path)
    sender.put(line(ERR, b"three"))
    got.append(await asyncio.to_thread(server.recv, 1000))
    sender.close()
    server.close()
    assert [message.rpartition(b" ")[2] for message in got] == [b"one\n", b"two\n", b"three\n"]


async def test_a_blocking_sender_makes_room_for_a_slow_server_and_another_drops(
    tmp_path: Path,
) -> None:
    server = _server(path := tmp_path / "log")
    place = {"syslog-address": f"unixgram://{path}"}
    waits = syslog.Sender(place, "t", Terms(bound=100))
    drops = syslog.Sender(place, "t", Terms(blocking=False, bound=100))
    for sender in (waits, drops):
        await sender.connect()
        for _ in range(1000):  # more than the kernel keeps for a server that does not read
            sender.put(line(OUT, b"x" * 5000))
    await asyncio.wait_for(drops.room(), 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(waits.room(), 0.05)
    for sender in (waits, drops):
        sender.close()
    await asyncio.wait_for(waits.room(), 1)
    server.close()


async def test_a_server_that_is_away_stops_no_container_and_gets_what_waited(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    sender = syslog.Sender({"syslog-address": f"unixgram://{path}"}, "t", Terms(bound=1000))
    sender.put(line(OUT, b"first"))
    await asyncio.sleep(0.05)
    for _ in range(100):
        sender.put(line(OUT, b"x" * 50))
        await asyncio.wait_for(sender.room(), 0.05)
    server = _server(path)
    assert (await asyncio.to_thread(server.recv, 1000)).endswith(b"]: first\n")
    await sender.flushed()
    server.setblocking(False)
    got = 0
    with contextlib.suppress(BlockingIOError):
        while server.recv(1000):
            got += 1
    assert 5 < got < 20, "what is beyond the bound was lost"
    sender.close()
    server.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("unix:///nosuch", "dial unix /nosuch: connect: no such file or directory"),
    ],
)
async def test_a_server_that_is_not_there_is_told_of_at_once(address: str, words: str) -> None:
    sender = syslog.Sender({"syslog-address": address}, "t", Terms())
    with pytest.raises(InternalError) as refused:
        await sender.connect()
    assert refused.value.message == words
