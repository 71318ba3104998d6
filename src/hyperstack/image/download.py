"""Getting one layer: from the registry into the content store and the layer store at once.

Every chunk goes to both. If the connection breaks, the next request asks for the rest; bytes that
an earlier pull left are hashed by the content store and fed to the layer first. Nothing counts
before the blob's digest and the layer's diff id have been verified. Layers are made side by side,
but shown as extracted from the lowest one up, as Docker extracts them.
"""

from __future__ import annotations

import asyncio
import contextlib

from hyperstack.errors import HyperError, InternalError
from hyperstack.ids import Digest, short
from hyperstack.image.content import Ingest
from hyperstack.image.faults import Fault, Unreachable
from hyperstack.image.layer import LayerWriter
from hyperstack.image.manifest import Descriptor
from hyperstack.image.registry import Repository, backoff
from hyperstack.image.reporting import Reporter, together
from hyperstack.image.seam import Images

FIRST_WAIT = 1.0
MAX_WAIT = 60.0
WORTH = 1 << 20
"""A try that got at least so many bytes does not count as failed."""
READ = 1 << 20


class Download:
    """The way of one layer."""

    def __init__(
        self,
        images: Images,
        repository: Repository,
        blob: Descriptor,
        diff_id: Digest,
        reporter: Reporter,
        below: Download | None = None,
    ) -> None:
        self.id = short(blob.digest)
        self.done = asyncio.Event()
        """Set when the layer and all below it are complete."""
        self._below = below
        self._images = images
        self._repository = repository
        self._blob = blob
        self._diff_id = diff_id
        self._reporter = reporter

    async def run(self) -> None:
        """Get the layer. Raises Fault and HyperError; what came of the blob is kept then."""
        async with (
            self._images.transfers.download(self._reporter, self.id),
            self._images.content.ingest(self._blob.digest, self._blob.size) as ingest,
        ):
            if ingest.complete:
                self._reporter.say("Download complete", self.id)
                await self._extract()
            else:
                await self._get(ingest)
            self._images.layers.prove([(self._diff_id, self._blob.digest)])
        # Without a place or a lock: the layer below may need them.
        if self._below is not None:
            await self._below.done.wait()
        self._extracted(self._blob.size)
        self._reporter.say("Pull complete", self.id)
        self.done.set()

    def _extracted(self, done: int) -> None:
        if self._below is None or self._below.done.is_set():
            self._reporter.bar("Extracting", self.id, done, self._blob.size)

    async def _extract(self) -> None:
        """Make the layer of a blob that is here."""
        await self._images.layers.apply(
            self._diff_id,
            self._images.content.path(self._blob.digest),
            self._blob.media_type,
            self._extracted,
            proven=self._proven,
        )

    @property
    def _proven(self) -> bool:
        return self._images.layers.proven(self._diff_id, self._blob.digest)

    async def _get(self, ingest: Ingest) -> None:
        resumed = ingest.offset > 0
        try:
            await self._both(ingest)
        except HyperError:
            if not resumed:
                raise
            # Perhaps what an earlier pull left is not what it seemed to be.
            await ingest.restart()
            await self._both(ingest)

    async def _both(self, ingest: Ingest) -> None:
        layers = self._images.layers
        kind = self._blob.media_type
        async with layers.apply_stream(self._diff_id, kind, proven=self._proven) as layer:
            await self._feed(ingest, layer)
            await self._download(ingest, layer)
            self._reporter.say("Verifying Checksum", self.id)
            await together((self._store(ingest), layer.commit()))

    async def _store(self, ingest: Ingest) -> None:
        await ingest.commit()
        self._reporter.say("Download complete", self.id)

    async def _feed(self, ingest: Ingest, layer: LayerWriter) -> None:
        """Give the layer what is here of the blob already."""
        if layer.complete or not ingest.offset:
            return
        try:
            with ingest.path.open("rb", buffering=0) as file:
                left = ingest.offset
                while left:
                    data = await asyncio.to_thread(file.read, min(READ, left))
                    if not data:
                        raise InternalError(f"the partial blob {self._blob.digest} has shrunk")
                    left -= len(data)
                    await layer.write(data)
        except OSError as error:
            raise InternalError(f"cannot read a partial blob: {error.strerror}") from error

    async def _download(self, ingest: Ingest, layer: LayerWriter) -> None:
        attempt = 1
        while ingest.offset < self._blob.size:
            before = ingest.offset
            try:
                await self._try(ingest, layer)
            except Fault as fault:
                attempt = 1 if ingest.offset - before >= WORTH else attempt
                wait = backoff(fault, attempt, FIRST_WAIT)
                attempts = self._images.config.max_download_attempts
                if not fault.retryable or attempt >= attempts or wait > MAX_WAIT:
                    raise
                await self._pause(round(wait))
                attempt += 1

    async def _try(self, ingest: Ingest, layer: LayerWriter) -> None:
        size = self._blob.size
        async with self._repository.blob(self._blob, ingest.offset) as (start, chunks):
            skip = ingest.offset - start
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    fresh = chunk[skip:] if skip else chunk
                    skip -= len(chunk) - len(fresh)
                    if fresh:
                        await ingest.write(fresh)
                        await layer.write(fresh)
                        self._reporter.bar("Downloading", self.id, ingest.offset, size)
        if ingest.offset < size:
            raise Unreachable(f"layer {self.id}: unexpected EOF", retryable=True)

    async def _pause(self, seconds: int) -> None:
        for left in range(seconds, 0, -1):
            plural = "" if left == 1 else "s"
            self._reporter.say(f"Retrying in {left} second{plural}", self.id)
            await asyncio.sleep(1)
