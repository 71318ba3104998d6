"""Volumes that the host mounts: binds, tmpfs and network file systems given by a volume's options.

Like dockerd, the daemon mounts one when the first container that has it starts, at the volume's
``_data``, and unmounts it when the last one has ended: all containers see the same file system. A
sandbox's virtiofsd keeps what it serves, whatever becomes of the mount here. After a daemon's death
mounts stay with the containers that run; the next daemon takes them up and unmounts the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from hyperstack.errors import InternalError
from hyperstack.volume.options import MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT, SHARES, HostMount

T = TypeVar("T")

log = logging.getLogger(__name__)

BOUND = 60.0
"""Seconds that a server has to answer a mount."""
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class HostMounts:
    """Which volumes are mounted on the host, and for which containers."""

    def __init__(self) -> None:
        self._holders: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def hold(self, name: str, holder: str, mount: HostMount, target: Path) -> None:
        """Have volume *name* mounted at *target* for container *holder*. Raises HyperError."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._holders and not await asyncio.to_thread(_is_mounted, target):
                await _mount(mount, target)
            self._holders.setdefault(name, set()).add(holder)

    def take_up(self, name: str, holder: str) -> None:
        """Know of a container of an earlier daemon that runs with the volume mounted."""
        self._holders.setdefault(name, set()).add(holder)

    async def release(self, name: str, holder: str, target: Path) -> None:
        """Container *holder* has ended; unmount the volume if it was the last."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            holders = self._holders.get(name)
            if holders is None or holder not in holders:
                return
            holders.discard(holder)
            if not holders:
                del self._holders[name]
                await asyncio.to_thread(unmount, target)

    async def sweep(self, targets: Iterable[tuple[str, Path]]) -> None:
        """Unmount the volumes, given by name and path, that no container holds."""
        for name, target in targets:
            if name not in self._holders:
                await asyncio.to_thread(unmount, target)


async def _mount(mount: HostMount, target: Path) -> None:
    failed = f"error while mounting volume '{target}': "
    if not mount.device:
        raise InternalError(f"{failed}missing device in volume options")
    if server := mount.server:
        try:
            mount = mount.at(await _in_thread(lambda: _address(server)))
        except (OSError, TimeoutError) as error:
            raise InternalError(
                f"{failed}error resolving passed in network volume address: lookup {server}: "
                f"{error.strerror if isinstance(error, OSError) else 'timed out'}"
            ) from error
    try:
        # What is missing is said first, and whatever lies in a path may be on a silent server, too.
        if mount.device.startswith("/") and mount.type not in SHARES:
            await _in_thread(Path(mount.device).stat)
        mount.check_diskless()
        await _in_thread(lambda: _mount_now(mount, target), lambda: unmount(target))
    except TimeoutError as error:
        told = mount.told(str(target), f"no answer within {BOUND:.0f} s")
        raise InternalError(f"{failed}failed to mount local volume: {told}") from error
    except OSError as error:
        told = mount.told(str(target), os.strerror(error.errno or 0).lower())
        raise InternalError(f"{failed}failed to mount local volume: {told}") from error


def _address(server: str) -> str:
    """Look up a server's address, that of version 4 if it has one; blocking. Raises OSError."""
    found = socket.getaddrinfo(server, None, type=socket.SOCK_STREAM)
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    return str(found[0][4][0])


def _mount_now(mount: HostMount, target: Path) -> None:
    """Mount; blocking, for as long as a server is silent. Raises OSError."""
    bind = mount.flags & MS_BIND
    flags = mount.flags & ~MS_RDONLY if bind else mount.flags
    _call(
        "mount",
        os.fsencode(mount.device),
        os.fsencode(target),
        os.fsencode(mount.type),
        ctypes.c_ulong(flags),
        os.fsencode(mount.data) or None,
    )
    if bind and mount.flags & ~(MS_BIND | MS_REC):  # a bind takes its flags by a second call only
        again = ctypes.c_ulong(mount.flags & ~MS_REC | MS_REMOUNT)
        try:
            _call("mount", None, os.fsencode(target), None, again, None)
        except OSError:
            unmount(target)
            raise


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unmount(target: Path) -> None:
    """Unmount what is mounted at *target*, if anything is; who still uses it keeps it; blocking."""
    try:
        while _is_mounted(target):
            _call("umount2", os.fsencode(target), MNT_DETACH)
    except OSError as error:
        log.warning("volume %s can't be unmounted: %s", target, error.strerror)


def _is_mounted(target: Path) -> bool:
    """Tell whether something is mounted there, without asking its file system; blocking."""
    want = os.fsencode(target)
    with Path("/proc/self/mountinfo").open("rb") as lines:
        return any(_unescaped(line.split(b" ", 5)[4]) == want for line in lines)


def _unescaped(path: bytes) -> bytes:
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        path = path.replace(code, char)
    return path


async def _in_thread(
    work: Callable[[], T], too_late: Callable[[], None] | None = None, bound: float = BOUND
) -> T:
    """Run *work* in a thread of its own, which a silent server may hold as long as it likes.

    Raises TimeoutError after *bound* seconds; *too_late* undoes what succeeds afterwards.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def succeeded(result: T) -> None:
        if not done.done():
            done.set_result(result)
        elif too_late is not None:
            threading.Thread(target=too_late, daemon=True).start()

    def failed(error: OSError) -> None:
        if not done.done():
            done.set_exception(error)

    def run() -> None:
        try:
            tell = functools.partial(succeeded, work())
        except OSError as error:
            tell = functools.partial(failed, error)
        with contextlib.suppress(RuntimeError):  # the daemon has ended meanwhile
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name="mount", daemon=True).start()
    return await asyncio.wait_for(done, bound)
