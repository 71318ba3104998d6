"""QEMU's monitor protocol: lines of JSON over a unix socket (docs/interop/qmp-spec of QEMU).

``Conversation`` is the protocol without any I/O; ``connect`` carries it over a socket. The peer is
hostile, since a guest that has taken over its VMM speaks here: lines, their number and their
depth are bounded, nothing is believed but that a command of ours succeeded or failed, and whoever
asks sets a bound on time. A conversation lasts for one operation: a daemon that was killed leaves
nothing behind, and its successor connects as it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import msgspec

from hyperstack.errors import GuestError
from hyperstack.vmm.console import printable

MAX_LINE = 64 << 10
MAX_MESSAGES = 512
"""Messages that one conversation may have, most of which are events that nobody waits for."""
MAX_EVENTS = 64
MAX_WORDS = 400
"""Characters of an error's description that are shown."""
READ = 16 << 10


class State(Enum):
    """Where a conversation is."""

    GREETING = auto()
    """Nothing has come yet."""
    READY = auto()
    """Commands may be sent."""
    OVER = auto()
    """The peer has broken the protocol."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one command: its value, or the sentence of its failure."""

    number: int
    value: Any = None
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in the machine."""

    name: str
    data: dict[str, Any]


class _Message(msgspec.Struct, rename={"greeting": "QMP", "returned": "return"}):
    greeting: dict[str, Any] | None = None
    returned: Any = msgspec.UNSET
    error: dict[str, Any] | None = None
    event: str | None = None
    data: dict[str, Any] = {}
    id: int | None = None


class Conversation:
    """The protocol's state: bytes in, answers and events out. Raises GuestError for a bad peer."""

    def __init__(self) -> None:
        self.state = State.GREETING
        self._pending = bytearray()
        self._messages = 0
        self._decoder = msgspec.json.Decoder(_Message)

    def command(self, number: int, name: str, arguments: dict[str, Any]) -> bytes:
        """Return the bytes of a command; its answer carries *number*."""
        if self.state != State.READY:
            raise GuestError("the virtual machine's monitor is not ready")
        body: dict[str, Any] = {"execute": name, "id": number}
        if arguments:
            body["arguments"] = arguments
        return msgspec.json.encode(body) + b"\n"

    def receive(self, data: bytes) -> list[Answer | Event]:
        """Take bytes and return what they complete."""
        self._pending += data
        found: list[Answer | Event] = []
        while (end := self._pending.find(b"\n")) >= 0:
            line = bytes(self._pending[:end])
            del self._pending[: end + 1]
            self._bound(len(line) <= MAX_LINE)
            if line.strip() and (message := self._message(line)) is not None:
                found.append(message)
        self._bound(len(self._pending) <= MAX_LINE)
        return found

    def _bound(self, kept: bool) -> None:
        if not kept:
            raise self._bad("says too much")

    def _bad(self, what: str) -> GuestError:
        self.state = State.OVER
        return GuestError(f"the virtual machine's monitor {what}")

    def _message(self, line: bytes) -> Answer | Event | None:
        self._messages += 1
        self._bound(self._messages <= MAX_MESSAGES)
        try:
            message = self._decoder.decode(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise self._bad("does not speak its protocol") from error
        if self.state == State.GREETING:
            if message.greeting is None:
                raise self._bad("does not speak its protocol")
            self.state = State.READY
            return None
        if message.event is not None:
            return Event(name=message.event, data=message.data)
        if message.error is not None:
            words = printable(str(message.error.get("desc", "")).encode(errors="replace"))
            failure = words.strip()[:MAX_WORDS] or "no reason given"
            return Answer(number=self._id(message), failure=failure)
        if message.returned is not msgspec.UNSET:
            return Answer(number=self._id(message), value=message.returned)
        raise self._bad("does not speak its protocol")

    def _id(self, message: _Message) -> int:
        if message.id is None:
            raise self._bad("does not speak its protocol")
        return message.id


class Monitor:
    """A conversation over a connected socket; one command at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._conversation = Conversation()
        self._number = 0
        self._answers: deque[Answer] = deque()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)

    async def greet(self) -> None:
        """Wait for the greeting and leave the state in which nothing may be asked."""
        while self._conversation.state == State.GREETING:
            await self._read()
        await self.execute("qmp_capabilities")

    async def execute(self, command: str, **arguments: object) -> Any:
        """Send a command and return its value. Raises GuestError if it is refused.

        Underscores in the names of arguments stand for hyphens.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return await self.send(command, named)

    async def send(self, command: str, arguments: dict[str, Any]) -> Any:
        """Do what ``execute`` does, with arguments whose names are taken as they are."""
        self._number += 1
        data = self._conversation.command(self._number, command, arguments)
        await asyncio.get_running_loop().sock_sendall(self._sock, data)
        answer = await self._answer()
        if answer.failure is not None:
            raise GuestError(f"the virtual machine refused {command!r}: {answer.failure}")
        return answer.value

    async def _answer(self) -> Answer:
        """Return the answer to the last command. One that was given up has its own before that."""
        while True:
            while self._answers:
                answer = self._answers.popleft()
                if answer.number == self._number:
                    return answer
                if not 0 < answer.number < self._number:
                    raise GuestError("the virtual machine's monitor answers what it was not asked")
            await self._read()

    async def event(self, wanted: Callable[[Event], bool]) -> Event:
        """Return the first event, of those not yet looked at, that is wanted."""
        while True:
            while self._events:
                if wanted(event := self._events.popleft()):
                    return event
            await self._read()

    async def _read(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._sock, READ)
        if not data:
            raise GuestError("the virtual machine's monitor has closed the connection")
        for message in self._conversation.receive(data):
            if isinstance(message, Answer):
                self._answers.append(message)
            else:
                self._events.append(message)


def listen(path: Path) -> socket.socket:
    """Make the listening socket of a machine's monitor, for root alone. Raises GuestError."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with _short(path) as name:
            made.bind(name)
        path.chmod(0o600)
        made.listen(1)
    except OSError as error:
        made.close()
        raise GuestError(
            f"the virtual machine's monitor can't be made: {error.strerror}"
        ) from error
    return made


@contextlib.asynccontextmanager
async def connect(path: Path) -> AsyncIterator[Monitor]:
    """Give a monitor that takes commands. Raises GuestError; the caller bounds the time."""
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    )
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(0, "its socket is none")
        with _short(path) as name:
            await asyncio.get_running_loop().sock_connect(sock, name)
        monitor = Monitor(sock)
        await monitor.greet()
        yield monitor
    except OSError as error:
        raise GuestError(
            f"the virtual machine's monitor can't be reached: {error.strerror or error}"
        ) from error
    finally:
        sock.close()


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name for *path* that fits into a socket's address, however deep it lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
