"""What all image verbs share: the stores, the catalog, the lock of changes, and what may go away.

Verbs live in modules of their own and take an ``ImageStore`` first, as the engine's take a Core.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image import configfile, rows
from hyperstack.image.catalog import Catalog, name_of
from hyperstack.image.content import ContentStore
from hyperstack.image.layer import LayerStore
from hyperstack.image.reference import Reference
from hyperstack.image.values import Image, LayerBlob, ManifestBlob
from hyperstack.model import Container
from hyperstack.platform.tasks import Tasks
from hyperstack.store.database import Database

log = logging.getLogger(__name__)

PATIENCE = 24 * 3600.0
"""Seconds that blobs of an unfinished pull are kept for the next try."""
Users = Callable[[str], list[Container]]


class ImageStore:
    """The parts of the image store. One per daemon."""

    def __init__(self, config: Config, db: Database, kit: Kit, events: EventBus) -> None:
        self.config = config
        self.db = db
        self.events = events
        self.content = ContentStore(config.data_root / "content")
        self.layers = LayerStore(config, kit, config.data_root / "layers")
        self.catalog = Catalog(rows.load(db))
        self.layers.know(self.catalog.layers.values())
        self.layers.prove((d, b.digest) for d, found in self.catalog.blobs.items() for b in found)
        self.lock = asyncio.Lock()
        """Held while names and images change."""
        self.tasks = Tasks()
        self.users: Users = lambda _: []
        self._holds = 0
        self._collect_later = False

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep every blob and layer that is here, needed or not, while the block runs."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds and self._collect_later:
                self.tasks.start("collect layers", self.collect())

    def event(self, action: str, image: Image, name: str = "") -> None:
        """Publish an image event with Docker's attributes: labels and a name, else the id."""
        attributes = {**image.config.labels, "name": name or image.id}
        self.events.publish("image", action, image.id, attributes)

    async def add(
        self,
        *,
        config: bytes,
        layers: Sequence[LayerBlob],
        manifests: Sequence[ManifestBlob] = (),
        names: Sequence[Reference] = (),
        repository: str = "",
        parent: str = "",
        tagged: bool = True,
    ) -> Image:
        """Write all rows of an image whose layers and blobs are here, in one transaction.

        *layers* are the blobs of the config's diff ids, in their order; that they hold them has
        been verified. Names that meant another image mean this one afterwards. *tagged* notes the
        time; dockerd does not for names that came along with an image. Raises InvalidParameter if
        config and layers don't fit.
        """
        parsed = await asyncio.to_thread(configfile.parse, config)
        if len(parsed.diff_ids) != len(layers):
            raise InvalidParameter("invalid rootfs in image configuration")
        if parsed.os not in ("", "linux"):
            raise InvalidParameter(
                f'image operating system "{parsed.os}" cannot be used on this platform'
            )
        pairs = list(zip(parsed.diff_ids, layers, strict=True))
        for diff_id, blob in pairs:
            if not (self.layers.has(diff_id) and self.content.has(blob.digest)):
                raise InternalError(f"layer {diff_id} is not in the store")
        await asyncio.to_thread(self._sync)
        async with self.lock:
            new = self._addition(config, pairs, manifests, names, repository, parent)
            if tagged and names:
                new = replace(new, image=replace(new.image, tagged_ns=new.image.added_ns))
            await rows.add(self.db, new)
            self._take_in(new)
        found = self.catalog.find(new.image.id)
        assert found is not None
        return found

    def _sync(self) -> None:
        self.content.sync()
        self.layers.sync()

    def _addition(
        self,
        config: bytes,
        pairs: Sequence[tuple[str, LayerBlob]],
        manifests: Sequence[ManifestBlob],
        names: Sequence[Reference],
        repository: str,
        parent: str,
    ) -> rows.Addition:
        now = time.time_ns()
        return rows.Addition(
            image=rows.ImageRow(
                id=f"sha256:{hashlib.sha256(config).hexdigest()}",
                parent=parent if self.catalog.visible(parent) else "",
                config=config,
                added_ns=now,
                tagged_ns=0,
                hidden=False,
            ),
            layers=[self.layers.info(diff_id) for diff_id in dict(pairs)],
            blobs=pairs,
            manifests=manifests,
            names=[name_of(name) for name in names],
            repository=repository,
        )

    def _take_in(self, new: rows.Addition) -> None:
        catalog = self.catalog
        catalog.layers.update((layer.diff_id, layer) for layer in new.layers)
        for diff_id, blob in new.blobs:
            catalog.put_blob(diff_id, blob)
        self.layers.prove((diff_id, blob.digest) for diff_id, blob in new.blobs)
        catalog.put(new.image)
        for manifest in new.manifests:
            catalog.put_manifest(
                rows.ManifestRow(
                    digest=manifest.digest,
                    image=new.image.id,
                    media_type=manifest.media_type,
                    size=len(manifest.data),
                )
            )
        for name in new.names:
            catalog.name(name, new.image.id)

    async def tag(self, image: str, reference: Reference, *, tagged: bool = True) -> None:
        """Give an image (full id) a name, with tag or digest; see ``add`` for *tagged*.

        Raises NotFound if it is gone.
        """
        name = name_of(reference)
        async with self.lock:
            if not self.catalog.visible(image):
                raise NotFound(f"No such image: {image}")
            now = time.time_ns() if tagged else 0
            await rows.put_name(self.db, name, image, now)
            self.catalog.name(name, image, now)

    async def link(self, image: str, parent: str) -> None:
        """Note that an image was made from another; both by full id."""
        async with self.lock:
            await rows.link(self.db, image, parent)
            self.catalog.link(image, parent)

    async def add_blob(self, diff_id: str, blob: LayerBlob) -> None:
        """Note another blob, which is in the content store, for a layer of some image."""
        await asyncio.to_thread(self.content.sync)
        await self.db.write(lambda c: rows.put_blobs(c, [(diff_id, blob)]))
        self.catalog.put_blob(diff_id, blob)
        self.layers.prove([(diff_id, blob.digest)])

    def config_of(self, image: str) -> bytes:
        """Return an image's config, byte for byte. Raises InternalError if it is gone."""
        data = rows.config(self.db, image)
        if data is None:
            raise InternalError(f"image {image} is not in the store any more")
        return data

    def blob_of(self, diff_id: str) -> LayerBlob:
        """Return a blob that holds a layer, a compressed one if there is a choice.

        Raises InternalError if none is here.
        """
        here = [b for b in self.catalog.blobs.get(diff_id, ()) if self.content.has(b.digest)]
        if not here:
            raise InternalError(f"the content of layer {diff_id} is missing; pull the image again")
        return min(here, key=lambda blob: is_plain(blob.media_type))

    async def drop_hidden(self) -> None:
        """Forget images that were removed while containers used them, once none does."""
        if not self.catalog.hidden():
            return
        async with self.lock:
            gone = [image for image in self.catalog.hidden() if not self.users(image)]
            if gone:
                await rows.remove(self.db, rows.Removal(images=gone))
                for image in gone:
                    self.catalog.drop(image)
        if gone:
            await self.collect()

    async def collect(self, patience: float = PATIENCE) -> int:
        """Remove layers and blobs that no image needs; return the bytes they took.

        Blobs without a row, of pulls that did not end well, are kept for *patience* seconds. While
        somebody holds the store nothing is removed; it happens afterwards.
        """
        if self._holds:
            self._collect_later = True
            return 0
        self._collect_later = False
        layers, blobs = self._unneeded(patience)
        trash = self.layers.discard(layers)
        trash += self.content.discard(blobs)
        for diff_id in layers:
            self.catalog.layers.pop(diff_id, None)
            self.catalog.blobs.pop(diff_id, None)
        if layers:
            await rows.remove(self.db, rows.Removal(layers=layers))
        return await asyncio.to_thread(_unlink, trash)

    def _unneeded(self, patience: float) -> tuple[list[str], list[str]]:
        needed = self.catalog.needed_layers()
        here = {*self.layers.diff_ids(), *self.catalog.layers}
        layers = [diff_id for diff_id in here if diff_id not in needed]
        keep = {b.digest for d in needed for b in self.catalog.blobs.get(d, ())}
        ours = {b.digest for found in self.catalog.blobs.values() for b in found}
        limit = time.time() - patience
        blobs = [
            digest
            for digest in self.content.digests()
            if digest not in keep and (digest in ours or self.content.changed(digest) <= limit)
        ]
        return layers, blobs


def is_plain(media_type: str) -> bool:
    """Tell whether a layer's media type says that it is not compressed."""
    return media_type.endswith(".tar")


def _unlink(paths: Sequence[Path]) -> int:
    freed = 0
    for path in paths:
        with contextlib.suppress(OSError):
            freed += path.stat().st_blocks * 512
            path.unlink()
    return freed
