"""COPY and ADD: which files are meant, where they go, and the tar that puts them there.

Follows the classic builder (moby, ``builder/dockerfile/copy.go``): a directory's contents are
copied, not itself; a file goes into a destination that is a directory or ends in a slash; links of
the destination are followed within the image; without ``--chown`` everything becomes root's, and
the set-id bits of files go, as chown(2) takes them. What exists in the image is asked of the guest.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat as st
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hyperstack import globs
from hyperstack.build.bench import Root
from hyperstack.build.tarwrite import Entry
from hyperstack.build.tree import Node, NotThere, Tree, Unreachable, folder
from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt

MAX_LINKS = 40
Owner = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Picked:
    """One source: ``path`` as it was named, ``node`` what it is, every link followed."""

    tree: Tree
    path: str
    real: str
    node: Node
    digest: str
    """``file:HEX`` or ``dir:HEX``"""
    url: str = ""
    """Where it was fetched from; such a file is never unpacked."""
    named: bool = True
    """Whether a file that was fetched has a name."""


def pick(tree: Tree, source: str, command: str, *, image: bool) -> list[Picked]:
    """Find a source of COPY or ADD in a tree, several if it is a pattern.

    Raises InvalidParameter in Docker's words if there is none of that name.
    """
    path = relative(source)
    if not globs.has_wildcards(path):
        return [pick_one(tree, path, command, image=image)]
    try:
        glob = globs.Glob(path)
    except InvalidParameter:
        return []
    names = (name for name, _ in tree.walk("", tree.root) if glob.matches(name))
    return [pick_one(tree, name, command, image=image) for name in names]


def relative(source: str) -> str:
    """Return a source as a path from the context's root."""
    return source.removeprefix("/").removeprefix("./")


def pick_one(tree: Tree, path: str, command: str, *, image: bool) -> Picked:
    """Find one source that is no pattern. Raises InvalidParameter."""
    try:
        if not image and posixpath.normpath(path).startswith(".."):
            raise Unreachable
        real, node = tree.find(path)
    except NotThere:
        where = "" if image else "file not found in build context or excluded by .dockerignore: "
        words = f"{where}stat {path}: file does not exist"
        raise InvalidParameter(f"{command} failed: {words}") from None
    except Unreachable:
        words = f"forbidden path outside the build context: {path} ()"
        raise InvalidParameter(f"{command} failed: {words}") from None
    if not node.is_dir:
        digest = "file:" + tree.sums.get(real, real)
    else:
        digest = _joined("dir", sorted(_sums_below(tree, real, node)))
    return Picked(tree=tree, path=path, real=real, node=node, digest=digest)


def _sums_below(tree: Tree, real: str, node: Node) -> Iterator[str]:
    """Yield the checksums of a directory and what is in it; a link counts as what it leads to.

    One that leads to nothing counts as its path, one that leads in circles not at all.
    """
    for name, one in tree.walk(real, node):
        try:
            name = tree.find(name)[0] if one.kind == tarfmt.SYMLINK else name
        except NotThere:
            yield name
            continue
        except Unreachable:
            continue
        yield tree.sums.get(name, name)


def digest(picked: Sequence[Picked]) -> str:
    """Return what stands for the sources in history and cache."""
    return digest_of([one.digest for one in picked])


def digest_of(digests: Sequence[str]) -> str:
    """Return what stands for files that hash so, one or several."""
    return digests[0] if len(digests) == 1 else _joined("multi", digests)


def renamed(picked: Picked, path: str) -> Picked:
    """Return a source under the name that the Dockerfile gave it."""
    return replace(picked, path=path)


def _joined(prefix: str, parts: Sequence[str]) -> str:
    return f"{prefix}:{hashlib.sha256(','.join(parts).encode(errors='replace')).hexdigest()}"


def destination(working_dir: str, asked: str) -> str:
    """Return an absolute destination; a slash at its end stays."""
    if asked.startswith("/"):
        return asked
    made = posixpath.normpath(posixpath.join("/", working_dir, asked))
    return made.rstrip("/") + "/" if asked.endswith("/") or made == "/" else made


@dataclass(frozen=True, kw_only=True)
class Place:
    """A destination as it is in the image: ``path`` absolute, every link followed."""

    path: str
    mode: int | None
    """st_mode of what is there, None if nothing is."""

    @property
    def is_dir(self) -> bool:
        """Whether a directory is there."""
        return self.mode is not None and st.S_ISDIR(self.mode)


