"""Image archives as they come in: files of a tar by name, spooled, hashed and never unpacked.

Names only serve to look files up; nothing of them reaches the host's file system. Links (older
archives have them for layers that repeat) are followed by name within the archive.
"""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt
from hyperstack.image.compression import inflate
from hyperstack.image.content import ContentStore, Spool, mapped
from hyperstack.image.lane import Lane
from hyperstack.image.layer import RESERVE, check_space

MAX_FILES = 20_000
MAX_LINKS = 8
_CHECK_EVERY = 64 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the archive: where it was spooled, its digest and bytes."""

    path: Path
    digest: str
    size: int


class Archive:
    """The files of one archive, looked up by their names in it."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._links: dict[str, str] = {}

    def add(self, name: str, file: File) -> None:
        """Note a file. Raises InvalidParameter if it is a blob whose digest is not its name's."""
        match = _BLOB.match(name)
        if match and file.digest != f"sha256:{match[1]}":
            raise InvalidParameter(f"blob {name} of the archive does not have the digest it claims")
        self._files[name] = file
        self._links.pop(name, None)

    def link(self, name: str, target: str) -> None:
        """Note a link to another file's name; whatever came last under a name counts."""
        self._links[name] = target
        self._files.pop(name, None)

    def names(self) -> Iterator[str]:
        """Yield the names of all files."""
        yield from self._files

    def find(self, name: str) -> File | None:
        """Return a file by name, through links."""
        clean = _clean(name)
        for _ in range(MAX_LINKS):
            if clean in self._files:
                return self._files[clean]
            if clean not in self._links:
                return None
            clean = self._links[clean]
        return None

    def get(self, name: str) -> File:
        """Return a file by name. Raises InvalidParameter if there is none."""
        file = self.find(name)
        if file is None:
            raise InvalidParameter(f"open {name[:200]}: no such file or directory")
        return file

    def blob(self, digest: str) -> File | None:
        """Return a file by its digest in an OCI layout."""
        return self._files.get(f"blobs/{digest.replace(':', '/', 1)}")

    def read(self, file: File, limit: int) -> bytes:
        """Return a small file's bytes. Raises InvalidParameter if it is over *limit* bytes."""
        if file.size > limit:
            raise InvalidParameter(f"a file of the archive is larger than {limit >> 20} MiB")
        with mapped("read an archive"):
            return file.path.read_bytes()


@contextlib.asynccontextmanager
async def received(content: ContentStore, body: AsyncIterator[bytes]) -> AsyncIterator[Archive]:
    """Take in an archive, compressed or not; what was not adopted is gone afterwards.

    Raises InvalidParameter if it is no tar or over a bound.
    """
    archive = Archive()
    async with contextlib.AsyncExitStack() as stack:
        lane = Lane("archive")
        stack.push_async_callback(lane.close)
        reader = _Reader(inflate(body))
        checked = 0
        while (header := await reader.next()) is not None:
            name = _clean(header.name.decode(errors="replace"))
            if header.type in (tarfmt.SYMLINK, tarfmt.HARD_LINK):
                archive.link(name, _target(name, header))
            if header.type not in (tarfmt.FILE, tarfmt.CONTIGUOUS):
                continue
            spool = await stack.enter_async_context(content.spool(lane))
            async for data in reader.data():
                await spool.write(data)
                checked += len(data)
                if checked >= _CHECK_EVERY:
                    checked = 0
                    check_space(content.root, RESERVE)
            archive.add(name, await _finished(spool))
        yield archive


async def _finished(spool: Spool) -> File:
    await spool.finish()
    return File(path=spool.path, digest=spool.digest, size=spool.offset)


def _target(name: str, header: tarfmt.Header) -> str:
    link = header.link.decode(errors="replace")
    if header.type == tarfmt.SYMLINK:
        return _clean(posixpath.join(posixpath.dirname(name), link))
    return _clean(link)


def _clean(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")


class _Reader:
    """Members of a tar that comes in chunks."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._have = b""
        self._left = 0
        """Bytes of the current member's data."""
        self._padding = 0
        self._count = 0

    async def next(self) -> tarfmt.Header | None:
        """Pass over what is left of the current member and return the next one's header."""
        async for _ in self.data():
            pass
        extension: dict[int, bytes] = {}
        while True:
            block = await self._exactly(tarfmt.BLOCK, end_is_fine=not extension)
            if block is None or block == tarfmt.ZERO:
                await self._rest()
                return None
            header = tarfmt.parse(block)
            if header.type not in tarfmt.EXTENSIONS:
                return self._begin(header, extension)
            if not 0 < header.size <= tarfmt.MAX_EXTENSION:
                raise InvalidParameter("archive/tar: header field too long")
            data = await self._exactly(tarfmt.padded(header.size))
            assert data is not None
            extension[header.type] = data[: header.size]

    def _begin(self, header: tarfmt.Header, extension: dict[int, bytes]) -> tarfmt.Header:
        self._count += 1
        if self._count > MAX_FILES:
            raise InvalidParameter(f"the archive has more than {MAX_FILES} files")
        pax = tarfmt.parse_pax(extension.get(tarfmt.PAX, b""))
        for key, kind in ((b"path", tarfmt.LONG_NAME), (b"linkpath", tarfmt.LONG_LINK)):
            value = pax.get(key) or extension.get(kind, b"").split(b"\0", 1)[0]
            if value and key == b"path":
                header.name = value
            elif value:
                header.link = value
        if b"size" in pax and header.type in (tarfmt.FILE, tarfmt.CONTIGUOUS):
            header.size = tarfmt.pax_number(pax[b"size"])
        if max(len(header.name), len(header.link)) > tarfmt.MAX_PATH:
            raise InvalidParameter("a name in the archive is too long")
        self._left = header.size
        self._padding = tarfmt.padded(header.size) - header.size
        return header

    async def data(self) -> AsyncIterator[bytes]:
        """Yield what is left of the current member's data, and pass over its padding."""
        while self._left:
            if not self._have and not await self._more():
                raise InvalidParameter("unexpected EOF")
            part, self._have = self._have[: self._left], self._have[self._left :]
            self._left -= len(part)
            yield part
        if self._padding:
            await self._exactly(self._padding)
            self._padding = 0

    async def _exactly(self, count: int, *, end_is_fine: bool = False) -> bytes | None:
        while len(self._have) < count:
            if not await self._more():
                if end_is_fine and not self._have:
                    return None
                raise InvalidParameter("unexpected EOF")
        block, self._have = self._have[:count], self._have[count:]
        return block

    async def _more(self) -> bool:
        data = await anext(self._chunks, None)
        if data:
            self._have += data
        return data is not None

    async def _rest(self) -> None:
        """Read on to the stream's end, so that whoever writes it can finish."""
        self._have = b""
        async for _ in self._chunks:
            await asyncio.sleep(0)
