"""``import``: an image of one layer, from the tar of a root file system (compressed or not)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from hyperstack.errors import InvalidParameter
from hyperstack.image import configfile
from hyperstack.image.changes import apply_changes
from hyperstack.image.compression import SNIFF, Compression, inflate, sniff
from hyperstack.image.configfile import ImageConfig
from hyperstack.image.manifest import Platform, host
from hyperstack.image.progress import Progress
from hyperstack.image.reference import Reference
from hyperstack.image.store import ImageStore
from hyperstack.image.values import (
    LAYER_GZIP,
    LAYER_TAR,
    OCI_LAYER,
    HistoryEntry,
    Image,
    LayerBlob,
)
from hyperstack.model import ContainerConfig

MEDIA_TYPES = {
    Compression.NONE: LAYER_TAR,
    Compression.GZIP: LAYER_GZIP,
    Compression.ZSTD: f"{OCI_LAYER}+zstd",
}
"""Layers that are kept as they came; others are kept uncompressed."""


async def import_image(
    store: ImageStore,
    body: AsyncIterator[bytes],
    *,
    repo: str,
    tag: str,
    message: str,
    changes: Sequence[str],
    platform: str,
    source: str,
) -> AsyncGenerator[Progress, None]:
    """Make an image of the tar in *body*; the last line is its id.

    Raises InvalidParameter for a bad name, platform or change, and for what is no tar.
    """
    name = _name(repo, tag)
    wanted = Platform.parse(platform) if platform else host()
    if wanted.os != "linux":
        raise InvalidParameter(f"operating system {wanted.os} is not supported")
    config = apply_changes(ContainerConfig(), changes)
    with store.hold():
        diff_id, blob = await _take(store, body)
        image = await _add(
            store, diff_id, blob, name, wanted, config, message or f"Imported from {source}"
        )
    if name is not None:
        store.event("tag", image, name.familiar())
    store.event("import", image)
    yield Progress(status=image.id)


def _name(repo: str, tag: str) -> Reference | None:
    if not repo:
        return None
    name = Reference.parse_with_tag(repo, tag)
    if name.digest is not None:
        raise InvalidParameter("cannot import digest reference")
    return name.tagged()


async def _add(
    store: ImageStore,
    diff_id: str,
    blob: LayerBlob,
    name: Reference | None,
    platform: Platform,
    config: ContainerConfig,
    comment: str,
) -> Image:
    now = configfile.from_ns(time.time_ns())
    image = ImageConfig(
        created=now,
        comment=comment,
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        config=config,
        diff_ids=(diff_id,),
        history=(HistoryEntry(created=now, comment=comment),),
    )
    names = [name] if name else []
    return await store.add(config=configfile.encode(image), layers=[blob], names=names)


async def _take(store: ImageStore, body: AsyncIterator[bytes]) -> tuple[str, LayerBlob]:
    """Store the tar as a blob and as a layer, both while it comes in."""
    start = b""
    async for data in body:
        start += data
        if len(start) >= SNIFF:
            break
    media_type = MEDIA_TYPES.get(sniff(start))
    chunks = _chain(start, body)
    if media_type is None:
        media_type, chunks = LAYER_TAR, inflate(chunks)
    async with store.content.spool() as spool, store.layers.apply_stream(None) as layer:
        async for data in chunks:
            await spool.write(data)
            await layer.write(data)
        await spool.finish()
        info = await layer.commit()
        await asyncio.to_thread(store.content.adopt, spool.path, spool.digest)
    return info.diff_id, LayerBlob(digest=spool.digest, size=spool.offset, media_type=media_type)


async def _chain(start: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for data in rest:
        yield data
