"""Unix sockets of the host that containers have as bind mounts (``-v /var/run/docker.sock:...``).

A file system that is served to a guest carries no connections, so the agent listens at the place in
the container and each connection travels over its channel as two streams (docs/agent-protocol.md,
"Sockets"). Here is the host's end: only sockets that the API client named as binds, found when the
container starts as the kernel finds a bind's source, remembered in the sandbox's row, and connected
to by that path without following any link, since a guest may be able to write to folders on its
way. Descriptors and credentials do not travel.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from hyperstack.engine.sandbox import Sandbox
from hyperstack.errors import GuestError, HyperError
from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient, InputStream, OutputStream
from hyperstack.guest.messages import MountKind, Op
from hyperstack.platform.tasks import Tasks

log = logging.getLogger(__name__)

SINCE = 2
"""Version of the protocol that brought sockets."""
MOST = 256
"""Connections of one sandbox at once; its agent allows half of it."""
WINDOW = 128 << 10
"""Bytes on their way from a container to a socket."""
PIECE = 64 << 10
MOST_HANDLES = (1 << 30) - 1
"""Streams are four times a handle, in 32 bits: a guest in a loop gets there in a week or two."""
BUSY = 30.0
"""Seconds for a server with a full queue to take a connection."""
PAUSE = 0.02
DRAIN = 2.0
"""Seconds for what a container sent last to reach the host, after its end."""


@dataclass(frozen=True, kw_only=True)
class HostSocket:
    """A socket on the host: its path without links, and who may connect."""

    path: str
    mode: int
    uid: int
    gid: int


def find(source: Path) -> HostSocket | None:
    """Return the socket that a bind's source is, or None if it is anything else; blocking."""
    try:
        found = source.stat()
        if not stat.S_ISSOCK(found.st_mode):
            return None
        path = os.path.realpath(source, strict=True)
    except OSError:
        return None  # what is wrong with it is said where it is mounted
    return HostSocket(
        path=path, mode=stat.S_IMODE(found.st_mode), uid=found.st_uid, gid=found.st_gid
    )


def mount(end: HostSocket, name: str, target: str, flags: int) -> messages.Mount:
    """Say to the agent where to listen for *end*, which it knows as *name*."""
    return messages.Mount(
        kind=MountKind.SOCKET,
        target=target,
        source=name,
        flags=flags,
        mode=end.mode,
        uid=end.uid,
        gid=end.gid,
    )


def opened(tasks: Tasks, sandbox: Sandbox, event: messages.SocketOpen) -> None:
    """Carry a new connection of a guest, if it may have it. Never raises for what it says."""
    if len(sandbox.carried) >= MOST or sandbox.agent is None:
        return  # the agent gives up by itself
    task = tasks.start("socket", _serve(sandbox, sandbox.agent, event))
    sandbox.carried.add(task)
    task.add_done_callback(sandbox.carried.discard)


async def drained(sandbox: Sandbox) -> None:
    """Wait, not for long, until the connections of a container that has ended are over."""
    if sandbox.carried:
        await asyncio.wait(set(sandbox.carried), timeout=DRAIN)


async def _serve(sandbox: Sandbox, agent: AgentClient, event: messages.SocketOpen) -> None:
    path = sandbox.row.sockets.get(event.source)
    try:
        if path is None or event.container not in sandbox.row.containers:
            raise PermissionError(errno.EACCES, "the guest asks for a socket that it was not given")
        sock = await connect(path)
    except OSError as error:
        # The guest decides how often: not a word more than whoever looks for it wants.
        log.debug("sandbox %s: socket %s: %s", sandbox.id[:12], path, error.strerror)
        await _refuse(agent, event.connection, error.errno or errno.EIO)
        return
    with sock:
        try:
            await _carry(sandbox, agent, event.connection, sock)
        except HyperError as error:
            log.debug("a connection to %s ended: %s", path, error)


async def _refuse(agent: AgentClient, connection: int, code: int) -> None:
    answer = messages.SocketAnswer(connection=connection, error=code)
    try:
        await agent.call(Op.SOCKET_ANSWER, answer, timeout=5.0)
    except HyperError:
        return  # the guest is gone, or nobody waits there any more


async def connect(path: str) -> socket.socket:
    """Connect to the socket at *path*, on whose way no link may be. Raises OSError."""
    end = asyncio.get_running_loop().time() + BUSY
    while True:
        sock = await asyncio.to_thread(_try, path)
        if sock is not None:
            return sock
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        await asyncio.sleep(PAUSE)


def _try(path: str) -> socket.socket | None:
    """Connect, or return None if the server's queue is full: the kernel would make us wait."""
    place = _open(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # By the descriptor: no name is looked up again, and none is too long.
        sock.connect(f"/proc/self/fd/{place}")
    except BlockingIOError:
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(place)
    return sock


def _open(path: str) -> int:
    """Return an O_PATH descriptor of the socket at *path*, in which nothing may be a link."""
    place = os.open("/", os.O_PATH | os.O_CLOEXEC)
    for name in Path(path).parts[1:]:
        try:
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
        finally:
            os.close(place)
        place = below
    if not stat.S_ISSOCK(os.fstat(place).st_mode):
        os.close(place)
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    return place


async def _carry(
    sandbox: Sandbox, agent: AgentClient, connection: int, sock: socket.socket
) -> None:
    handle = sandbox.next_handle()
    if handle > MOST_HANDLES:
        raise GuestError("a guest has opened more connections than can be counted")
    output = agent.open_output(handle * 4 + 2, window=WINDOW)
    sink = agent.open_input(handle * 4 + 1)
    answer = messages.SocketAnswer(connection=connection, output=output.id, input=sink.id)
    try:
        await agent.call(Op.SOCKET_ANSWER, answer, timeout=20.0)
    except BaseException:
        output.reset()
        sink.reset()
        raise
    up = asyncio.create_task(_to_host(output, sock), name="to a socket")
    down = asyncio.create_task(_to_guest(sock, sink, output), name="from a socket")
    over = asyncio.create_task(sink.wait_over(), name="end of a socket")
    over.add_done_callback(lambda _: down.cancel())
    try:
        await asyncio.wait({up, down})
    finally:
        for task in (up, down, over):
            task.cancel()
        await asyncio.wait({up, down, over})


async def _to_host(output: OutputStream, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        async for offset, data in output:
            await loop.sock_sendall(sock, data)
            output.take(offset + len(data))
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        output.reset(errno.EPIPE)  # the host reads no more
    except GuestError:
        _shut(sock, socket.SHUT_RDWR)  # nothing more comes, and nobody is there to take anything


async def _to_guest(sock: socket.socket, sink: InputStream, output: OutputStream) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(sock, PIECE):
            await sink.write(data)
        await sink.eof()
    except OSError:
        sink.reset(errno.ECONNRESET)
    except GuestError:
        _shut(sock, socket.SHUT_RDWR)
        return
    if _hung_up(sock):
        output.reset(errno.EPIPE)  # not the half of it: nobody is there to send to


def _shut(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        return  # it is over already


def _hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
