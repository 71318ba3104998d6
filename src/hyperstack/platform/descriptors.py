"""Low file descriptors for libraries that wait by select(2).

Such a library ends the whole process when its socket's number is 1024 or more, which a daemon with
200 containers has open. A thread can have a descriptor table of its own (unshare(2), CLONE_FILES):
in there 0 and 1 are closed and what the library opens next gets their numbers, whatever other
threads open at the same time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

from hyperstack.platform.threads import in_thread

T = TypeVar("T")

CLONE_FILES = 0x400
LOW = 512
"""A number below which there is no danger, though others open files meanwhile (FD_SETSIZE 1024)."""

_libc = ctypes.CDLL(None, use_errno=True)


def with_low_descriptors(work: Callable[[], T]) -> T:
    """Run *work*, whose first descriptor is a low one; blocking. What it opens it must close.

    The caller's namespaces are kept. Raises what *work* raises, and OSError.
    """
    return work() if _lowest() < LOW else in_thread(lambda: _apart(work))


def _lowest() -> int:
    fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return fd


def _apart(work: Callable[[], T]) -> T:
    if _libc.unshare(CLONE_FILES) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    for fd in (0, 1):
        with contextlib.suppress(OSError):
            os.close(fd)
    return work()