async def locate(root: Root, path: str) -> Place:
    """Find out where a path of the image really is, and what is there.

    Parents that are missing are taken as written. Raises InvalidParameter for a loop of links.
    """
    path = posixpath.normpath("/" + path.lstrip("/"))
    for _ in range(MAX_LINKS):
        if path == "/":
            return Place(path="/", mode=st.S_IFDIR | 0o755)
        found = await root.stat(path)
        if found is None:
            above = await locate_parent(root, path)
            return Place(path=posixpath.join(above.path, posixpath.basename(path)), mode=None)
        if not st.S_ISLNK(found.mode):
            return Place(path=path, mode=found.mode)
        path = posixpath.normpath("/" + found.link_target.lstrip("/"))
    raise InvalidParameter(f"too many links in {path}")


async def locate_parent(root: Root, path: str) -> Place:
    """Return where a path's parent is. Raises InvalidParameter if it can't be a directory."""
    above = await locate(root, posixpath.dirname(path))
    if above.mode is not None and not above.is_dir:
        raise InvalidParameter(f"mkdir {above.path}: not a directory")
    return above


async def missing_parents(root: Root, path: str, owner: Owner) -> list[Entry]:
    """Return entries for the directories above *path* that are not there yet."""
    missing: list[str] = []
    parent = posixpath.dirname(path)
    while parent != "/":
        place = await locate(root, parent)
        if place.mode is not None:
            if not place.is_dir:
                raise InvalidParameter(f"mkdir {parent}: not a directory")
            break
        missing.append(parent)
        parent = posixpath.dirname(parent)
    return [made_folder(name, owner) for name in reversed(missing)]


def made_folder(path: str, owner: Owner) -> Entry:
    """Return the entry of a directory that the build makes."""
    return Entry(name=path.lstrip("/"), node=folder(), owner=owner)


async def entries(
    root: Root, place: str, picked: Picked, owner: Owner | None, source: int
) -> list[Entry]:
    """Return what copies one source to a destination (``destination``'s result).

    *owner* None keeps the owners; *source* is the descriptor of the tree's spool.
    """
    where = await locate(root, place)
    if picked.node.is_dir:
        return await _directory(root, where, picked, owner, source)
    path = where.path
    if place.endswith("/") or where.is_dir:
        if not picked.named:
            raise InvalidParameter(f"cannot determine filename for source {picked.url}")
        path = posixpath.join(path, posixpath.basename(picked.path))
    above = await missing_parents(root, path, owner or (0, 0))
    return [*above, _entry(path, picked.node, owner, source)]


async def _directory(
    root: Root, where: Place, picked: Picked, owner: Owner | None, source: int
) -> list[Entry]:
    if where.mode is not None and not where.is_dir:
        raise InvalidParameter(f"failed to copy directory: mkdir {where.path}: not a directory")
    made: list[Entry] = []
    if where.mode is None:
        made = await missing_parents(root, where.path, (0, 0))
        made.append(made_folder(where.path, owner or (0, 0)))
    seen: dict[int, str] = {}
    for name, node in picked.tree.walk(picked.real, picked.node):
        if node is picked.node:
            continue
        path = posixpath.join(where.path, posixpath.relpath(name, picked.real or "."))
        entry = _entry(path, node, owner, source)
        if node.kind == tarfmt.FILE:
            first = seen.setdefault(id(node), entry.name)
            entry = entry if first == entry.name else replace(entry, link=first)
        made.append(entry)
    return made


def _entry(path: str, node: Node, owner: Owner | None, source: int) -> Entry:
    if owner is not None and node.kind == tarfmt.FILE:
        node = _chowned(node)
    return Entry(
        name=path.lstrip("/"), node=node, owner=owner or (node.uid, node.gid), source=source
    )


def _chowned(node: Node) -> Node:
    """Return a file as chown(2) leaves it: without set-id bits and capabilities."""
    drop = st.S_ISUID | (st.S_ISGID if node.mode & st.S_IXGRP else 0)
    if not node.mode & drop and b"security.capability" not in node.xattrs:
        return node
    xattrs = {k: v for k, v in node.xattrs.items() if k != b"security.capability"}
    return replace(node, mode=node.mode & ~drop, xattrs=xattrs)
