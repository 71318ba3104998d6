"""Disks and slots of User Mode Linux machines: what launch and hot-add have in common."""

from __future__ import annotations

import os
from pathlib import Path

from hyperstack.errors import GuestError
from hyperstack.vmm import files
from hyperstack.vmm.base import Disk

COW_MAGIC = (b"OOOM", b"MOOO")
"""First bytes of a copy-on-write file (arch/um/drivers/cow.h), old ones in the host's order."""


def link_disk(layers: Path, disks: Path, disk: Disk, uid: int) -> Path:
    """Link a disk into the folder where the machine finds it, and return that folder.

    Read-only disks go to the layers, which are bound read-only. Raises GuestError, also for a disk
    that begins like a copy-on-write file: the kernel would take such a disk's size from bytes that
    a guest wrote, whatever its command line says, and fail at some.
    """
    folder = layers if disk.read_only else disks
    link = files.link_read_only if disk.read_only else files.link_writable
    link(folder, disk, uid)
    try:
        fd = os.open(folder / disk.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            begin = os.pread(fd, 4, 0)
        finally:
            os.close(fd)
        if begin in COW_MAGIC:
            raise GuestError(f"disk {disk.name} begins like a copy-on-write file, and is refused")
    except BaseException:
        files.unlink(folder, disk.name)
        raise
    return folder


def free_slot(used: set[int], first: int, last: int) -> int:
    """Return the lowest number that is free. Raises GuestError if all are taken."""
    for slot in range(first, last + 1):
        if slot not in used:
            return slot
    raise GuestError(f"the virtual machine can't have more than {last - first + 1} of these")
