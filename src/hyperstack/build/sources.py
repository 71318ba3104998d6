"""Where COPY and ADD take files from: the build context, or a stage's or image's root in a guest.

Files of an image are fetched as a tar by its guest, path by path, and spooled like a context. What
a path of an image hashes to is remembered, since an image never changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import stat as st
from collections.abc import Sequence
from pathlib import Path

from hyperstack import globs
from hyperstack.build import context, copying, scan
from hyperstack.build.bench import Root
from hyperstack.build.copying import MAX_LINKS, Picked
from hyperstack.build.tree import Tree
from hyperstack.errors import InvalidParameter

MOST_DIGESTS = 10_000
"""Paths of images whose hash is remembered."""


class Digests:
    """Hashes of files of images, by image and path; the oldest are forgotten."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def find(self, image: str, sources: Sequence[str]) -> str:
        """Return the hash of all *sources* together, empty if one is not known."""
        found = [self._known.get((image, copying.relative(source)), "") for source in sources]
        return copying.digest_of(found) if all(found) else ""

    def keep(self, image: str, picked: Sequence[Picked]) -> None:
        """Remember what was found out."""
        for one in picked:
            self._known[image, one.path] = one.digest
        while len(self._known) > MOST_DIGESTS:
            del self._known[next(iter(self._known))]


class ImageSource:
    """Files of an image, from its root; what was fetched stays while *stack* does."""

    def __init__(self, root: Root, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self._root = root
        self._folder = folder
        self._stack = stack

    async def pick(self, sources: Sequence[str], command: str) -> list[Picked]:
        """Find the sources; raises InvalidParameter as ``copying.pick`` does."""
        found: list[Picked] = []
        for source in sources:
            path = copying.relative(source)
            if not globs.has_wildcards(path):
                found.append(await self._one(path, command))
                continue
            for name in await self._names(path):
                found.append(await self._one(name, command))
        if not found:
            raise InvalidParameter(f"{command} failed: no source files were specified")
        return found

    async def _one(self, path: str, command: str) -> Picked:
        tree, real = await self._fetch(path, command)
        picked = copying.pick_one(tree, real, command, image=True)
        return copying.renamed(picked, path)

    async def _names(self, pattern: str) -> list[str]:
        """Return the paths that fit a pattern; what is above the first wildcard is fetched."""
        try:
            glob = globs.Glob(pattern)
        except InvalidParameter:
            return []
        parts = pattern.split("/")
        fixed = next(n for n, part in enumerate(parts) if globs.has_wildcards(part))
        above = "/".join(parts[:fixed])
        try:
            tree, real = await self._fetch(above, "")
        except InvalidParameter:
            return []
        names = (posixpath.relpath(name, real or ".") for name, _ in tree.walk("", tree.root))
        found = [posixpath.join(above, name) for name in names if not name.startswith("..")]
        return [name for name in found if name != above and glob.matches(name)]

    async def _fetch(self, path: str, command: str) -> tuple[Tree, str]:
        """Return a tree with what *path* leads to, and where in it that is."""
        real = await self._resolve(path, command)
        tar = await self._root.get(real)
        async with contextlib.aclosing(tar):
            spool = await self._stack.enter_async_context(context.spooled(tar, self._folder))
        below = posixpath.dirname(real).lstrip("/") if real != "/" else ""
        tree = await asyncio.to_thread(scan.read, spool, below=below)
        return tree, real.lstrip("/")

    async def _resolve(self, path: str, command: str) -> str:
        real = posixpath.normpath("/" + path)
        for _ in range(MAX_LINKS):
            if real == "/":
                return real
            found = await self._root.stat(real)
            if found is None:
                raise InvalidParameter(f"{command} failed: stat {path}: file does not exist")
            if not st.S_ISLNK(found.mode):
                return real
            real = posixpath.normpath("/" + found.link_target.lstrip("/"))
        raise InvalidParameter(f"{command} failed: stat {path}: too many links")
