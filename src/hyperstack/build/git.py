"""A git repository as a build context: fetched by git in its jail, given as a tar.

Follows moby (``builder/remotecontext``): ``init``, ``remote add``, a fetch of one ref that is
shallow where the server can do that, a checkout, then the submodules. The tree with its ``.git``,
or one folder of it, is the context. The words of errors are dockerd's, which quotes git.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from hyperstack.build import repository
from hyperstack.build.gitjail import GitJail, GitJails
from hyperstack.build.relay import Refused
from hyperstack.build.repository import Repository
from hyperstack.build.shell import go_quote
from hyperstack.errors import InternalError
from hyperstack.platform.process import Completed

MAX_LINKS = 255
MAX_WORDS = 4096
"""Characters of what git says that are told."""
SUBMODULES_BY = ("http", "https", "git", "ssh")
_NOT_SHALLOW = "does not support shallow"
_NO_ACCESS = re.compile(r"(unable to access '[^'\n]*': ).*")
_SSH_ENDS = (
    "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access "
    "rights\nand the repository exists.\n"
)


@contextlib.asynccontextmanager
async def fetched(address: str, jails: GitJails) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """Fetch a repository and give its tree as a plain tar while the block runs.

    Raises InternalError in dockerd's words if it can't be had.
    """
    wanted = repository.read(address)
    async with jails.jail(wanted) as jail:
        await _init(jail, wanted)
        await _fetch(jail, wanted)
        await _checkout(jail, wanted)
        await _submodules(jail)
        folder = resolved(jail.tree, wanted.folder)
        async with contextlib.aclosing(jail.tar(folder)) as tar:
            yield tar


async def _init(jail: GitJail, wanted: Repository) -> None:
    for words, what in (
        (("init",), "failed to init repo at"),
        (("remote", "add", "origin", wanted.url), "failed add origin repo at"),
    ):
        done = await jail.git(*words)
        if done.returncode:
            raise InternalError(f"{what} {jail.tree}: {_told(done)}")


async def _fetch(jail: GitJail, wanted: Repository) -> None:
    # A server may lead from http to https, never back.
    by = ("http", "https") if wanted.scheme == "http" else (wanted.scheme,)
    words = ("fetch", "--depth", "1", "origin", wanted.ref)
    done = await jail.git(*words, protocols=by)
    if done.returncode and _NOT_SHALLOW in _said(done):
        done = await jail.git("fetch", "origin", wanted.ref, protocols=by)
    if done.returncode:
        said = _said(done) if jail.failed is None else _reworded(_said(done), wanted, jail.failed)
        raise InternalError(f"error fetching: {said}: exit status {done.returncode}")


async def _checkout(jail: GitJail, wanted: Repository) -> None:
    """Check the ref out: a branch by its name, anything else as what was fetched."""
    done = await jail.git("checkout", wanted.ref)
    if done.returncode and (await jail.git("checkout", "FETCH_HEAD")).returncode:
        raise InternalError(f"error checking out {wanted.ref}: {_told(done)}")


async def _submodules(jail: GitJail) -> None:
    try:
        mode = (jail.tree / ".gitmodules").lstat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        return  # git takes no link for it either
    words = ("submodule", "update", "--init", "--recursive")
    done = await jail.git(*words, "--depth=1", protocols=SUBMODULES_BY)
    if done.returncode and _NOT_SHALLOW in _said(done):
        done = await jail.git(*words, protocols=SUBMODULES_BY)
    if done.returncode:
        raise InternalError(f"error initializing submodules: {_told(done)}")


def _told(done: Completed) -> str:
    return f"{_said(done)}: exit status {done.returncode}"


def _said(done: Completed) -> str:
    """Return what git said, its end if that is long, fit for a terminal.

    Where it is told not to ask for a password it says what dockerd's says, which has no terminal.
    """
    text = done.stdout.decode(errors="replace")[-MAX_WORDS:]
    text = text.replace("terminal prompts disabled", "No such device or address")
    return "".join(c if c.isprintable() or c in "\n\t\r" else " " for c in text)


def _reworded(said: str, wanted: Repository, failed: Refused) -> str:
    """Let git say what it would have said without the relay between it and the server."""
    host, port = wanted.host, wanted.port
    if wanted.scheme in ("http", "https"):
        return _NO_ACCESS.sub(lambda match: match[1] + failed.words, said)
    if wanted.scheme == "ssh":
        if not failed.address:
            return f"ssh: Could not resolve hostname {host}: {failed.reason}\r\n{_SSH_ENDS}"
        return f"ssh: connect to host {host} port {port}: {failed.reason}\r\n{_SSH_ENDS}"
    if not failed.address:
        return f"fatal: unable to look up {host} (port {port}) ({failed.reason})\n"
    where = f"{host}[0: {failed.address}]"
    return f"fatal: unable to connect to {host}:\n{where}: errno={failed.reason}\n\n"


def resolved(tree: Path, asked: str) -> str:
    """Return a folder of a tree as a relative path without links, which are followed within it.

    Nobody may write to the tree meanwhile. Blocking, brief. Raises InternalError if it is none.
    """
    parts = _cleaned(tree, asked)
    way: list[str] = []
    links = 0
    while parts:
        part = parts.pop(0)
        if part in ("", ".", ".."):
            way = way[:-1] if part == ".." else way
            continue
        path = tree.joinpath(*way, part)
        mode = _mode(path, tree.joinpath(*way, part, *parts))
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_LINKS:
                raise InternalError(f"error setting git context, {go_quote(asked)}: too many links")
            target = str(path.readlink())
            way = [] if target.startswith("/") else way
            parts = [*target.split("/"), *parts]
        elif not stat.S_ISDIR(mode):
            raise InternalError(f"error setting git context, not a directory: {path}")
        else:
            way.append(part)
    return "/".join(way)


def _cleaned(tree: Path, asked: str) -> list[str]:
    """Return the parts of a path without dots. Raises InternalError if it begins above the tree."""
    kept: list[str] = []
    above = 0
    for part in asked.split("/"):
        if part == ".." and kept:
            kept.pop()
        elif part == "..":
            above += 1
        elif part not in ("", "."):
            kept.append(part)
    if not above:
        return kept
    where = posixpath.normpath(tree.joinpath(*[".."] * above, *kept))
    raise InternalError(
        f"error setting git context, {go_quote(asked)} not within git root: "
        f"evalSymlinksInScope: {where} is not in {tree}"
    )


def _mode(path: Path, whole: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError as error:
        why = (error.strerror or "").lower()
        raise InternalError(f"stat {whole}: {why}") from error
