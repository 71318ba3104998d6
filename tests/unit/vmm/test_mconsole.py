"""The management console's datagrams, with a peer that does what it likes."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import GuestError
from hyperstack.vmm.uml.mconsole import MAGIC, _exchange, _walk, parse_reply


async def _ask(command: bytes, replies: list[bytes]) -> tuple[str, bytes]:
    """Send a command to a peer that answers with *replies*; return answer and question."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        for reply in replies:
            theirs.send(reply)
        answer = await _exchange(ours, command)
        return answer, theirs.recv(4096)


def _reply(text: bytes, error: int = 0, more: int = 0, length: int | None = None) -> bytes:
    return struct.pack("=III", error, more, len(text) if length is None else length) + text


async def test_a_command_goes_out_with_magic_version_and_length() -> None:
    answer, question = await _ask(b"version", [_reply(b"Linux 7.2\n\0")])
    assert question == struct.pack("=III", MAGIC, 2, 7) + b"version"
    assert answer == "Linux 7.2"


async def test_an_answer_in_parts_is_put_together() -> None:
    parts = [_reply(b"one ", more=1), _reply(b"two ", more=1), _reply(b"three")]
    answer, _ = await _ask(b"proc meminfo", parts)
    assert answer == "one two three"


async def test_a_refusal_carries_the_kernels_words_without_control_characters() -> None:
    with pytest.raises(GuestError, match=r"^the virtual machine refused: No such device$"):
        await _ask(b"remove ubd9", [_reply(b"\x1b[2JNo such device\0x", error=1)])


async def test_an_answer_without_end_is_given_up() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)

        async def flood() -> None:
            loop = asyncio.get_running_loop()
            while True:
                await loop.sock_sendall(theirs, _reply(b"x" * 512, more=1))

        task = asyncio.create_task(flood())
        with pytest.raises(GuestError, match="does not stop answering"):
            await asyncio.wait_for(_exchange(ours, b"help"), 5)
        task.cancel()


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"short",
        _reply(b"", length=1),
        _reply(b"abc", length=4),
        _reply(b"x" * 600),
        _reply(b"", length=0xFFFFFFFF),
    ],
)
def test_what_is_no_reply_is_refused(datagram: bytes) -> None:
    with pytest.raises(GuestError, match="no proper answer"):
        parse_reply(datagram)


@given(st.binary(max_size=1024))
def test_any_datagram_is_a_reply_or_a_guest_error(datagram: bytes) -> None:
    try:
        _, _, text = parse_reply(datagram)
    except GuestError:
        return
    assert len(text) <= 512


def test_no_link_is_followed_on_the_way_to_the_socket(tmp_path: Path) -> None:
    (tmp_path / "uml" / "real").mkdir(parents=True)
    (tmp_path / "uml" / "real" / "mconsole").touch()
    (tmp_path / "uml" / "fake").symlink_to("real")
    (tmp_path / "uml" / "real" / "link").symlink_to("mconsole")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        os.close(_walk(root, "uml", "real", "mconsole"))
        with pytest.raises(OSError):
            _walk(root, "uml", "fake", "mconsole")
        fd = _walk(root, "uml", "real", "link")
        assert os.readlink("", dir_fd=fd) == "mconsole"  # the link itself, which is no socket
        os.close(fd)
    finally:
        os.close(root)
