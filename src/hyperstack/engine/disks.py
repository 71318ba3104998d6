"""Writable disks: sparse files copied from an ext4 template, one per container.

The template is the kit's for the default size; for other sizes one is made once by mkfs.ext4 and
kept. The host writes templates and never reads what a guest made of its copy (design 7).
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from pathlib import Path

from hyperstack.engine.core import Core
from hyperstack.errors import InternalError
from hyperstack.guest import ext4
from hyperstack.model import Container

SMALLEST = 16 << 20
LARGEST = 16 << 40
CHUNK = 1 << 20
PARTIAL = ".ext4-"
"""How the name of a template that is being made begins."""


async def make(core: Core, container: Container) -> None:
    """Make the container's disk. Raises InternalError if the host's disk is full."""
    template = await template_for(core, container.disk_size)
    try:
        await asyncio.to_thread(copy_sparse, template, core.disk(container.id))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InternalError(
                f"the container's disk could not be made in {core.config.data_root}: no space left "
                "on device; remove unused containers or images (docker system prune)"
            ) from error
        raise InternalError(f"the container's disk could not be made: {error}") from error


def check(core: Core, container: Container) -> None:
    """Raise InternalError if the container's disk was lost or replaced behind our back.

    What lies in it is looked at by its guest alone.
    """
    try:
        status = core.disk(container.id).lstat()
        state = "" if stat.S_ISREG(status.st_mode) else "is not a file"
        if not state and status.st_size != container.disk_size:
            state = f"has {status.st_size} bytes and not {container.disk_size}"
    except OSError as error:
        state = f"is missing ({error.strerror})"
    if state:
        raise InternalError(
            f"the disk of container {container.name} {state}: what the container had written is "
            "lost; remove the container and create it again"
        )


async def template_for(core: Core, size: int) -> Path:
    """Return an empty ext4 image of *size* bytes, making it if it is the first of its size."""
    kit: Path = core.sandboxes.kit.ext4_template
    if kit.stat().st_size == size:
        return kit
    folder = core.config.data_root / "templates"
    path = folder / f"ext4-{size}.img"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: two containers may be the first of their size.
    partial = folder / f"{PARTIAL}{size}.{secrets.token_hex(8)}"
    try:
        await ext4.make(partial, size)
        await asyncio.to_thread(_publish, partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _publish(partial: Path, path: Path) -> None:
    """Give a whole template its name, once it is on the host's disk; blocking."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(path)


def sweep_templates(core: Core) -> None:
    """Remove templates that a dead daemon was making."""
    for left in (core.config.data_root / "templates").glob(f"{PARTIAL}*"):
        left.unlink(missing_ok=True)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file's data and keep its holes (lseek(2) SEEK_DATA); blocking."""
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy_data(read, write)
        except BaseException:
            target.unlink()
            raise
        finally:
            os.close(write)
    finally:
        os.close(read)


def _copy_data(read: int, write: int) -> None:
    size = os.fstat(read).st_size
    os.ftruncate(write, size)
    start = 0
    while start < size:
        try:
            start = os.lseek(read, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(read, start, os.SEEK_HOLE)
        while start < end:
            copied = _copy_some(read, write, start, end - start)
            if copied == 0:
                return
            start += copied


def _copy_some(read: int, write: int, offset: int, size: int) -> int:
    """Copy bytes at *offset* of one file to the same place in another; return how many."""
    try:
        return os.copy_file_range(read, write, size, offset, offset)
    except OSError as error:
        # Between file systems of different kinds the kernel does not copy (copy_file_range(2)):
        # the kit may lie elsewhere than the data root.
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    return os.pwrite(write, os.pread(read, min(size, CHUNK), offset), offset)
