"""User Mode Linux's management console: one datagram asks, one or more answer.

Documentation/virt/uml/user_mode_linux_howto_v2.rst, arch/um/include/shared/mconsole.h of Linux. The
kernel's socket lies in the jail; it answers to the sender's address, so ours is an abstract one
(unix(7), autobind) made in the machine's network namespace. The peer is hostile: a link in place of
the socket is not followed, and answers are bounded in count, length and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from pathlib import Path

from hyperstack.errors import GuestError
from hyperstack.platform import netns
from hyperstack.platform.process import ProcessHandle
from hyperstack.vmm.console import printable

MAGIC = 0xCAFEBABE
VERSION = 2
MAX_DATA = 512
MAX_REPLIES = 128
TIMEOUT = 5.0
"""Seconds for one command. All that are used here take a few milliseconds."""
UML_DIR = "uml"
_HEAD = struct.Struct("=III")


class ManagementConsole:
    """The management console of one machine. Commands are sent one after another."""

    def __init__(self, process: ProcessHandle, umid: str) -> None:
        self._process = process
        self._umid = umid
        self._busy = asyncio.Lock()

    async def command(self, text: str) -> str:
        """Send a command and return its answer. Raises GuestError, within TIMEOUT seconds."""
        data = text.encode()
        if len(data) >= MAX_DATA:
            raise GuestError("a command for the virtual machine's console is too long")
        verb = text.partition(" ")[0]
        if not self._process.alive():
            raise GuestError("the virtual machine has ended")
        try:
            async with self._busy, asyncio.timeout(TIMEOUT):
                with await asyncio.to_thread(self._connect) as sock:
                    return await _exchange(sock, data)
        except TimeoutError:
            raise GuestError(
                f"the virtual machine did not answer {verb!r} within {TIMEOUT:.0f} s"
            ) from None
        except OSError as error:
            raise GuestError(
                f"the virtual machine can't be told {verb!r}: {error.strerror or error}"
            ) from error

    def _connect(self) -> socket.socket:
        proc = Path(f"/proc/{self._process.pid}")
        root = os.open(proc / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Opened first, looked at then: the number is still that of our process.
            if not self._process.alive():
                raise ProcessLookupError(0, "it has ended")
            target = _walk(root, UML_DIR, self._umid, "mconsole")
        finally:
            os.close(root)
        try:
            if not stat.S_ISSOCK(os.fstat(target).st_mode):
                raise OSError(0, "its console is no socket")
            return netns.in_netns(proc / "ns" / "net", lambda: _bound_to(target))
        finally:
            os.close(target)


def _walk(root: int, *names: str) -> int:
    """Open a path beneath *root* without following any link; return an O_PATH descriptor."""
    at = os.dup(root)
    try:
        for name in names:
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
    except BaseException:
        os.close(at)
        raise
    return at


def _bound_to(target: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.bind("")
        sock.connect(f"/proc/self/fd/{target}")
    except BaseException:
        sock.close()
        raise
    return sock


async def _exchange(sock: socket.socket, data: bytes) -> str:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _HEAD.pack(MAGIC, VERSION, len(data)) + data)
    answer = bytearray()
    for _ in range(MAX_REPLIES):
        failed, more, part = parse_reply(await loop.sock_recv(sock, 2048))
        answer += part
        if not more:
            text = printable(bytes(answer)).strip()
            if failed:
                raise GuestError(f"the virtual machine refused: {text or 'no reason given'}")
            return text
    raise GuestError("the virtual machine's console does not stop answering")


def parse_reply(datagram: bytes) -> tuple[bool, bool, bytes]:
    """Return whether a reply tells an error, whether more follow, and its text.

    Raises GuestError for what is no reply.
    """
    with contextlib.suppress(struct.error):
        error, more, length = _HEAD.unpack_from(datagram)
        text = datagram[_HEAD.size : _HEAD.size + length]
        if length <= MAX_DATA and len(text) == length:
            return bool(error), bool(more), text.split(b"\0", 1)[0]
    raise GuestError("the virtual machine's console sent no proper answer")
