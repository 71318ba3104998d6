"""Taps: the host's end of a guest's network card (``Documentation/networking/tuntap.rst``).

A tap is persistent and belongs to the sandbox's uid, so a VMM in its jail attaches to it without
any privilege. ``vnet_hdr`` lets whole TCP segments of up to 64 KiB pass.
"""

from __future__ import annotations

import fcntl
import os
import struct

from hyperstack.errors import InternalError, Unavailable

DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x4000, 0x8000


def make(name: str, uid: int) -> None:
    """Make tap *name* for *uid* in the calling thread's network namespace.

    Raises Unavailable where the host has no tun device, InternalError if the name is taken.
    """
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(
            f"{DEVICE} can't be opened ({error.strerror}); load the kernel module tun"
        ) from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, _TUNSETOWNER, uid)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as error:
        raise InternalError(f"tap {name} can't be made: {error.strerror}") from error
    finally:
        os.close(fd)
