"""``load``: images from an archive, Docker's (manifest.json) or an OCI layout (index.json).

Docker image specification 1.2 ("Combined Image JSON + Filesystem Changeset Format") and OCI image
specification 1.1 ("Image Layout"). Layers are kept as they came, so that saving them again gives
the same bytes; every digest and diff id is verified before an image exists.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.ids import short
from hyperstack.image import configfile, layout, legacy
from hyperstack.image.archive import Archive, File, received
from hyperstack.image.compression import SNIFF, inflate, sniff
from hyperstack.image.configfile import ImageConfig
from hyperstack.image.content import mapped
from hyperstack.image.importing import MEDIA_TYPES
from hyperstack.image.layer import WrongContent
from hyperstack.image.layout import Found
from hyperstack.image.manifest import LAYER_TYPES, Platform
from hyperstack.image.progress import Progress
from hyperstack.image.store import ImageStore
from hyperstack.image.values import LAYER_TAR, Image, LayerBlob

_READ = 1 << 20
_FIRST = 512 << 10
"""Bytes after which Docker shows a layer's progress first."""


async def load(
    store: ImageStore,
    body: AsyncIterator[bytes],
    *,
    quiet: bool,
    platform: Platform | None = None,
) -> AsyncGenerator[Progress, None]:
    """Take in all images of the archive in *body*; yields layers' progress and what was loaded.

    With *platform* only those that are made for it.

    Raises InvalidParameter, one sentence, for an archive that is damaged or over a bound. Images
    before the one that failed stay.
    """
    with store.hold():
        async with received(store.content, body) as archive:
            if layout.is_legacy(archive):
                for image in await legacy.load(store, archive):
                    store.event("load", image)
                return
            images = await asyncio.to_thread(layout.read, archive)
            parsed = [configfile.parse(found.config) for found in images]
            pairs = [p for p in zip(images, parsed, strict=True) if _is_for(platform, p[1])]
            images = [found for found, _ in pairs]
            for found, config in pairs:
                loading = _Loading(store, archive, found, config)
                async with contextlib.aclosing(loading.run()) as lines:
                    async for line in lines:
                        if line.stream or not quiet:
                            yield line
        # As dockerd has it, which counts the names of the last image alone.
        if not (images and images[-1].names):
            yield Progress(stream="".join(f"Loaded image ID: {found.id}\n" for found in images))
        await _link(store, images)


def _is_for(platform: Platform | None, config: ImageConfig) -> bool:
    made_for = Platform(os=config.os, architecture=config.architecture, variant=config.variant)
    return platform is None or platform.accepts(made_for)


async def _link(store: ImageStore, images: Sequence[Found]) -> None:
    """Note which images of an archive were made from others in it.

    Raises InternalError, as dockerd does, for a parent of which an image can't have been made.
    """
    here = {found.id for found in images}
    for found in images:
        if found.parent not in here:
            continue
        image, parent = store.catalog.find(found.id), store.catalog.find(found.parent)
        if image is None or parent is None:
            continue  # removed meanwhile
        if not _was_made_from(image, parent):
            raise InternalError(f"image {parent.id} is not a valid parent for {image.id}")
        await store.link(image.id, parent.id)


def _was_made_from(image: Image, parent: Image) -> bool:
    """Tell whether an image is one step further than *parent*; one without steps may be."""
    if not image.history and not parent.history:
        return image.id != parent.id
    return image.history[:-1] == parent.history and bool(image.history)


