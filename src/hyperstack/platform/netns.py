"""Network namespaces that live as files (a bind mount of nsfs), like those of ip-netns(8).

A namespace belongs to a thread. Whatever must happen inside one happens in a short-lived thread
that enters it and is thrown away, so that no pooled thread ever ends up in a foreign namespace.
A socket stays in the namespace in which it was made: ``socket_in`` is all that most callers need.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from hyperstack.errors import InternalError
from hyperstack.platform.threads import in_thread

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2
_SIOCSIFFLAGS, _SIOCSIFADDR, _IFF_UP = 0x8914, 0x8916, 1
_IFREQ_FLAGS, _IFREQ_ADDRESS = struct.Struct("16sh22x"), struct.Struct("16sHH4s16x")
"""A struct ifreq with flags, and with an IPv4 address (netdevice(7))."""

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def create(path: Path) -> None:
    """Make a new network namespace that lives as *path*; blocking.

    Raises InternalError if the path exists or the kernel refuses.
    """

    def work() -> None:
        _call("unshare", CLONE_NEWNET)
        _call("mount", b"/proc/thread-self/ns/net", os.fsencode(path), None, MS_BIND, None)

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o710)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
        try:
            in_thread(work)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InternalError(f"a network namespace can't be made: {error.strerror}") from error


@contextlib.contextmanager
def passing() -> Iterator[Path]:
    """Make a namespace with loopback up that nothing but this process keeps; blocking, brief.

    It has no name that a killed daemon would leave; its path counts while the block runs, for this
    process's children too. Raises InternalError if the kernel refuses.
    """

    def work() -> int:
        _call("unshare", CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(b"lo", _IFF_UP))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    try:
        fd = in_thread(work)
    except OSError as error:
        raise InternalError(f"a network namespace can't be made: {error.strerror}") from error
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{fd}")
    finally:
        os.close(fd)


def add_to_loopback(address: str) -> None:
    """Make an IPv4 address loopback's in the caller's namespace. Raises OSError."""
    request = _IFREQ_ADDRESS.pack(b"lo:1", socket.AF_INET, 0, socket.inet_aton(address))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFADDR, request)


def restore(path: Path, pid: int) -> bool:
    """Let the namespace that process *pid* is in live as *path* again, if that is gone; blocking.

    Tells whether it had to. Raises InternalError if the process is gone or the kernel refuses.
    """
    own = Path(f"/proc/{pid}/ns/net")
    try:
        if path.exists() and path.stat().st_ino == own.stat().st_ino:
            return False
        delete(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o710)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
        try:
            _call("mount", os.fsencode(own), os.fsencode(path), None, MS_BIND, None)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InternalError(
            f"network namespace {path.name} can't be had again: {error.strerror}"
        ) from error
    return True


def delete(path: Path) -> None:
    """Let go of a namespace; it ends when nobody uses it. Nothing happens if it isn't there."""
    try:
        _call("umount2", os.fsencode(path), MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise InternalError(f"namespace {path.name} can't be removed: {error}") from error
    path.unlink(missing_ok=True)


def in_netns(path: Path, work: Callable[[], T]) -> T:
    """Run *work* inside the namespace that lives as *path*; blocking.

    Raises InternalError if there is no such namespace, and whatever *work* raises.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InternalError(f"network namespace {path.name} is gone: {error.strerror}") from error

    def inside() -> T:
        _call("setns", fd, CLONE_NEWNET)
        return work()

    try:
        return in_thread(inside)
    finally:
        os.close(fd)


def socket_in(path: Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Make a socket inside the namespace that lives as *path*. Raises InternalError."""
    try:
        return in_netns(path, lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))
    except OSError as error:
        raise InternalError(f"a socket can't be made: {error.strerror or error}") from error
