"""The agent's core as a program of the host: built with sanitizers, on a Unix socket."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient, InputStream, OutputStream
from hyperstack.guest.messages import EventKind, Op

NATIVE = Path(__file__).resolve().parents[3] / "native"
BUILD = NATIVE / "build"
BOUND = 30.0
"""Seconds for anything here; sanitizers make it slow."""


def build(target: str) -> Path:
    """Build one file of the agent and return its path. Raises AssertionError with make's words."""
    path = BUILD / target
    done = subprocess.run(
        ["make", "-C", NATIVE / "agent", f"BUILD={BUILD}", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return path


@dataclass
class Started:
    """A process that runs in the agent's care."""

    client: AgentClient
    handle: int
    pid: int

    @property
    def stdin_id(self) -> int:
        return self.handle * 4 + 1

    @property
    def stdout_id(self) -> int:
        return self.handle * 4 + 2

    @property
    def stderr_id(self) -> int:
        return self.handle * 4 + 3

    def stdin(self, client: AgentClient | None = None, start: int = 0) -> InputStream:
        return (client or self.client).open_input(self.stdin_id, start=start)

    def stdout(self, client: AgentClient | None = None, start: int = 0) -> OutputStream:
        return (client or self.client).open_output(self.stdout_id, start=start)

    def stderr(self) -> OutputStream:
        return self.client.open_output(self.stderr_id)


@dataclass
class RunningAgent:
    """The test program while it runs, and what it has said on its connections."""

    process: subprocess.Popen[bytes]
    path: Path
    root: Path
    exits: dict[int, messages.ProcessState] = field(default_factory=dict)
    events: list[tuple[EventKind, Any]] = field(default_factory=list)
    _handles: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def start(cls, binary: Path, folder: Path, *listen: Path) -> RunningAgent:
        """Start it in a folder. *listen*: where it offers a socket of the host to clients."""
        path, root = folder / "agent.sock", folder / "root"
        root.mkdir()
        process = subprocess.Popen([binary, path, root, *listen], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == messages.READY
        return cls(process, path, root)

    def raw(self) -> socket.socket:
        """Connect without a protocol."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(BOUND)
        sock.connect(os.fspath(self.path))
        return sock

    async def connect(self) -> AgentClient:
        sock = self.raw()
        sock.setblocking(False)
        client = await AgentClient.over(sock, greeting=BOUND)
        client.on_event = self._event
        return client

    def _event(self, kind: EventKind, message: Any) -> None:
        self.events.append((kind, message))
        if kind is EventKind.EXIT:
            self.exits[message.handle] = message

    async def run(
        self,
        client: AgentClient,
        *argv: str,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = False,
        tty: bool = False,
        init: bool = False,
    ) -> Started:
        handle = next(self._handles)
        process = messages.Process(
            handle=handle,
            argv=argv,
            tty=tty,
            stdin=handle * 4 + 1 if stdin else 0,
            stdout=handle * 4 + 2 if stdout else 0,
            stderr=handle * 4 + 3 if stderr else 0,
        )
        request: Any = messages.Exec(container="c", process=process)
        if init:
            request = messages.Container(id="c", process=process)
        op = Op.CONTAINER_START if init else Op.EXEC
        answer: messages.Started = await client.call(op, request)
        return Started(client, handle, answer.pid)

    async def exit_of(self, process: Started) -> messages.ProcessState:
        async with asyncio.timeout(BOUND):
            while process.handle not in self.exits:
                await asyncio.sleep(0.005)
        return self.exits[process.handle]

    async def finish(self) -> None:
        """End the agent as POWEROFF does. A sanitizer's complaint is its exit status."""
        if self.process.poll() is None:
            client = await self.connect()
            await client.call(Op.POWEROFF, messages.Empty())
            await client.close()
        assert await asyncio.to_thread(self.process.wait, BOUND) == 0

    def end(self) -> None:
        """Whatever has happened, leave nothing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(BOUND)
        if self.process.stdout is not None:
            self.process.stdout.close()


async def collect(stream: OutputStream, *, most: int | None = None) -> bytes:
    """Take a stream's bytes to its end, or until *most* have come."""
    data = bytearray()
    async with asyncio.timeout(BOUND):
        async for offset, piece in stream:
            data += piece
            stream.take(offset + len(piece))
            if most is not None and len(data) >= most:
                break
    return bytes(data)
