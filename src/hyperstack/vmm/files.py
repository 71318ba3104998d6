"""The files that a VMM sees in its jail: hard links to layers and disks, in folders of the sandbox.

A folder is bound into the jail, so that a link made later shows up in the running machine. Folders
belong to root: a VMM changes what it finds there, as far as it may, and never its names.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hyperstack.errors import GuestError
from hyperstack.vmm.base import Disk


def make_folder(path: Path) -> Path:
    """Make a folder that jailed programs may look up names in, and return it."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)
    return path


def link_read_only(folder: Path, disk: Disk, uid: int) -> None:
    """Link a file that *uid* may read. The folder is bound read-only.

    Raises GuestError if the file is no file of this file system.
    """
    _link(folder / disk.name, disk, uid, writable=False)


def link_writable(folder: Path, disk: Disk, uid: int) -> None:
    """Link a file and give it to *uid*. Raises GuestError."""
    _link(folder / disk.name, disk, uid, writable=True)


def unlink(folder: Path, name: str) -> None:
    """Take a link away; the file stays where it came from."""
    (folder / name).unlink(missing_ok=True)


def _link(link: Path, disk: Disk, uid: int, *, writable: bool) -> None:
    try:
        link.unlink(missing_ok=True)
        os.link(disk.path, link, follow_symlinks=False)
        try:
            _own(link, uid, writable=writable)
        except BaseException:
            link.unlink()
            raise
    except OSError as error:
        raise GuestError(
            f"disk {disk.name} can't be given to the virtual machine: {error.strerror or error}"
        ) from error


def _own(link: Path, uid: int, *, writable: bool) -> None:
    fd = os.open(link, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if writable:
            os.fchown(fd, uid, uid)
            os.fchmod(fd, 0o600)
        elif not status.st_mode & stat.S_IROTH:
            # A layer is everybody's; another file that is nobody else's is lent to this machine.
            os.fchown(fd, uid, uid)
            os.fchmod(fd, 0o400)
    finally:
        os.close(fd)
