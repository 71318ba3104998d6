"""Recovery: what an earlier daemon left half made is removed before anybody asks for images.

An image's rows are written last, so that files without a row are what is left over: output of
conversions, spools, layers and blobs of pulls that never ended. Blobs (whole or partial) that are
younger than a day stay, since the same pull is likely to be tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time

from hyperstack.errors import HyperError
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
    await _mend(store)


async def _mend(store: ImageStore) -> None:
    """Make layers again that have lost their file, from their blobs."""
    broken: set[str] = set()
    for diff_id in sorted(store.catalog.needed_layers()):
        if store.layers.has(diff_id):
            continue
        try:
            blob = store.blob_of(diff_id)
            await store.layers.apply(diff_id, store.content.path(blob.digest))
            log.warning("layer %s had lost its file and was made again", diff_id[7:19])
        except HyperError as error:
            log.warning("layer %s can't be made again: %s", diff_id[7:19], error)
            broken.add(diff_id)
    for image in store.catalog:
        if broken & set(image.diff_ids):
            log.error("image %s lacks layers; pull or load it again", image.id[7:19])
