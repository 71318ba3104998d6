"""``import``: an image of one layer, from the tar of a root file system (compressed or not)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from hyperstack import __version__
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image import configfile
from hyperstack.image.compression import SNIFF, Compression, inflate, sniff
from hyperstack.image.configfile import ImageConfig
from hyperstack.image.manifest import Platform, host
from hyperstack.image.progress import Progress
from hyperstack.image.reference import Reference, tag_name
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

if TYPE_CHECKING:
    from hyperstack.image.reporting import Reporter

Taken = tuple[str, LayerBlob]
"""A layer that is here: its diff id and its blob."""
MEDIA_TYPES = {
    Compression.NONE: LAYER_TAR,
    Compression.GZIP: LAYER_GZIP,
    Compression.ZSTD: f"{OCI_LAYER}+zstd",
}
"""Layers that are kept as they came; others are kept uncompressed."""


async def import_image(
    store: ImageStore,
    body: AsyncIterator[bytes] | str,
    *,
    repo: str,
    tag: str,
    message: str,
    config: ContainerConfig,
    platform: str,
) -> AsyncGenerator[Progress, None]:
    """Make an image of the tar in *body*, or at the address that it is; the last line is its id.

    Raises InvalidParameter for a bad name, platform, or address, InternalError for what is
    no tar (as dockerd has it) or can't be fetched.
    """
    name = tag_name(repo, tag) if repo else None
    wanted = _platform(platform)
    source = "-" if not isinstance(body, str) else _source(body)
    taken: list[Taken] = []
    with store.hold():
        if isinstance(body, str):
            async with contextlib.aclosing(_download(store, source, taken)) as lines:
                async for line in lines:
                    yield line
        else:
            taken.append(await _take(store, body))
        comment = message or f"Imported from {source}"
        image = await _add(store, taken[0], name, wanted, config, comment)
    if name is not None:
        store.event("tag", image, name.familiar())
    store.event("import", image)
    yield Progress(status=image.id)


def _platform(text: str) -> Platform:
    """Return what the image is said to be made for. Raises InvalidParameter."""
    wanted = Platform.parse(text) if text else host()
    if wanted.os != "linux":
        raise InvalidParameter("operating system is not supported")
    return wanted


def _source(text: str) -> str:
    # The client for web addresses takes longer to import than the daemon has to start.
    from hyperstack.image.fetch import source_of

    return source_of(text)


def _download(store: ImageStore, source: str, taken: list[Taken]) -> AsyncGenerator[Progress, None]:
    from hyperstack.image.fetch import fetched
    from hyperstack.image.reporting import reported

    async def work(reporter: Reporter) -> None:
        async with fetched(source) as found:
            reporter.say(f"Downloading from {source}")
            taken.append(await _take(store, _counted(found.chunks, found.size, reporter)))

    return reported("import", work)


async def _counted(
    chunks: AsyncIterator[bytes], size: int, reporter: Reporter
) -> AsyncIterator[bytes]:
    done = 0
    async for data in chunks:
        done += len(data)
        reporter.bar("Importing", "", done, size)
        yield data


async def _add(
    store: ImageStore,
    layer: Taken,
    name: Reference | None,
    platform: Platform,
    config: ContainerConfig,
    comment: str,
) -> Image:
    diff_id, blob = layer
    now = configfile.from_ns(time.time_ns())
    image = ImageConfig(
        created=now,
        comment=comment,
        docker_version=__version__,
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        config=config,
        diff_ids=(diff_id,),
        history=(HistoryEntry(created=now, comment=comment),),
    )
    names = [name] if name else []
    return await store.add(config=configfile.encode(image), layers=[blob], names=names)


async def _take(store: ImageStore, body: AsyncIterator[bytes]) -> Taken:
    """Store the tar as a blob and as a layer, both while it comes in.

    Raises InternalError for what is none: dockerd calls it its own failure.
    """
    try:
        return await stored(store, body)
    except InvalidParameter as error:
        raise InternalError(error.message) from error


async def stored(store: ImageStore, body: AsyncIterator[bytes]) -> Taken:
    """Store a tar as a blob and as a layer. Raises InvalidParameter for what is none."""
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