class _Loading:
    """One image of an archive."""

    def __init__(
        self, store: ImageStore, archive: Archive, found: Found, config: ImageConfig
    ) -> None:
        self._store = store
        self._archive = archive
        self._found = found
        self._config = config

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Store the layers, then the image."""
        found, blobs = self._found, []
        self._check()
        for number, file in enumerate(found.layers):
            diff_id = self._config.diff_ids[number]
            if file is not None and not self._store.layers.has(diff_id):
                yield _bar(diff_id, file, min(file.size, _FIRST))
                blobs.append(await self._layer(number, file, diff_id))
                yield _bar(diff_id, file, file.size)
            else:
                blobs.append(await self._layer(number, file, diff_id))
        for line in await self._add(blobs):
            yield Progress(stream=line)
        if found.wrong is not None:
            raise found.wrong

    def _check(self) -> None:
        """Raise InvalidParameter, in Docker's words, for an image that can't be one here."""
        expected, got = len(self._found.layers), len(self._config.diff_ids)
        if not self._config.has_rootfs:
            raise InvalidParameter("invalid image JSON, no RootFS key")
        if self._config.os not in ("", "linux"):
            raise InvalidParameter(f"cannot load {self._config.os[:64]} image on linux")
        if expected != got:
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {expected}, got {got}"
            )

    async def _layer(self, number: int, file: File | None, diff_id: str) -> LayerBlob:
        """Make a layer and keep its blob, unless both are here."""
        store = self._store
        kept = self._kept(diff_id) if file is None or self._found.manifest is None else None
        proven = file is None or store.layers.proven(diff_id, file.digest)
        if kept is not None and proven:
            return kept
        if file is None:
            paths = self._found.paths
            name = paths[number] if paths else f"blobs/{diff_id.replace(':', '/')}"
            raise InvalidParameter(f"open {name[:200]}: no such file or directory")
        path = self._where(file)
        media_type = await asyncio.to_thread(_media_type, path)
        if media_type is None:
            return await self._uncompressed(path, diff_id)
        try:
            await store.layers.apply(diff_id, path, proven=proven)
        except WrongContent as error:
            raise InvalidParameter(
                f'invalid diffID for layer {number}: expected "{diff_id}", got "{error.found}"'
            ) from error
        if kept is not None:
            return kept
        if not store.content.has(file.digest):
            await asyncio.to_thread(store.content.adopt, path, file.digest)
        stated = self._found.media_types.get(file.digest, "")
        if stated in LAYER_TYPES:
            media_type = stated
        return LayerBlob(digest=file.digest, size=file.size, media_type=media_type)

    def _kept(self, diff_id: str) -> LayerBlob | None:
        """Return the blob of a layer if both are here."""
        blobs = self._store.catalog.blobs.get(diff_id, ())
        here = any(self._store.content.has(blob.digest) for blob in blobs)
        return self._store.blob_of(diff_id) if here and self._store.layers.has(diff_id) else None

    def _where(self, file: File) -> Path:
        """Return where the file's bytes are: a layer that repeats may have been adopted."""
        path = self._store.content.path(file.digest)
        return path if path.exists() else file.path

    async def _uncompressed(self, path: Path, diff_id: str) -> LayerBlob:
        """Keep a layer plain whose compression no manifest has a media type for (bzip2, xz)."""
        store = self._store
        async with (
            store.content.spool() as spool,
            store.layers.apply_stream(diff_id) as layer,
        ):
            async for data in inflate(_chunks(path)):
                await spool.write(data)
                await layer.write(data)
            await spool.finish()
            if spool.digest != diff_id:
                raise InvalidParameter(
                    f"layer verification failed: its content is {spool.digest}, not {diff_id}"
                )
            await layer.commit()
            await asyncio.to_thread(store.content.adopt, spool.path, spool.digest)
        return LayerBlob(digest=diff_id, size=spool.offset, media_type=LAYER_TAR)

    async def _add(self, blobs: list[LayerBlob]) -> list[str]:
        """Write the image and return the lines that Docker shows."""
        store, found = self._store, self._found
        lines = []
        old = {name: store.catalog.named(name.canonical()) for name in found.names}
        image = await store.add(
            config=found.config,
            layers=blobs,
            manifests=[found.manifest] if found.manifest else [],
            names=found.names,
            tagged=False,
        )
        for name, before in old.items():
            if before not in (None, image.id):
                lines.append(
                    f"The image {name.familiar()} already exists, renaming the old one with ID "
                    f"{before} to empty string\n"
                )
            lines.append(f"Loaded image: {name.familiar()}\n")
        store.event("load", image)
        return lines


def _bar(diff_id: str, file: File, current: int) -> Progress:
    return Progress(status="Loading layer", id=short(diff_id), current=current, total=file.size)


def _media_type(path: Path) -> str | None:
    """Return the media type of a layer by its first bytes; None if there is none; blocking."""
    with mapped("read a layer"), path.open("rb") as file:
        return MEDIA_TYPES.get(sniff(file.read(SNIFF)))


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with mapped("read a layer"):
        file = path.open("rb", buffering=0)
    with file:
        while data := await asyncio.to_thread(file.read, _READ):
            yield data
