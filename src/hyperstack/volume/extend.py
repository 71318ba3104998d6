"""More mounts for a share that is served already, and fewer.

virtiofsd serves a folder of its jail. What is to be added is taken as a detached mount from the
host's tree (open_tree(2)), gets the attributes that the jail gives its binds (``native/jail``), and
is put into that folder from inside virtiofsd's mount namespace, in a thread that ends with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hyperstack.errors import InternalError
from hyperstack.platform.process import open_process
from hyperstack.platform.threads import in_thread
from hyperstack.volume.shown import ROOT, ShareMount
from hyperstack.volume.sources import open_beneath

SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
"""The same numbers on every architecture (asm-generic/unistd.h)."""
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 1, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
MS_PRIVATE = 1 << 18
CLONE_FS, CLONE_NEWNS = 0x200, 0x20000
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    """``struct mount_attr`` of mount_setattr(2)."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def add(pid: int, started: int, mounts: Sequence[ShareMount]) -> None:
    """Let the virtiofsd of this pid and start time serve *mounts* as well; blocking.

    Raises InternalError if it is gone or the kernel refuses; none of them is served then.
    """
    if not mounts:
        return
    trees: list[tuple[ShareMount, int]] = []

    def work() -> None:
        done: list[str] = []
        try:
            for mount, tree in trees:
                done.append(mount.name)
                _attach(mount.name, tree)
        except BaseException:
            _drop(done)
            raise

    try:
        for mount in mounts:
            trees.append((mount, _detached(mount)))
        _inside(pid, started, work)
    except OSError as error:
        raise InternalError(f"the share can't be extended: {error.strerror}") from error
    finally:
        for _, tree in trees:
            os.close(tree)


def remove(pid: int, started: int, names: Iterable[str]) -> None:
    """Serve these mounts no more; blocking. Raises InternalError if virtiofsd is gone."""
    try:
        _inside(pid, started, lambda: _drop(names))
    except OSError as error:
        raise InternalError(f"the share can't be reduced: {error.strerror}") from error


def _detached(mount: ShareMount) -> int:
    below = AT_RECURSIVE if mount.recursive else 0
    tree = _cloned(mount, below)
    try:
        _set(tree, below, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, propagation=MS_PRIVATE)
        if mount.read_only:
            _set(tree, below if mount.read_only_below else 0, MOUNT_ATTR_RDONLY)
    except OSError:
        os.close(tree)
        raise
    return tree


def _cloned(mount: ShareMount, below: int) -> int:
    flags = OPEN_TREE_CLONE | below | os.O_CLOEXEC
    if mount.beneath is None:
        arguments = (AT_FDCWD, os.fsencode(mount.source), flags)
        return _checked(_libc.syscall(SYS_OPEN_TREE, *arguments), str(mount.source))
    at = open_beneath(mount.beneath, mount.source)
    try:
        arguments = (at, b"", flags | AT_EMPTY_PATH)
        return _checked(_libc.syscall(SYS_OPEN_TREE, *arguments), str(mount.source))
    finally:
        os.close(at)


def _set(tree: int, below: int, wanted: int, propagation: int = 0) -> None:
    attributes = _Attributes(set=wanted, propagation=propagation)
    size = ctypes.sizeof(attributes)
    arguments = (tree, b"", AT_EMPTY_PATH | below, ctypes.byref(attributes), size)
    _checked(_libc.syscall(SYS_MOUNT_SETATTR, *arguments), "mount_setattr")


def _inside(pid: int, started: int, work: Callable[[], None]) -> None:
    process = open_process(pid, started)
    if process is None:
        raise OSError(errno.ESRCH, "the server of its volumes is gone")

    def body() -> None:
        # A thread shares root and working directory with the others, and may not move alone.
        _checked(_libc.unshare(CLONE_FS), "unshare")
        _checked(_libc.setns(process.pidfd, CLONE_NEWNS), "setns")
        work()

    try:
        in_thread(body)
    finally:
        process.close()


def _attach(name: str, tree: int) -> None:
    target = Path(ROOT, name)
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        target.mkdir(0o755)
    else:
        target.touch(0o644, exist_ok=False)
    arguments = (tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    _checked(_libc.syscall(SYS_MOVE_MOUNT, *arguments), str(target))


def _drop(names: Iterable[str]) -> None:
    for name in names:
        target = Path(ROOT, name)
        _libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW)
        try:
            target.rmdir()
        except NotADirectoryError:
            target.unlink()
        except FileNotFoundError:
            continue
