"""``commit``: an image of a parent's layers and one more, whose tar a guest wrote."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from hyperstack import __version__
from hyperstack.errors import NotFound
from hyperstack.image import configfile, manifest
from hyperstack.image.configfile import ImageConfig
from hyperstack.image.content import mapped
from hyperstack.image.reference import Reference
from hyperstack.image.store import ImageStore
from hyperstack.image.values import LAYER_TAR, HistoryEntry, Image, LayerBlob
from hyperstack.model import ContainerConfig

_READ = 1 << 20


async def commit(
    store: ImageStore,
    *,
    parent: str,
    layer: Path | None,
    config: ContainerConfig,
    container: str,
    created_by: str,
    author: str,
    comment: str,
    reference: str,
    made_of: ContainerConfig | None = None,
    announced: bool = True,
) -> str:
    """Make an image of *parent* (full id, or empty) and the tar *layer*; return its id.

    *made_of* is the configuration of the container that it is made of, *reference* the new image's
    name or empty; *announced*: events tell of it. No tar, or an empty one, adds no layer. Raises
    NotFound if the parent is gone, InvalidParameter for a bad name or a tar that is none.
    """
    name = Reference.parse(reference).tagged() if reference else None
    base = store.catalog.find(parent) if parent else None
    if parent and base is None:
        raise NotFound(f"No such image: {parent}")
    with store.hold():
        made = await _add_layer(store, layer) if layer is not None else None
        created = configfile.from_ns(time.time_ns())
        image = ImageConfig(
            created=created,
            author=author,
            comment=comment,
            container=container,
            docker_version=__version__,
            architecture=base.architecture if base else manifest.host().architecture,
            variant=base.variant if base else "",
            os=(base.os if base else "") or "linux",
            os_version=base.os_version if base else "",
            config=config,
            made_of=made_of,
            diff_ids=(*(base.diff_ids if base else ()), *((made[0],) if made else ())),
            history=(
                *(base.history if base else ()),
                HistoryEntry(
                    created=created,
                    author=author,
                    created_by=created_by,
                    comment=comment,
                    empty_layer=made is None,
                ),
            ),
        )
        blobs = [store.blob_of(diff_id) for diff_id in (base.diff_ids if base else ())]
        added = await store.add(
            config=configfile.encode(image),
            layers=[*blobs, *((made[1],) if made else ())],
            names=[name] if name else [],
            parent=parent if base and store.catalog.visible(parent) else "",
        )
    if announced:
        _announce(store, added, name)
    return added.id


async def restore(store: ImageStore, parent: str, source: Image, config: ContainerConfig) -> str:
    """Make the image that *source* was one step after *parent*, and return its id.

    *source*'s history and layers begin with those of *parent* (full id, or empty). If that step was
    its last one it is *source* itself, which has a parent from now on. *config* is the step's.
    """
    base = store.catalog.find(parent) if parent else None
    depth = len(base.history) if base else 0
    step = source.history[depth]
    layers = (len(base.diff_ids) if base else 0) + (not step.empty_layer)
    if len(source.history) == depth + 1:
        data, layers = store.config_of(source.id), len(source.diff_ids)
    else:
        image = ImageConfig(
            created=step.created,
            author=step.author,
            docker_version=source.docker_version,
            architecture=source.architecture,
            variant=source.variant,
            os=source.os,
            os_version=source.os_version,
            config=config,
            diff_ids=source.diff_ids[:layers],
            history=source.history[: depth + 1],
        )
        data = configfile.encode(image)
    with store.hold():
        blobs = [store.blob_of(diff_id) for diff_id in source.diff_ids[:layers]]
        return (await store.add(config=data, layers=blobs, parent=parent)).id


async def nothing(store: ImageStore) -> Path:
    """Return the layer of a tar without entries, making it if it is not here."""
    async with store.layers.apply_stream(configfile.EMPTY_LAYER) as writer:
        await writer.write(bytes(1024))
        await writer.commit()
    return store.layers.path(configfile.EMPTY_LAYER)


def _announce(store: ImageStore, image: Image, name: Reference | None) -> None:
    store.event("create", image)
    if name is not None:
        store.event("tag", image, name.familiar())


async def _add_layer(store: ImageStore, layer: Path) -> tuple[str, LayerBlob] | None:
    """Take in a plain tar as a layer and as a blob; None if there is nothing in it."""
    async with store.layers.apply_stream(None) as writer:
        with mapped("read the layer"):
            file = layer.open("rb", buffering=0)
        size = 0
        with file:
            while data := await asyncio.to_thread(file.read, _READ):
                await writer.write(data)
                size += len(data)
        info = await writer.commit()
    if not writer.entries:
        return None
    # A plain tar's diff id is its digest as a blob, so it is hashed and written only once.
    await asyncio.to_thread(store.content.adopt_link, layer, info.diff_id)
    return info.diff_id, LayerBlob(digest=info.diff_id, size=size, media_type=LAYER_TAR)
