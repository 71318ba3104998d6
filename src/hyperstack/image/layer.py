"""The layer store: one read-only EROFS file per layer, named by its diff id.

    root/HEX.erofs    HEX is the diff id's; root's, mode 0444, never changed
    root/jobs/*       output of running conversions; worthless after a crash

A layer's bytes flow once: decompressed, hashed to the diff id, checked (tarscan.py) and piped into
mkfs.erofs (erofs.py) in one thread, while the next bytes come from the network or the disk. The
file appears by rename after its diff id was verified.

A manifest may claim that any blob holds a layer which is here already. Unless that was *proven*
before, the blob is decompressed and hashed all the same: else a registry or an archive could put
its own bytes where others' pushes and saves take that layer from.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import select
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.guest.kit import Kit
from hyperstack.image import erofs
from hyperstack.image.compression import SniffingDecoder
from hyperstack.image.content import BATCH, KeyedLocks, hex_of, mapped, sync_folder
from hyperstack.image.lane import Lane
from hyperstack.image.tarscan import TarScanner
from hyperstack.image.values import LayerInfo

MAX_TAR = 128 << 30
"""Bytes of one uncompressed layer."""
RESERVE = 256 << 20
"""Bytes of the disk that a layer never takes."""
MAX_JOBS = 4
_CHECK_EVERY = 64 << 20
_READ = 1 << 20

Report = Callable[[int], None]


class LayerStore:
    """Layers under *root*; one daemon at a time."""

    def __init__(self, config: Config, kit: Kit, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self._config = config
        self._kit = kit
        self._known: dict[str, LayerInfo] = {}
        self._proven: dict[str, set[str]] = {}
        """Digests of the blobs that are known to hold a layer, by its diff id."""
        self._locks = KeyedLocks()
        self._slots = asyncio.Semaphore(MAX_JOBS)
        with mapped("make the layer store"):
            root.mkdir(parents=True, exist_ok=True, mode=0o710)
            self.jobs.mkdir(exist_ok=True, mode=0o710)

    def know(self, layers: Iterable[LayerInfo]) -> None:
        """Take over what the database says of layers."""
        self._known.update((layer.diff_id, layer) for layer in layers)

    def path(self, diff_id: str) -> Path:
        """Return where the layer's file lies, or would. Raises InvalidParameter for a bad id."""
        return self.root / f"{hex_of(diff_id)}.erofs"

    def has(self, diff_id: str) -> bool:
        """Tell whether the layer is here, and its file is whole."""
        return diff_id in self._known and erofs.is_whole(self.path(diff_id))

    def info(self, diff_id: str) -> LayerInfo:
        """Return what is known of a layer that is here. Raises InternalError if it is not."""
        if not self.has(diff_id):
            raise InternalError(f"layer {diff_id} does not exist")
        return self._known[diff_id]

    def prove(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Note that blobs hold layers (diff id and digest), both of which have been verified."""
        for diff_id, digest in pairs:
            self._proven.setdefault(diff_id, set()).add(digest)

    def proven(self, diff_id: str, digest: str) -> bool:
        """Tell whether a layer is here that a blob, by its digest, is known to hold."""
        known = diff_id == digest or digest in self._proven.get(diff_id, ())
        return known and self.has(diff_id)

    async def apply(
        self,
        diff_id: str | None,
        blob: Path,
        media_type: str = "",
        report: Report | None = None,
        *,
        proven: bool = False,
    ) -> LayerInfo:
        """Make the layer from a blob that is here.

        If the layer is here too the blob is only verified; with *proven* nothing happens then.
        *report* is told the bytes of the blob that are done, from time to time. Raises what
        ``LayerWriter.commit`` raises.
        """
        async with self.apply_stream(diff_id, media_type, proven=proven) as layer:
            if layer.complete:
                return await layer.commit()
            with mapped("read a layer"):
                file = blob.open("rb", buffering=0)
            done = 0
            with file:
                while data := await asyncio.to_thread(_read, file.fileno()):
                    await layer.write(data)
                    done += len(data)
                    if report is not None:
                        report(done)
            return await layer.commit()

    @contextlib.asynccontextmanager
    async def apply_stream(
        self, diff_id: str | None, media_type: str = "", *, proven: bool = False
    ) -> AsyncIterator[LayerWriter]:
        """Make a layer from the bytes of a blob that are written to what this gives.

        One at a time per *diff_id*, the others wait; None means that the diff id is not known
        beforehand. How the bytes are compressed is seen from them, as Docker does; *media_type*
        must be a layer's. If the layer is here the bytes are only verified, or, if they are
        *proven* to be it, it is ``complete``: nothing needs to be written. Without ``commit``
        nothing is left.
        """
        check_media_type(media_type)
        async with contextlib.AsyncExitStack() as stack:
            if diff_id is not None:
                await stack.enter_async_context(self._locks.hold(diff_id))
            here = diff_id is not None and self.has(diff_id)
            if here and proven:
                yield LayerWriter(self, diff_id, None, complete=True)
                return
            await stack.enter_async_context(self._slots)
            job = None
            if not here:
                job = await stack.enter_async_context(
                    erofs.conversion(self._config, self._kit, self.jobs)
                )
            writer = LayerWriter(self, diff_id, job)
            stack.push_async_callback(writer.close)
            yield writer

    def add(self, output: Path, diff_id: str, tar_size: int, content_size: int) -> LayerInfo:
        """Take a conversion's output in; blocking."""
        disk_size = erofs.seal(output, self.path(diff_id))
        info = LayerInfo(
            diff_id=diff_id, tar_size=tar_size, content_size=content_size, disk_size=disk_size
        )
        self._known[diff_id] = info
        return info

    def sync(self) -> None:
        """Make the names of all layers durable; blocking."""
        sync_folder(self.root)

    def discard(self, diff_ids: Iterable[str]) -> list[Path]:
        """Forget layers at once; what this returns is to be unlinked. Who has one open keeps it."""
        trash = []
        for diff_id in diff_ids:
            self._known.pop(diff_id, None)
            self._proven.pop(diff_id, None)
            target = self.jobs / f"trash-{secrets.token_hex(8)}"
            with contextlib.suppress(FileNotFoundError):
                self.path(diff_id).rename(target)
                trash.append(target)
        return trash

    def diff_ids(self) -> Iterator[str]:
        """Yield the diff id of every file that is here."""
        for entry in os.scandir(self.root):
            name = entry.name.removesuffix(".erofs")
            if name != entry.name and len(name) == 64:
                yield f"sha256:{name}"

    def clear_jobs(self) -> int:
        """Remove what conversions of an earlier daemon left; return how many there were."""
        left = list(self.jobs.iterdir())
        for path in left:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        return len(left)


class WrongContent(InvalidParameter):
    """A layer's content is another one than the one that was promised."""

    def __init__(self, wanted: str, found: str) -> None:
        super().__init__(f"layer verification failed: its content is {found}, not {wanted}")
        self.found = found


class LayerWriter:
    """A layer on its way in. ``complete``: it was here already, or has been committed.

    Without a *job* the bytes are only compared with the layer, which is here.
    """

    def __init__(
        self,
        store: LayerStore,
        diff_id: str | None,
        job: erofs.Conversion | None,
        *,
        complete: bool = False,
    ) -> None:
        self.diff_id = diff_id
        self.complete = complete
        self._store = store
        self._job = job
        self._lane = Lane("layer")
        self._batch: list[bytes] = []
        self._waiting = 0
        self._hash = hashlib.sha256()
        self._scanner = TarScanner()
        self._decoder = SniffingDecoder(self._plain)
        self._tar_size = 0
        self._written = 0
        """Bytes that mkfs.erofs has got: more than the tar's if that has sparse files."""
        self._next_check = 0
        self._ended = False

    @property
    def entries(self) -> int:
        """How many entries the layer has; known after ``commit``."""
        return self._scanner.entries

    async def write(self, data: bytes) -> None:
        """Take the next bytes of the blob; waits while the conversion is busy.

        Raises what is wrong with earlier ones, see ``commit``.
        """
        if self.complete:
            return
        self._batch.append(data)
        self._waiting += len(data)
        if self._waiting >= BATCH:
            await self._flush()

    async def commit(self) -> LayerInfo:
        """Verify the diff id and put the layer into the store.

        Raises InvalidParameter, one sentence, for damaged or refused content; InternalError if the
        disk is full or the conversion could not run.
        """
        if self.complete:
            assert self.diff_id is not None
            return self._store.info(self.diff_id)
        try:
            await self._flush()
            await self._lane.put(self._end)
            await self._lane.drain()
        except BrokenPipeError:
            await self._reader_gone()
        if self._job is not None:
            await self._job.finish()
        found = f"sha256:{self._hash.hexdigest()}"
        if self.diff_id is not None and found != self.diff_id:
            raise WrongContent(self.diff_id, found)
        if self._job is not None:
            add, size = self._store.add, self._scanner.content_size
            await asyncio.to_thread(add, self._job.output, found, self._tar_size, size)
        self.diff_id, self.complete = found, True
        return self._store.info(found)

    async def close(self) -> None:
        """End the thread; what waits for it is dropped."""
        self._ended = True
        await self._lane.close()
        if self._job is not None:
            self._job.close_input()

    async def _flush(self) -> None:
        batch, self._batch, self._waiting = self._batch, [], 0
        if not batch:
            return
        try:
            await self._lane.put(lambda: self._decode(batch))
        except BrokenPipeError:
            await self._reader_gone()

    async def _reader_gone(self) -> None:
        """mkfs.erofs stopped reading: let it say why."""
        assert self._job is not None
        await self._job.finish()
        raise InvalidParameter("layer is not a valid tar: it goes on behind its end")

    def _decode(self, batch: list[bytes]) -> None:
        for data in batch:
            self._decoder.write(data)

    def _end(self) -> None:
        self._decoder.finish()
        if self._job is not None:
            self._put(self._scanner.finish())

    def _plain(self, data: bytes) -> None:
        """Take uncompressed bytes; in the lane's thread."""
        self._hash.update(data)
        self._tar_size += len(data)
        if self._tar_size > MAX_TAR:
            raise InvalidParameter(f"layer is larger than {MAX_TAR >> 30} GiB")
        if self._job is not None:
            self._put(self._scanner.feed(data))

    def _put(self, pieces: list[bytes | memoryview]) -> None:
        """Write to mkfs.erofs; waits while its pipe is full, unless nobody wants it any more."""
        assert self._job is not None
        for start in range(0, len(pieces), 512):  # writev(2) takes 1024 at once
            part = pieces[start : start + 512]
            left = sum(map(len, part))
            while left:
                try:
                    written = os.writev(self._job.fd, part)
                except BlockingIOError:
                    self._wait_for_room()
                    continue
                left -= written
                self._written += written
                if self._written >= self._next_check:
                    self._next_check = self._written + _CHECK_EVERY
                    check_space(self._store.root, RESERVE)
                part = _without(part, written) if left else []

    def _wait_for_room(self) -> None:
        assert self._job is not None
        poll = select.poll()
        poll.register(self._job.fd, select.POLLOUT)
        while not poll.poll(100):
            if self._ended:
                raise InternalError("the conversion of a layer was given up")


def _without(pieces: list[bytes | memoryview], count: int) -> list[bytes | memoryview]:
    """Return what is left of *pieces* behind their first *count* bytes."""
    for number, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[number + 1 :]]
        count -= len(piece)
    return []


def check_space(folder: Path, needed: int) -> None:
    """Raise InternalError if *folder*'s disk has less than *needed* bytes left."""
    with mapped("look at the disk"):
        status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < needed:
        raise InternalError("cannot store a layer: no space left on device")


def check_media_type(media_type: str) -> None:
    """Raise InvalidParameter unless *media_type* is empty or that of a file system layer."""
    plain = media_type.split("+")[0].removesuffix(".gzip").removesuffix(".zstd")
    if media_type and not plain.endswith((".tar", ".tar.foreign", "/x-tar", "/octet-stream")):
        raise InvalidParameter(f"unsupported layer media type {media_type[:200]!r}")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ)
    except OSError as error:
        raise InternalError(f"cannot read a layer: {error.strerror}") from error
