"""WORKDIR, COPY and ADD carried out in a guest that has the stage's image as its root."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

from hyperstack.build import copying, owners, tarwrite
from hyperstack.build.bench import Root
from hyperstack.build.copying import Owner, Picked
from hyperstack.build.tarwrite import Entry
from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt
from hyperstack.image.compression import SNIFF, SniffingDecoder, inflate
from hyperstack.image.content import mapped

_PIECE = 1 << 18
_LOOK = 1 << 16
"""Bytes of a file that tell whether it is an archive."""


async def make_folder(root: Root, path: str) -> bool:
    """Make a working directory with its parents; False if it is there. Raises InvalidParameter."""
    place = await copying.locate(root, path)
    if place.is_dir:
        return False
    if place.mode is not None:
        raise InvalidParameter(f"Cannot mkdir: {path} is not a directory")
    made = await copying.missing_parents(root, place.path, (0, 0))
    await _put(root, [*made, copying.made_folder(place.path, (0, 0))])
    return True


async def copy(
    root: Root, picked: Sequence[Picked], place: str, *, chown: str, keep: bool, unpack: bool
) -> None:
    """Copy sources to a destination (``copying.destination``).

    *keep*: owners stay unless *chown* says another; *unpack*: local archives are unpacked, with the
    owners that they name. Raises InvalidParameter, "failed to copy files: ...".
    """
    owner: Owner | None = None if keep else (0, 0)
    if chown:
        owner = await owners.owner(root, chown)
    with contextlib.ExitStack() as stack:
        spools = {one.tree.spool for one in picked}
        fds = {spool: _open(spool, stack) for spool in spools}
        try:
            for one in picked:
                fd = fds[one.tree.spool]
                if unpack and not one.url and await asyncio.to_thread(is_archive, one, fd):
                    await _unpack(root, one, place, fd)
                else:
                    await _put(root, await copying.entries(root, place, one, owner, fd))
        except InvalidParameter as error:
            raise InvalidParameter(f"failed to copy files: {error.message}") from error


def _open(spool: Path, stack: contextlib.ExitStack) -> int:
    with mapped("read the build context"):
        fd = os.open(spool, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


async def _put(root: Root, entries: Sequence[Entry]) -> None:
    if entries:
        await root.put("/", tarwrite.write(iter(entries)))


def is_archive(one: Picked, fd: int) -> bool:
    """Tell whether a file is a tar, compressed or not: its first header can be read. Blocking."""
    node = one.node
    if node.kind != tarfmt.FILE or not node.size:
        return False
    start = b"".join(_beginning(fd, node.offset, node.size))
    try:
        tarfmt.parse(start[: tarfmt.BLOCK])
    except (InvalidParameter, IndexError):
        return False
    return start[: tarfmt.BLOCK] != tarfmt.ZERO


def _beginning(fd: int, offset: int, size: int) -> Iterator[bytes]:
    """Yield a file's first plain bytes, a block of a tar at least if it is one."""
    found: list[bytes] = []
    decoder = SniffingDecoder(found.append)
    end = offset + min(size, _LOOK * 16)
    try:
        while offset < end and sum(map(len, found)) < tarfmt.BLOCK:
            data = os.pread(fd, min(SNIFF, end - offset), offset)
            offset += len(data)
            decoder.write(data)
        if sum(map(len, found)) < tarfmt.BLOCK:
            decoder.finish()
    except InvalidParameter:
        return
    yield from found


async def _unpack(root: Root, one: Picked, place: str, fd: int) -> None:
    """Unpack an archive into the destination, which is made if it is not there."""
    where = await copying.locate(root, place)
    if where.mode is not None and not where.is_dir:
        raise InvalidParameter(f"mkdir {where.path}: not a directory")
    if where.mode is None:
        made = await copying.missing_parents(root, where.path, (0, 0))
        await _put(root, [*made, copying.made_folder(where.path, (0, 0))])
    async with contextlib.aclosing(_file(fd, one.node.offset, one.node.size)) as packed:
        await root.put(where.path, inflate(packed))


async def _file(fd: int, offset: int, size: int) -> AsyncGenerator[bytes, None]:
    while size:
        data = await asyncio.to_thread(os.pread, fd, min(size, _PIECE), offset)
        if not data:
            return
        offset += len(data)
        size -= len(data)
        yield data
