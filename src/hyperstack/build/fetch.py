"""Files from the net: ``ADD http://...``, and a build context or Dockerfile that is elsewhere.

Fetched by the rules of ``image/fetch.py``; what comes is spooled, never executed or unpacked here.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.message
import email.utils
import os
import posixpath
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from hyperstack.build import scan, spools
from hyperstack.build.copying import Picked
from hyperstack.build.options import Output
from hyperstack.build.tree import Node, Tree
from hyperstack.errors import HyperError, InternalError
from hyperstack.image import fetch, tarfmt
from hyperstack.image.content import mapped
from hyperstack.image.progress import Progress

MAX_SECONDS = 3600.0
"""For one file."""
MAX_BYTES = 16 << 30
PREAMBLE = 100
"""Bytes that tell what a file is if its server does not."""
_EVERY = 1 << 20
UNNAMED = "__unnamed__"
_MTIME_MOST = 1 << 36
_ARCHIVE = re.compile(r"application/((x-)?tar|(x-)?(gzip|bzip2?|xz))")
TEXT = "text/plain"
_UNKNOWN = ("", "application/octet-stream")
"""Types that servers give what they don't know."""

Say = Callable[[Output], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that was fetched. ``name`` is empty if neither address nor server told one."""

    path: Path
    size: int
    name: str
    mtime: int
    """Seconds since the epoch, 0 if the server did not tell."""
    media_type: str


def is_url(source: str) -> bool:
    """Tell whether a source of ADD, or a context, is fetched by HTTP."""
    return source.startswith(("http://", "https://"))


def is_git(address: str) -> bool:
    """Tell whether a context is a git repository, as Docker tells it by its address alone."""
    if is_url(address):
        return re.search(r"\.git(?:#.+)?\Z", address) is not None
    return address.startswith(("git://", "github.com/", "git@"))


@contextlib.asynccontextmanager
async def fetched(
    address: str, folder: Path, say: Say, *, status: str = "Downloading", context: bool = False
) -> AsyncIterator[Fetched]:
    """Fetch a file into *folder* and give it while the block runs.

    Progress is told as *status*. *context*: what can be none is refused by its type.
    Raises InternalError for an answer that does not come, is too large or too slow; for a refusal
    the error of its status.
    """
    with spools.empty(folder) as path:
        yield await _fetch(address, path, _Told(say, status, context))


class _Told:
    """What is said of one download, now and then, and at its end."""

    def __init__(self, say: Say, status: str, context: bool) -> None:
        self._say = say
        self._status = status
        self._label = "Downloading context" if context else ""
        self._at = 0
        self.context = context

    async def progress(self, size: int, total: int, *, end: bool = False) -> None:
        """Tell how far it is, a MiB after the last time."""
        if end or (size - self._at >= _EVERY and size != total):
            self._at = size
            line = Progress(status=self._status, id=self._label, current=size, total=total)
            await self._say(Output(progress=line))


async def _fetch(address: str, path: Path, told: _Told) -> Fetched:
    async with fetch.fetched(address, longest=MAX_SECONDS, most=MAX_BYTES) as body:
        kind = body.headers.get("Content-Type", "").partition(";")[0].strip()
        if told.context:
            _check_type(kind, address)
        size = 0
        with mapped("write a spool file"), path.open("wb") as file:
            async for data in body.chunks:
                size += len(data)
                spools.check(path.parent, size - len(data), size)
                await asyncio.to_thread(file.write, data)
                await told.progress(size, body.size)
        await told.progress(size, body.size, end=True)
        return Fetched(
            path=path,
            size=size,
            name=_name(body.url, body.headers),
            mtime=_time(body.headers.get("Last-Modified", "")),
            media_type=kind.lower(),
        )


def _name(url: URL, headers: Mapping[str, str]) -> str:
    """Return the file's name: the path's last component, else what the server says."""
    if not url.path.endswith("/"):
        return posixpath.basename(url.path)
    message = email.message.Message()
    message["Content-Disposition"] = headers.get("Content-Disposition", "")
    given = message.get_filename("")
    name = posixpath.basename(given) if not given.endswith("/") else ""
    return "" if name in (".", "..") or "\0" in name else name


def _time(text: str) -> int:
    try:
        seconds = int(email.utils.parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return 0
    return seconds if 0 < seconds < _MTIME_MOST else 0


async def pick(address: str, folder: Path, say: Say, stack: contextlib.AsyncExitStack) -> Picked:
    """Fetch a source of ADD; the file stays while *stack* does. Raises InternalError."""
    try:
        found = await stack.enter_async_context(fetched(address, folder, say, status="Downloading"))
    except HyperError as error:
        raise InternalError(f"ADD failed: {error.message}") from error
    await say(Output(text="\n"))
    name = found.name or UNNAMED
    node = Node(kind=tarfmt.FILE, mode=0o600, mtime=found.mtime, size=found.size)
    tree = Tree(found.path)
    tree.put(name, node)
    digest = await asyncio.to_thread(scan.sum_of_file, name, node, found.path)
    return Picked(
        tree=tree,
        path=name,
        real=name,
        node=node,
        digest=digest,
        url=address,
        named=bool(found.name),
    )


def is_dockerfile(found: Fetched, address: str) -> bool:
    """Tell whether a context is a Dockerfile, and no archive. Blocking.

    Raises InternalError for an empty answer.
    """
    if not found.size:
        raise InternalError(f"error detecting content type for remote {address}: empty response")
    if found.media_type not in _UNKNOWN:
        return found.media_type == TEXT
    with mapped("read a spool file"), found.path.open("rb") as file:
        return not _is_binary(os.pread(file.fileno(), PREAMBLE, 0))


def _check_type(kind: str, address: str) -> None:
    """Raise InternalError for a type that neither a Dockerfile nor an archive has."""
    if kind.lower() not in (*_UNKNOWN, TEXT) and not _ARCHIVE.match(kind.lower()):
        raise InternalError(
            f'error detecting content type for remote {address}: unsupported Content-Type "{kind}"'
        )


async def content(found: Fetched) -> AsyncIterator[bytes]:
    """Yield a fetched file's bytes."""
    with mapped("read a spool file"), found.path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, _EVERY):
            yield data


def _is_binary(data: bytes) -> bool:
    """Tell whether there are bytes that no text has (WHATWG, "MIME Sniffing", 3)."""
    return any(byte < 9 or byte == 11 or 14 <= byte < 27 or 28 <= byte < 32 for byte in data)
