"""The content store: blobs of layers by digest, byte for byte as they came.

    root/sha256/HEX      a verified blob, read-only, never changed
    root/partial/HEX     bytes of a blob that is on its way; a later ingest goes on from there
    root/partial/tmp-*   spools of unknown digest; worthless after a crash

A blob appears by rename after its digest was verified and its bytes were synced; the names become
durable by one ``sync`` before the rows of an image that needs them are written (service.py).
Digests: OCI image specification 1.1, "Digests"; sha256 alone is taken, as by Docker.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image.lane import Lane

BATCH = 1 << 19
"""Bytes that are collected before a thread is troubled with them."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def hex_of(digest: str) -> str:
    """Return the 64 hex digits of a digest. Raises InvalidParameter unless it is a sha256 one."""
    if not _DIGEST.match(digest):
        raise InvalidParameter(f"invalid checksum digest format: {digest[:100]!r}")
    return digest[7:]


class ContentStore:
    """Blobs under *root*; one daemon at a time. Methods that only look never block for long."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "sha256"
        self.partial = root / "partial"
        self._locks = KeyedLocks()
        with mapped("make the content store"):
            for folder in (self.blobs, self.partial):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: str) -> Path:
        """Return where the blob lies, or would. Raises InvalidParameter for a bad digest."""
        return self.blobs / hex_of(digest)

    def has(self, digest: str) -> bool:
        """Tell whether the whole, verified blob is here."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """Return the bytes of a blob that is here. Raises InternalError if it is not."""
        with mapped(f"read blob {digest}"):
            return self.path(digest).stat().st_size

    @contextlib.asynccontextmanager
    async def ingest(self, digest: str, size: int) -> AsyncIterator[Ingest]:
        """Take in a blob of *size* bytes; one at a time per digest, the others wait.

        Write from ``Ingest.offset`` on, then ``commit``. If it is ``complete`` (somebody else was
        faster) there is nothing to write. What was written stays for a later try unless the blob
        turned out to be wrong. Raises InvalidParameter for a bad digest or size.
        """
        path = self.path(digest)
        if size < 0:
            raise InvalidParameter(f"invalid size {size} of blob {digest}")
        async with self._locks.hold(digest):
            job = Ingest(self, digest, size, self.partial / path.name)
            try:
                await job.open()
                yield job
            finally:
                await job.close()

    @contextlib.asynccontextmanager
    async def spool(self, lane: Lane | None = None) -> AsyncIterator[Spool]:
        """Take in bytes whose digest is not known yet; gone at the end unless adopted.

        *lane* may be shared by spools that are written one after another.
        """
        job = Spool(self.partial / f"tmp-{secrets.token_hex(8)}", lane)
        try:
            yield job
        finally:
            await job.close()

    def adopt(self, spooled: Path, digest: str) -> None:
        """Make a file of the partial folder, hashed by us to *digest*, a blob; blocking."""
        with mapped(f"store blob {digest}"):
            target = self.path(digest)
            fd = os.open(spooled, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(fd, 0o400)
                os.fsync(fd)
            finally:
                os.close(fd)
            spooled.rename(target)

    def adopt_link(self, file: Path, digest: str) -> None:
        """Make a file of the data root, hashed by us to *digest*, a blob by another name of it.

        Blocking. The file must not be written any more; its first name may be removed.
        """
        link = self.partial / f"tmp-{secrets.token_hex(8)}"
        with mapped(f"store blob {digest}"):
            os.link(file, link, follow_symlinks=False)
        self.adopt(link, digest)

    def sync(self) -> None:
        """Make the names of all blobs durable; blocking."""
        sync_folder(self.blobs)

    def discard(self, digests: Iterable[str]) -> list[Path]:
        """Forget blobs at once; what this returns is to be unlinked, which may take its time."""
        trash = []
        for digest in digests:
            target = self.partial / f"tmp-{secrets.token_hex(8)}"
            with contextlib.suppress(FileNotFoundError):
                self.path(digest).rename(target)
                trash.append(target)
        return trash

    def changed(self, digest: str) -> float:
        """Return when a blob was stored, in seconds since the epoch; 0 if it is not here."""
        try:
            return self.path(digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def clear_partial(self, older_than: float) -> int:
        """Remove spools, and partial blobs untouched since *older_than*; return how many."""
        count = 0
        with mapped("clear the content store"):
            for path in self.partial.iterdir():
                if path.name.startswith("tmp-") or path.stat().st_mtime <= older_than:
                    path.unlink()
                    count += 1
        return count

    def digests(self) -> Iterator[str]:
        """Yield the digest of every blob that is here."""
        for entry in os.scandir(self.blobs):
            if _DIGEST.match(f"sha256:{entry.name}"):
                yield f"sha256:{entry.name}"


class Spool:
    """A file that is written and hashed at once. ``digest`` holds after ``finish``."""

    def __init__(self, path: Path, lane: Lane | None = None) -> None:
        self.path = path
        self.offset = 0
        """Bytes that were written so far."""
        self._hash = hashlib.sha256()
        self._shared = lane is not None
        self._lane = lane or Lane("spool")
        self._batch: list[bytes] = []
        self._waiting = 0
        self._fd = -1

    @property
    def digest(self) -> str:
        """The sha256 digest of what was written and flushed."""
        return f"sha256:{self._hash.hexdigest()}"

    async def write(self, data: bytes) -> None:
        """Append *data*; waits when the disk is slower. Raises InternalError if it is full."""
        self._batch.append(data)
        self._waiting += len(data)
        self.offset += len(data)
        if self._waiting >= BATCH:
            await self._flush()

    async def finish(self) -> None:
        """Return when all bytes are hashed and in the file (not yet synced)."""
        await self._flush()
        await self._lane.put(self._open)  # an empty file is a file too
        await self._lane.drain()
        self._close_file()

    async def close(self) -> None:
        """End it; the file is removed unless it was adopted."""
        if not self._shared:
            await self._lane.close()
        self._close_file()
        self.path.unlink(missing_ok=True)

    async def _flush(self) -> None:
        batch, self._batch, self._waiting = self._batch, [], 0
        if batch:
            await self._lane.put(lambda: self._append(batch))

    def _open(self) -> None:
        if self._fd < 0:
            with mapped("store a blob"):
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND
                self._fd = os.open(self.path, flags, 0o600)

    def _append(self, batch: list[bytes]) -> None:
        self._open()
        with mapped("store a blob"):
            for data in batch:
                write_all(self._fd, data)
                self._hash.update(data)

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Ingest(Spool):
    """A blob of known digest on its way in. ``offset``: bytes that are here already."""

    def __init__(self, store: ContentStore, digest: str, size: int, path: Path) -> None:
        super().__init__(path)
        self.wanted = digest
        self.size = size
        self.complete = False
        """The blob is in the store: by an earlier ingest, or by ``commit``."""
        self._store = store

    async def open(self) -> None:
        """Find what an earlier try left."""
        self.complete = self._store.has(self.wanted)
        if not self.complete:
            await self._lane.put(self._resume)
            await self._lane.drain()

    async def write(self, data: bytes) -> None:
        """Append *data*. Raises InvalidParameter for more bytes than the blob has."""
        if self.offset + len(data) > self.size:
            await self.restart()
            raise InvalidParameter(
                f"blob {self.wanted} is longer than the {self.size} bytes it has"
            )
        await super().write(data)

    async def restart(self) -> None:
        """Throw away what is here, to begin again at offset 0."""
        self._batch, self._waiting = [], 0
        with contextlib.suppress(InternalError):
            await self._lane.drain()
        self._hash = hashlib.sha256()
        self.offset = 0
        with mapped("store a blob"):
            if self.path.exists():
                os.truncate(self.path, 0)

    async def commit(self) -> None:
        """Verify size and digest and put the blob into the store.

        Raises InvalidParameter if they don't fit: what was written is thrown away then.
        """
        if self.complete:
            return
        if self.offset != self.size:
            raise InvalidParameter(
                f"blob {self.wanted} ended after {self.offset} of {self.size} bytes"
            )
        await self.finish()
        if self.digest != self.wanted:
            await self.restart()
            raise InvalidParameter(f"filesystem layer verification failed for digest {self.wanted}")
        await asyncio.to_thread(self._store.adopt, self.path, self.wanted)
        self.complete = True

    async def close(self) -> None:
        """End it; what was written is kept for the next try unless it is nothing."""
        self._batch = []
        with contextlib.suppress(InternalError, asyncio.CancelledError):
            await self._lane.drain()
        await self._lane.close()
        self._close_file()
        if self.complete or not self.offset:
            self.path.unlink(missing_ok=True)

    def _resume(self) -> None:
        self._open()
        with mapped("read a partial blob"):
            length = os.fstat(self._fd).st_size
            if length > self.size:
                os.ftruncate(self._fd, 0)
                return
            while data := os.pread(self._fd, 1 << 20, self.offset):
                self._hash.update(data)
                self.offset += len(data)


class KeyedLocks:
    """A lock per key; locks that nobody holds or waits for are forgotten."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of *key*."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of *data*; blocking."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* durable (fsync(2)); blocking."""
    with mapped(f"sync {folder.name}"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@contextlib.contextmanager
def mapped(action: str) -> Iterator[None]:
    """Map OSError to InternalError: what could not be done, and the system's reason."""
    try:
        yield
    except OSError as error:
        raise InternalError(f"cannot {action}: {error.strerror or error}") from error
