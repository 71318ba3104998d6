"""The monitor's protocol: what a good peer says, and that a bad one gets nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import GuestError
from hyperstack.vmm.qemu import qmp
from hyperstack.vmm.qemu.qmp import Answer, Conversation, Event, State

GREETING = b'{"QMP": {"version": {"qemu": {"major": 11}}, "capabilities": ["oob"]}}\r\n'


def _ready() -> Conversation:
    conversation = Conversation()
    assert conversation.receive(GREETING) == []
    assert conversation.state == State.READY
    return conversation


def test_nothing_is_asked_before_the_greeting() -> None:
    with pytest.raises(GuestError, match="not ready"):
        Conversation().command(1, "stop", {})


def test_a_command_is_one_line_with_its_number() -> None:
    data = _ready().command(7, "device_add", {"id": "a\nb"})
    assert data.count(b"\n") == 1
    assert json.loads(data) == {"execute": "device_add", "id": 7, "arguments": {"id": "a\nb"}}
    assert json.loads(_ready().command(8, "stop", {})) == {"execute": "stop", "id": 8}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"return": {}, "id": 1}', Answer(number=1, value={})),
        (b'{"return": null, "id": 1}', Answer(number=1, value=None)),
        (b'{"return": {"actual": 5}, "id": 2, "more": []}', Answer(number=2, value={"actual": 5})),
        (
            b'{"id": 3, "error": {"class": "GenericError", "desc": "no bus"}}',
            Answer(number=3, failure="no bus"),
        ),
        (
            b'{"id": 3, "error": {"desc": "\\u001b[31mred\\u001b[0m"}}',
            Answer(number=3, failure="red"),
        ),
        (b'{"id": 3, "error": {}}', Answer(number=3, failure="no reason given")),
        (
            b'{"event": "DEVICE_DELETED", "data": {"device": "x"}, "timestamp": {}}',
            Event(name="DEVICE_DELETED", data={"device": "x"}),
        ),
        (b'{"event": "STOP", "timestamp": {}}', Event(name="STOP", data={})),
    ],
)
def test_what_a_good_peer_says_is_understood(line: bytes, expected: Answer | Event) -> None:
    assert _ready().receive(line + b"\r\n") == [expected]


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[]",
        b"null",
        b"{}",
        b'{"return": {}}',
        b'{"return": {}, "id": "1"}',
        b'{"return": {}, "id": 1.5}',
        b'{"error": "words", "id": 1}',
        b'{"event": 1}',
        b'{"event": "X", "data": []}',
        b'{"return": "\xff", "id": 1}',
    ],
)
def test_what_is_no_message_ends_the_conversation(line: bytes) -> None:
    conversation = _ready()
    with pytest.raises(GuestError, match="does not speak its protocol"):
        conversation.receive(line + b"\n")
    assert conversation.state == State.OVER
    with pytest.raises(GuestError):
        conversation.command(1, "stop", {})


def test_an_answer_of_any_depth_is_an_answer_or_none() -> None:
    # How deep a parser may go is the Python version's to say.
    line = b'{"return": ' + b"[" * 20_000 + b"]" * 20_000 + b', "id": 1}'
    conversation = _ready()
    with contextlib.suppress(GuestError):
        assert len(conversation.receive(line + b"\n")) == 1


def test_a_peer_that_does_not_greet_is_none() -> None:
    with pytest.raises(GuestError, match="does not speak its protocol"):
        Conversation().receive(b'{"return": {}, "id": 1}\n')


def test_a_line_without_end_is_not_kept() -> None:
    conversation = _ready()
    conversation.receive(b"x" * qmp.MAX_LINE)
    with pytest.raises(GuestError, match="says too much"):
        conversation.receive(b"x")


def test_events_without_end_are_not_read() -> None:
    conversation = _ready()
    with pytest.raises(GuestError, match="says too much"):
        conversation.receive(b'{"event": "STOP"}\n' * (qmp.MAX_MESSAGES + 1))


@given(st.lists(st.binary(max_size=40), max_size=30), st.booleans())
def test_any_bytes_give_messages_or_a_guest_error(parts: list[bytes], greeted: bool) -> None:
    conversation = _ready() if greeted else Conversation()
    try:
        for part in parts:
            conversation.receive(part)
    except GuestError:
        assert conversation.state == State.OVER


@given(st.lists(st.integers(min_value=1, max_value=9), max_size=60))
def test_how_the_bytes_are_cut_makes_no_difference(cuts: list[int]) -> None:
    data = GREETING + b'{"event": "RESUME"}\n\n{"return": {"a": [1]}, "id": 5}\n'
    found: list[Answer | Event] = []
    conversation = Conversation()
    for cut in cuts:
        found += conversation.receive(data[:cut])
        data = data[cut:]
    found += conversation.receive(data)
    assert found == [Event(name="RESUME", data={}), Answer(number=5, value={"a": [1]})]


# Over a socket, with a peer that says what a test wants it to say.

Talk = Callable[[dict[str, Any]], list[bytes]]


async def _serve(listener: socket.socket, talk: Talk) -> None:
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listener)
    with sock:
        await loop.sock_sendall(sock, GREETING)
        pending = b""
        while data := await loop.sock_recv(sock, 4096):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                for answer in talk(json.loads(line)):
                    await loop.sock_sendall(sock, answer)


@asynccontextmanager
async def _peer(folder: Path, talk: Talk) -> AsyncIterator[Path]:
    path = folder / ("a-folder-with-a-long-name" * 6) / "qmp"
    path.parent.mkdir(parents=True)
    with qmp.listen(path) as listener:
        listener.setblocking(False)
        serving = asyncio.create_task(_serve(listener, talk))
        try:
            yield path
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _fine(request: dict[str, Any]) -> list[bytes]:
    return [b'{"return": {"did": "%s"}, "id": %d}\n' % (request["execute"].encode(), request["id"])]


async def test_a_command_gets_its_own_answer(tmp_path: Path) -> None:
    async with _peer(tmp_path, _fine) as path, qmp.connect(path) as monitor:
        assert await monitor.execute("stop") == {"did": "stop"}
        assert await monitor.send("cont", {}) == {"did": "cont"}
    assert (path.stat().st_mode & 0o777) == 0o600


async def test_a_refusal_is_told_with_its_reason(tmp_path: Path) -> None:
    def talk(request: dict[str, Any]) -> list[bytes]:
        if request["execute"] == "qmp_capabilities":
            return _fine(request)
        return [b'{"error": {"desc": "Bus not found"}, "id": %d}\n' % request["id"]]

    async with _peer(tmp_path, talk) as path, qmp.connect(path) as monitor:
        with pytest.raises(GuestError, match="refused 'device_add': Bus not found"):
            await monitor.execute("device_add", id="x")


async def test_an_answer_to_another_question_is_refused(tmp_path: Path) -> None:
    async with _peer(tmp_path, lambda r: [b'{"return": {}, "id": 99}\n']) as path:
        with pytest.raises(GuestError, match="answers what it was not asked"):
            async with qmp.connect(path):
                pass


async def test_the_answer_to_a_command_that_was_given_up_is_not_taken_for_the_next(
    tmp_path: Path,
) -> None:
    slow = asyncio.Event()
    asked: list[dict[str, Any]] = []

    def talk(request: dict[str, Any]) -> list[bytes]:
        asked.append(request)
        if request["execute"] == "stop":
            slow.set()
            return []
        return [answer for request in asked for answer in _fine(request)][-2:]

    async with _peer(tmp_path, talk) as path, qmp.connect(path) as monitor:
        given_up = asyncio.create_task(monitor.execute("stop"))
        await slow.wait()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert await monitor.execute("cont") == {"did": "cont"}


async def test_an_event_is_found_whether_it_came_before_or_comes_later(tmp_path: Path) -> None:
    def talk(request: dict[str, Any]) -> list[bytes]:
        event = b'{"event": "%s"}\n' % request["execute"].encode()
        return [event, *_fine(request), b'{"event": "LATE"}\n']

    async with _peer(tmp_path, talk) as path, qmp.connect(path) as monitor:
        await monitor.execute("stop")
        assert (await monitor.event(lambda e: e.name == "stop")).name == "stop"
        assert (await monitor.event(lambda e: e.name == "LATE")).name == "LATE"


async def test_a_peer_that_hangs_up_is_told(tmp_path: Path) -> None:
    def hang_up(request: dict[str, Any]) -> list[bytes]:
        raise EOFError

    async with _peer(tmp_path, hang_up) as path:
        with pytest.raises(GuestError, match="closed the connection"):
            async with qmp.connect(path):
                pass


async def test_what_is_no_socket_or_not_there_is_not_spoken_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "qmp")
    qmp.listen(tmp_path / "qmp").close()
    for name in ("file", "link", "none", "qmp"):
        with pytest.raises(GuestError, match="can't be reached"):
            async with qmp.connect(tmp_path / name):
                pass


def test_a_new_socket_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    qmp.listen(tmp_path / "qmp").close()
    with qmp.listen(tmp_path / "qmp") as again, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "qmp"))
        assert again.getsockname()
