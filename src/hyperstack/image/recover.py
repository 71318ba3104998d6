"""Recovery: what an earlier daemon left half made is removed before anybody asks for images.

An image's rows are written last, so that files without a row are what is left over: output of
conversions, spools, layers and blobs of pulls that never ended. Blobs (whole or partial) that are
younger than a day stay, since the same pull is likely to be tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time

from hyperstack.image.store import PATIENCE, ImageStore

log = logging.getLogger(__name__)


async def recover(store: ImageStore) -> None:
    """Clear leftovers, and say so if there were any. Raises InternalError if the disk fails."""
    jobs = await asyncio.to_thread(store.layers.clear_jobs)
    spools = await asyncio.to_thread(store.content.clear_partial, time.time() - PATIENCE)
    await store.drop_hidden()
    freed = await store.collect()
    if jobs or spools or freed:
        log.info(
            "images: cleared %d unfinished conversions and %d unfinished blobs, freed %d KiB",
            jobs,
            spools,
            freed >> 10,
        )
    for image in store.catalog:
        missing = [d for d in image.diff_ids if not store.layers.has(d)]
        if missing:
            log.error(
                "image %s lacks %d of its layers; pull or load it again",
                image.id[:19],
                len(missing),
            )
