"""Packs a folder as the initial root file system of a guest: cpio in the kernel's "newc" format.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux. The same folder gives
the same bytes: names sorted, owner root, no times, inode numbers counted.
"""

from __future__ import annotations

import stat
from pathlib import Path

from hyperstack.errors import InternalError

TRAILER = "TRAILER!!!"
MAX_FILE = (1 << 32) - 1


def pack(folder: Path) -> bytes:
    """Return the archive of everything below *folder*: folders, files, links, no hard links.

    Raises InternalError for a file that the format can't hold.
    """
    parts = []
    paths = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
    for number, path in enumerate(paths, start=1):
        name = path.relative_to(folder).as_posix()
        parts.append(_member(name, number, *_content(path)))
    parts.append(_member(TRAILER, 0, 0, b""))
    data = b"".join(parts)
    # The kernel reads in blocks, and pads what it is given on its own only at the very end.
    return data + bytes(-len(data) % 512)


def _content(path: Path) -> tuple[int, bytes]:
    """Return the mode and the data of a member."""
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        return mode, b""
    if stat.S_ISLNK(mode):
        return mode, str(path.readlink()).encode()
    if stat.S_ISREG(mode) and path.lstat().st_size <= MAX_FILE:
        return mode, path.read_bytes()
    raise InternalError(f"{path.name} can't be part of an initramfs")


def _member(name: str, number: int, mode: int, data: bytes) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
