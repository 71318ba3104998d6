"""The files of a tar as a tree: found by path, links followed within it, never unpacked.

The tar itself lies in a spool file; the tree knows where each file's bytes begin. A path of it
never meets the host's file system.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt

MAX_LINKS = 255


class NotThere(Exception):
    """There is nothing at that path."""


class Unreachable(Exception):
    """A path can't be followed: its links go in circles, or a file stands where a folder must."""


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """One file of whatever kind; hard links of it are one node. Times are seconds."""

    kind: int
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    offset: int = 0
    """Where its bytes begin in the spool file."""
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[str, Node] | None = None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.kind == tarfmt.DIRECTORY


def folder() -> Node:
    """Return a directory that nobody described."""
    return Node(kind=tarfmt.DIRECTORY, mtime=int(time.time()), children={})


class Tree:
    """A tar's files. ``sums`` holds a checksum per path (``scan.py``)."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.root = folder()
        self.sums: dict[str, str] = {}

    def find(self, path: str) -> tuple[str, Node]:
        """Return where *path* really is, every link followed, and what is there.

        Raises NotThere, Unreachable.
        """
        return self._walk(path, last=True)

    def lookup(self, path: str) -> Node | None:
        """Return what is at a path, the last link not followed."""
        try:
            return self._walk(path, last=False)[1]
        except (NotThere, Unreachable):
            return None

    def put(self, path: str, node: Node) -> str:
        """Add a file, replacing what is there unless both are directories; return its real path."""
        parent, name = posixpath.split(posixpath.normpath("/" + path))
        if not name:
            self._describe(self.root, node)
            return ""
        try:
            real, above = self._walk(parent, last=True, make=True)
        except Unreachable:
            raise InvalidParameter(f"{path}: not a directory, or too many links") from None
        assert above.children is not None
        old = above.children.get(name)
        if old is not None and old.is_dir and node.is_dir:
            self._describe(old, node)
        else:
            above.children[name] = node
        return posixpath.join(real, name)

    @staticmethod
    def _describe(old: Node, new: Node) -> None:
        old.mode, old.uid, old.gid = new.mode, new.uid, new.gid
        old.mtime, old.xattrs = new.mtime, new.xattrs

    def remove(self, path: str) -> None:
        """Take a file out, if it is there."""
        parent, name = posixpath.split(posixpath.normpath("/" + path))
        try:
            above = self._walk(parent, last=True)[1]
        except (NotThere, Unreachable):
            return
        if above.children is not None:
            above.children.pop(name, None)

    def walk(self, path: str, node: Node) -> Iterator[tuple[str, Node]]:
        """Yield everything below a directory with its path, parents first, names sorted."""
        todo = [(path, node)]
        while todo:
            path, node = todo.pop()
            below = [
                (posixpath.join(path, name), child)
                for name, child in sorted((node.children or {}).items(), reverse=True)
            ]
            todo += below
            if node is not self.root:
                yield path, node

    def _walk(self, path: str, *, last: bool, make: bool = False) -> tuple[str, Node]:
        """Go down *path* from the root; ``..`` above the root stays there (openat2, IN_ROOT)."""
        way: list[tuple[str, Node]] = [("", self.root)]
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                way = way[:-1] or way
                continue
            real, node = way[-1]
            child = (node.children or {}).get(part)
            if child is None and make and node.children is not None:
                child = node.children[part] = folder()
            if child is None:
                raise NotThere if node.is_dir else Unreachable
            if child.kind == tarfmt.SYMLINK and (todo or last):
                links += 1
                if links > MAX_LINKS:
                    raise Unreachable
                way = way[:1] if child.link.startswith("/") else way
                todo += [p for p in reversed(child.link.split("/")) if p not in ("", ".")]
                continue
            way.append((posixpath.join(real, part), child))
        return way[-1]
