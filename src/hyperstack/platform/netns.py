"""Network namespaces that live as files (a bind mount of nsfs), like those of ip-netns(8).

A namespace belongs to a thread. Whatever must happen inside one happens in a short-lived thread
that enters it and is thrown away, so that no pooled thread ever ends up in a foreign namespace.
A socket stays in the namespace in which it was made: ``socket_in`` is all that most callers need.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hyperstack.errors import InternalError
from hyperstack.platform.threads import in_thread

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2

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
