"""The build context: the client's tar on its way to a spool file, and the tree of what is in it.

The tar may come plain or compressed (gzip, bzip2, xz, zstd). It is never unpacked: COPY picks from
the spool. Size and number of entries are bounded, and the disk is never filled to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncIterator
from pathlib import Path

from hyperstack.build import dockerfile, ignore, scan, spools
from hyperstack.build.tree import Node, NotThere, Tree, Unreachable
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image import tarfmt
from hyperstack.image.compression import inflate
from hyperstack.image.content import mapped, write_all

DEFAULT = "Dockerfile"
IGNORE = ".dockerignore"
MAX_CONTEXT = 64 << 30
"""Bytes of one context or copied tree, uncompressed."""
_BATCH = 1 << 20


@contextlib.asynccontextmanager
async def spooled(body: AsyncIterator[bytes], folder: Path) -> AsyncIterator[Path]:
    """Write a tar to a file in *folder*, decompressed, and give its path while the block runs.

    Raises InvalidParameter if it is damaged or too large, InternalError if the disk is full.
    """
    with spools.empty(folder) as path:
        with mapped("open a spool file"):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            await _fill(fd, body, folder)
        finally:
            os.close(fd)
        yield path


async def _fill(fd: int, body: AsyncIterator[bytes], folder: Path) -> None:
    held: list[bytes] = []
    waiting = size = 0
    async for data in inflate(body):
        held.append(data)
        waiting += len(data)
        size += len(data)
        if size > MAX_CONTEXT:
            raise InvalidParameter(f"the build context is larger than {MAX_CONTEXT >> 30} GiB")
        spools.check(folder, size - len(data), size)
        if waiting >= _BATCH:
            await asyncio.to_thread(_write, fd, held)
            held, waiting = [], 0
    await asyncio.to_thread(_write, fd, held)


def _write(fd: int, parts: list[bytes]) -> None:
    with mapped("write the build context"):
        write_all(fd, b"".join(parts))


async def load(spool: Path) -> Tree:
    """Return the tree of a spooled context. Raises InvalidParameter."""
    return await asyncio.to_thread(scan.read, spool)


def take_dockerfile(tree: Tree, asked: str) -> str:
    """Return the Dockerfile's text; take it and ``.dockerignore`` out if the latter says so.

    Without a name ``dockerfile`` will do, too. Raises InternalError, as Docker does, or
    InvalidParameter in its words.
    """
    path = asked or DEFAULT
    if posixpath.normpath(path).startswith("../"):
        raise InternalError(f"forbidden path outside the build context: {path} ()")
    node = _file(tree, path)
    if node is None and path == DEFAULT:
        path = DEFAULT.lower()
        node = _file(tree, path)
    if node is None:
        raise InternalError(f"Cannot locate specified Dockerfile: {asked or DEFAULT}")
    if node.is_dir:
        raise InternalError(f"unexpected error reading Dockerfile: read {path}: is a directory")
    text = _text(tree, node, path)
    if not text:
        raise InvalidParameter(f"the Dockerfile ({path}) cannot be empty")
    _leave_out(tree, path)
    return text


def _file(tree: Tree, path: str) -> Node | None:
    try:
        node = tree.find(path)[1]
    except (NotThere, Unreachable):
        return None
    return node if node.kind in (tarfmt.FILE, tarfmt.DIRECTORY) else None


def _text(tree: Tree, node: Node, what: str) -> str:
    if node.size > dockerfile.MAX_TEXT:
        raise InvalidParameter(f"{what} is larger than {dockerfile.MAX_TEXT >> 20} MiB")
    with (
        mapped(f"read {IGNORE if what == IGNORE else 'the Dockerfile'}"),
        tree.spool.open("rb") as file,
    ):
        data = os.pread(file.fileno(), node.size, node.offset)
    if len(data) != node.size:
        raise InternalError("the build context can't be read: it was cut")
    return data.decode("utf-8", "replace")


def text_of(path: Path, size: int) -> str:
    """Return the text of a Dockerfile that is a file of its own. Raises InvalidParameter."""
    node = Node(kind=tarfmt.FILE, size=size)
    return _text(Tree(path), node, DEFAULT)


def _leave_out(tree: Tree, path: str) -> None:
    node = _file(tree, IGNORE)
    if node is None or node.is_dir:
        return
    patterns = ignore.read_ignore(_text(tree, node, IGNORE))
    for name in (IGNORE, path):
        with contextlib.suppress(InvalidParameter):  # Docker passes over bad patterns here
            if ignore.ignored(name, patterns):
                tree.remove(name)
