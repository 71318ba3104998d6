from __future__ import annotations

import array
import fcntl
import os
import socket
from pathlib import Path

import pytest

from hyperstack.engine.logging import journald
from hyperstack.engine.logging.sending import Line, Partial, Terms
from hyperstack.errors import InternalError
from hyperstack.model import ContainerConfig, HostConfig, LogConfig, StreamKind
from tests.unit.engine.making import container

NOW = 1_700_000_000_123_456_789


def fields_of(entry: bytes) -> list[tuple[bytes, bytes]]:
    """Read an entry as the protocol's page says."""
    found: list[tuple[bytes, bytes]] = []
    while entry:
        head, _, entry = entry.partition(b"\n")
        key, equals, value = head.partition(b"=")
        if not equals:
            length = int.from_bytes(entry[:8], "little")
            value, entry = entry[8 : 8 + length], entry[9 + length :]
        found.append((key, value))
    return found


def receive(server: socket.socket) -> bytes:
    """Return an entry, from a datagram or from the sealed file that came with it."""
    data, ancillary, _, _ = server.recvmsg(1 << 20, socket.CMSG_SPACE(4))
    if not ancillary:
        return data
    assert data == b""
    fds = array.array("i", ancillary[0][2])
    with os.fdopen(fds[0], "r+b") as file:
        assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        file.seek(0)
        return file.read()


def journal(tmp_path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(tmp_path / "socket"))
    server.settimeout(5)
    return server


@pytest.mark.parametrize(
    ("name", "key"), [("com.x-y", "COM_X_Y"), ("__a", "A"), ("ümlaut9", "MLAUT9"), ("_", "")]
)
def test_labels_become_names_of_fields(name: str, key: str) -> None:
    assert journald.key_of(name) == key


def test_an_entry_has_the_fields_that_dockerd_gives_it() -> None:
    made = container(
        "web", identifier="ab" * 32,
        config=ContainerConfig(labels={"com.x": "1", "9z": "2"}, env=("X=a\nb",), image="i:1"),
        host=HostConfig(log_config=LogConfig(config={"labels": "com.x,9z", "env": "X"})),
    )  # fmt: skip
    sender = journald.sender(made, Terms())
    partial = Partial(id="p", ordinal=2, last=False)
    sender.message(Line(kind=StreamKind.STDOUT, text=b"", time_ns=0))
    entry = sender.message(Line(kind=StreamKind.STDERR, text=b"a\0=", time_ns=NOW, partial=partial))
    found = dict(fields_of(entry))
    assert len(found.pop(b"CONTAINER_LOG_EPOCH")) == 64
    assert found == {
        b"MESSAGE": b"a\0=", b"PRIORITY": b"3", b"CONTAINER_ID": b"abababababab",
        b"CONTAINER_ID_FULL": b"ab" * 32, b"CONTAINER_NAME": b"web", b"IMAGE_NAME": b"i:1",
        b"CONTAINER_TAG": b"abababababab", b"SYSLOG_IDENTIFIER": b"abababababab",
        b"COM_X": b"1", b"X": b"a\nb", b"CONTAINER_LOG_ORDINAL": b"2",
        b"SYSLOG_TIMESTAMP": b"2023-11-14T22:13:20.123456789Z", b"CONTAINER_PARTIAL_ID": b"p",
        b"CONTAINER_PARTIAL_ORDINAL": b"2", b"CONTAINER_PARTIAL_LAST": b"false",
        b"CONTAINER_PARTIAL_MESSAGE": b"true",
    }  # fmt: skip


async def test_a_long_entry_comes_in_a_sealed_file(tmp_path: Path) -> None:
    server = journal(tmp_path)
    long = "x" * (16 << 20)
    sender = journald.Sender({"A": "1", "LONG": long}, Terms(), tmp_path / "socket")
    await sender.connect()
    sender.put(Line(kind=StreamKind.STDOUT, text=b"hello", time_ns=0))
    found = dict(fields_of(receive(server)))
    assert (found[b"MESSAGE"], found[b"LONG"]) == (b"hello", long.encode())
    sender.close()
    server.close()


async def test_a_journal_that_is_not_there_is_told_of_in_dockers_words(tmp_path: Path) -> None:
    with pytest.raises(InternalError) as refused:
        await journald.Sender({}, Terms(), tmp_path / "socket").connect()
    assert refused.value.message == "journald is not enabled on this host"
