"""The image store as pulls and pushes see it (``seam.Images``): by names, digests and bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import msgspec

from hyperstack.config import Config
from hyperstack.errors import InternalError
from hyperstack.image import rows
from hyperstack.image.catalog import name_of
from hyperstack.image.compression import GzipEncoder
from hyperstack.image.content import ContentStore, mapped
from hyperstack.image.layer import LayerStore
from hyperstack.image.manifest import Platform
from hyperstack.image.reference import Reference
from hyperstack.image.store import ImageStore, is_plain
from hyperstack.image.transfers import Transfers
from hyperstack.image.values import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    LAYER_GZIP,
    LAYER_TAR,
    OCI_LAYER,
    OCI_MANIFEST,
    Image,
    LayerBlob,
    ManifestBlob,
)

_READ = 1 << 20


class RegistrySide:
    """What a registry's client needs of the store. Images are named by their full ids."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self.config: Config = store.config
        self.content: ContentStore = store.content
        self.layers: LayerStore = store.layers
        self.transfers = Transfers(store.config)

    def lookup(self, name: str) -> str | None:
        """Return the id of the image that a ``name:tag`` or ``name@digest`` names."""
        return self._store.catalog.named(name_of(Reference.parse(name)))

    def has_image(self, image: str) -> bool:
        """Tell whether there is an image of this id."""
        return self._store.catalog.visible(image)

    def platform(self, image: str) -> Platform:
        """Return what an image was made for."""
        found = self._find(image)
        return Platform(architecture=found.architecture, os=found.os, variant=found.variant)

    async def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        await self._store.tag(self._find(image).id, Reference.parse(name), tagged=False)

    async def add_image(
        self,
        *,
        config: bytes,
        manifest: bytes,
        media_type: str,
        names: Sequence[str],
        digest_ref: str | None,
        layers: Sequence[LayerBlob],
    ) -> str:
        """Write the rows of an image whose blobs and layers are here, and return its id.

        *names* are ``name:tag``, *digest_ref* is the ``name@digest`` by which it came. All rows are
        one transaction; before it nothing refers to what was stored.
        """
        references = [Reference.parse(name) for name in names]
        repository = ""
        if digest_ref is not None:
            pulled = Reference.parse(digest_ref)
            references.append(pulled)
            repository = pulled.name
        image = await self._store.add(
            config=config,
            layers=layers,
            manifests=[manifest_blob(manifest, media_type)],
            names=references,
            repository=repository,
            tagged=False,
        )
        return image.id

    def tags_of(self, repository: str) -> list[tuple[str, str]]:
        """Return tag and image id of every tag of a repository."""
        wanted = Reference.parse(repository).name
        return [
            (reference.tag, image.id)
            for image in self._store.catalog
            for reference in self._store.catalog.names(image.id)
            if reference.name == wanted and reference.digest is None
        ]

    def manifest_of(self, image: str) -> ManifestBlob:
        """Return the manifest by which an image is pushed; all its blobs are here."""
        return manifest_of(self._store, self._find(image))

    def config_of(self, image: str) -> bytes:
        """Return an image's config as it came."""
        return self._store.config_of(image)

    def known_in(self, digest: str, domain: str) -> list[str]:
        """Return paths of repositories on *domain* that are known to have had a blob."""
        prefix = f"{domain}/"
        found = rows.sources(self._store.db, digest)
        return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]

    async def add_digest(self, image: str, name: str) -> None:
        """Note ``name@digest`` for an image that was pushed, and where its blobs are now."""
        reference = Reference.parse(name)
        await self._store.tag(self._find(image).id, reference, tagged=False)
        digests = [self._store.blob_of(d).digest for d in self._find(image).diff_ids]
        await self._store.db.write(lambda c: rows.put_sources(c, reference.name, digests))

    async def prepare(self, reference: Reference) -> None:
        """Compress, once, layers of images to be pushed that are here as plain tars only."""
        for tag, image in self.tags_of(reference.name):
            if reference.tag in ("", tag) and known_manifest(self._store, image) is None:
                for diff_id in dict.fromkeys(self._find(image).diff_ids):
                    await _compress(self._store, diff_id)

    def _find(self, image: str) -> Image:
        found = self._store.catalog.find(image)
        if found is None:
            raise InternalError(f"image {image} is not in the store any more")
        return found


def manifest_blob(data: bytes, media_type: str) -> ManifestBlob:
    """Return a manifest with the digest of its bytes."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return ManifestBlob(digest=digest, media_type=media_type, data=data)


def manifest_of(store: ImageStore, image: Image) -> ManifestBlob:
    """Return the manifest by which an image came if its blobs are here, else a new one.

    The same image always gets the same manifest. Raises InternalError if a blob is missing.
    """
    return known_manifest(store, image.id) or make_manifest(store, image)


def known_manifest(store: ImageStore, image: str) -> ManifestBlob | None:
    """Return the manifest that came last with an image and whose layers' blobs are all here."""
    for descriptor in reversed(store.catalog.manifests(image)):
        blob = rows.manifest(store.db, descriptor.digest)
        if blob is not None and all(map(store.content.has, _layer_digests(blob))):
            return blob
    return None


class _Named(msgspec.Struct):
    digest: str


class _Layers(msgspec.Struct):
    layers: list[_Named] = []


def _layer_digests(blob: ManifestBlob) -> list[str]:
    try:
        return [layer.digest for layer in msgspec.json.decode(blob.data, type=_Layers).layers]
    except msgspec.MsgspecError as error:
        raise InternalError(f"manifest {blob.digest} can't be read: {error}") from error


def make_manifest(store: ImageStore, image: Image) -> ManifestBlob:
    """Write a manifest for an image made here: Docker's schema 2, or OCI's if a layer is OCI's."""
    blobs = [store.blob_of(diff_id) for diff_id in image.diff_ids]
    oci = any(blob.media_type.startswith(OCI_LAYER) for blob in blobs)
    plain = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST if oci else DOCKER_MANIFEST,
            "config": {
                "mediaType": DOCKER_CONFIG,
                "size": len(store.config_of(image.id)),
                "digest": image.id,
            },
            "layers": [
                {"mediaType": blob.media_type, "size": blob.size, "digest": blob.digest}
                for blob in blobs
            ],
        }
    )
    # With blanks, as dockerd writes it: the same image has the same digest then.
    data = msgspec.json.format(plain, indent=3)
    return manifest_blob(data, OCI_MANIFEST if oci else DOCKER_MANIFEST)


async def _compress(store: ImageStore, diff_id: str) -> None:
    plain = store.blob_of(diff_id)
    if not is_plain(plain.media_type):
        return
    path = store.content.path(plain.digest)
    async with store.content.spool() as spool:
        encoder = GzipEncoder()
        with mapped("read a layer"):
            file = path.open("rb", buffering=0)
        with file:
            while data := await asyncio.to_thread(file.read, _READ):
                await spool.write(await asyncio.to_thread(encoder.write, data))
        await spool.write(encoder.finish())
        await spool.finish()
        await asyncio.to_thread(store.content.adopt, spool.path, spool.digest)
        oci = plain.media_type != LAYER_TAR
        media_type = f"{OCI_LAYER}+gzip" if oci else LAYER_GZIP
        made = LayerBlob(digest=spool.digest, size=spool.offset, media_type=media_type)
    await store.add_blob(diff_id, made)
