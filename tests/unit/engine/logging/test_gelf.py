from __future__ import annotations

import gzip
import json
import socket
import zlib

import pytest

from hyperstack.engine.logging import gelf
from hyperstack.engine.logging.sending import Line, Terms
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import ContainerConfig, HostConfig, LogConfig, StreamKind
from tests.unit.engine.making import container

NOW = 1_700_000_000_120_456_789
UDP, TCP = "udp://127.0.0.1:12201", "tcp://127.0.0.1:1"


def line(text: bytes, kind: StreamKind = StreamKind.STDOUT) -> Line:
    return Line(kind=kind, text=text, time_ns=NOW)


def sender(**options: str) -> gelf.Sender:
    made = container(
        "web", identifier="ab" * 32, created_ns=10**9, args=("-c", "a > b"),
        config=ContainerConfig(labels={"_u": "1", "v": '"'}, image="i:1"),
        host=HostConfig(log_config=LogConfig(config={"labels": "_u,v", **options})),
    )  # fmt: skip
    return gelf.sender(made, Terms())


def test_a_message_is_dockerds_to_the_byte() -> None:
    made = sender(**{"gelf-address": UDP, "gelf-compression-type": "none"})
    assert made.message(line(b"")) == b""
    assert made.message(line(b"hi\xff", StreamKind.STDERR)).decode() == (
        f'{{"version":"1.1","host":"{socket.gethostname()}","short_message":"hi\ufffd",'
        '"timestamp":1700000000.12,"level":3,"_command":"/bin/sh -c a \\u003e b",'
        f'"_container_id":"{"ab" * 32}","_container_name":"web",'
        '"_created":"1970-01-01T00:00:01Z",'
        f'"_image_id":"sha256:{"0" * 64}","_image_name":"i:1","_tag":"abababababab","_u":"1",'
        '"_v":"\\""}'
    )


def test_messages_are_compressed_or_ended() -> None:
    packed = sender(**{"gelf-address": UDP}).message(line(b"x"))
    assert json.loads(gzip.decompress(packed))["short_message"] == "x"
    options = {"gelf-compression-type": "zlib", "gelf-compression-level": "-1"}
    packed = sender(**{"gelf-address": UDP, **options}).message(line(b"x"))
    assert json.loads(zlib.decompress(packed))["level"] == 6
    assert sender(**{"gelf-address": TCP}).message(line(b"x")).endswith(b"}\0")


def test_a_long_message_goes_in_chunks_and_one_too_long_not_at_all() -> None:
    assert gelf.chunks_of(b"x" * 1420) == [b"x" * 1420]
    message = bytes(range(256)) * 100
    chunks = gelf.chunks_of(message)
    assert {chunk[:10] for chunk in chunks} == {chunks[0][:10]}
    assert [(chunk[10], chunk[11]) for chunk in chunks] == [(n, 19) for n in range(19)]
    assert b"".join(chunk[12:] for chunk in chunks) == message
    assert max(map(len, chunks)) == 1420
    with pytest.raises(OSError, match="129 chunks"):
        gelf.chunks_of(b"x" * (1408 * 128 + 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "gelf-address is a required parameter"),
        ({"gelf-address": "x"}, "gelf: endpoint needs to be TCP or UDP"),
        (
            {"gelf-address": "udp://h"},
            "gelf: please provide gelf-address as proto://host:port",
        ),
        (
            {"gelf-address": UDP, "gelf-tcp-max-reconnect": "1"},
            '"gelf-tcp-max-reconnect" is only valid for TCP',
        ),
        (
            {"gelf-address": TCP, "gelf-tcp-reconnect-delay": "-1"},
            '"gelf-tcp-reconnect-delay" must be a positive integer',
        ),
        (
            {"gelf-address": TCP, "gelf-compression-type": "gzip"},
            "compression is only supported on UDP",
        ),
        (
            {"gelf-address": UDP, "gelf-compression-level": "10"},
            'unknown value "10" for log opt "gelf-compression-level" for gelf log driver',
        ),
    ],
)
def test_wrong_options_are_refused_in_dockers_words(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        gelf.check(options)
    assert refused.value.message == words


async def test_a_server_that_is_not_there_is_told_of() -> None:
    with pytest.raises(InternalError) as refused:
        await sender(**{"gelf-address": TCP}).connect()
    assert refused.value.message == (
        "gelf: cannot connect to GELF endpoint: 127.0.0.1:1 "
        "dial tcp 127.0.0.1:1: connect: connection refused"
    )
