"""How much is on its way at once: one per daemon, shared by all pulls and pushes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from hyperstack.config import Config
from hyperstack.image.reporting import Reporter


class Transfers:
    """Bounds downloads and uploads of blobs, as ``max-concurrent-downloads`` and ``-uploads``."""

    def __init__(self, config: Config) -> None:
        self._downloads = asyncio.Semaphore(max(1, config.max_concurrent_downloads))
        self._uploads = asyncio.Semaphore(max(1, config.max_concurrent_uploads))

    @contextlib.asynccontextmanager
    async def download(self, reporter: Reporter, id: str) -> AsyncIterator[None]:
        """Hold one of the places for downloads; says "Waiting" of *id* if none is free."""
        async with _place(self._downloads, reporter, id):
            yield

    @contextlib.asynccontextmanager
    async def upload(self, reporter: Reporter, id: str) -> AsyncIterator[None]:
        """Hold one of the places for uploads; says "Waiting" of *id* if none is free."""
        async with _place(self._uploads, reporter, id):
            yield


@contextlib.asynccontextmanager
async def _place(places: asyncio.Semaphore, reporter: Reporter, id: str) -> AsyncIterator[None]:
    if places.locked():
        reporter.say("Waiting", id)
    async with places:
        yield
