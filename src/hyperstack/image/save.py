"""``save``: images as one tar that is an OCI layout and Docker's own archive at the same time.

    blobs/sha256/HEX   layers and manifests as they came, configs
    index.json  oci-layout             OCI image specification 1.1, "Image Layout"
    manifest.json  repositories        what every Docker since 1.10 loads, and what came before it

The same images always give the same bytes: no times, a fixed order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.ids import is_id
from hyperstack.image import tarfmt
from hyperstack.image.content import mapped
from hyperstack.image.layout import IMAGE_NAME, REF_NAME
from hyperstack.image.manifest import Platform
from hyperstack.image.reference import Reference, is_digest
from hyperstack.image.registryside import manifest_of
from hyperstack.image.store import ImageStore
from hyperstack.image.values import Image, LayerBlob, ManifestBlob

_READ = 1 << 20


@dataclass(kw_only=True)
class Chosen:
    """An image to be saved, under these names."""

    image: Image
    names: list[Reference] = field(default_factory=list)


def save(
    store: ImageStore, refs: Sequence[str], platform: Platform | None = None
) -> AsyncGenerator[bytes, None]:
    """Return the archive of *refs*: a name saves that tag, a repository all its tags.

    Raises InternalError for what is no name or another platform's than *platform* (dockerd calls
    both its own failure) and NotFound at once, before there is a byte.
    """
    chosen: dict[str, Chosen] = {}
    for ref in refs:
        for image, name in _resolve(store, ref):
            _check(image, platform)
            one = chosen.setdefault(image.id, Chosen(image=image))
            if name is not None and name not in one.names:
                one.names.append(name)
    return _archive(store, list(chosen.values()))


def _check(image: Image, platform: Platform | None) -> None:
    made_for = Platform(os=image.os, architecture=image.architecture, variant=image.variant)
    if platform is not None and not platform.accepts(made_for):
        raise InternalError(f"no suitable export target found for platform {platform}")


def _resolve(store: ImageStore, ref: str) -> Iterator[tuple[Image, Reference | None]]:
    """Yield images and the names to save them under, by Docker's rules."""
    if is_id(ref) or is_digest(ref):
        yield store.catalog.get(ref), None
        return
    try:
        reference = Reference.parse(ref)
    except InvalidParameter as error:
        raise InternalError(error.message) from error
    if reference.is_name_only:
        found = [
            (image, name)
            for image in store.catalog
            for name in store.catalog.names(image.id)
            if name.name == reference.name and name.digest is None
        ]
        if found:
            yield from found
            return
    try:
        image = store.catalog.get(ref)
    except NotFound:
        bare = reference.is_name_only
        gone = f"No such image: {ref}" if bare else "reference does not exist"
        raise NotFound(gone) from None
    named = store.catalog.named(reference.tagged().canonical()) == image.id
    yield image, reference.tagged() if named and reference.digest is None else None


async def _archive(store: ImageStore, chosen: list[Chosen]) -> AsyncGenerator[bytes, None]:
    with store.hold():
        content = _Content(store, chosen)
        for part in ("blobs/", "blobs/sha256/") if chosen else ():
            yield tarfmt.make(part.encode(), kind=tarfmt.DIRECTORY, mode=0o755)
        for digest in sorted(content.small.keys() | content.layers.keys()):
            name = f"blobs/sha256/{digest[7:]}"
            if digest in content.small:
                yield _file(name, content.small[digest])
                continue
            async for data in _stream(name, store.content.path(digest), content.layers[digest]):
                yield data
        for name, data in content.documents():
            yield _file(name, data)
        yield tarfmt.ZERO * 2
    for one in chosen:
        store.event("save", one.image)


class _Content:
    """Everything that goes into the archive."""

    def __init__(self, store: ImageStore, chosen: list[Chosen]) -> None:
        self._store = store
        self._chosen = chosen
        self._manifests: dict[str, ManifestBlob] = {}
        self._blobs: dict[str, list[LayerBlob]] = {}
        self.small: dict[str, bytes] = {}
        """Configs and manifests by digest."""
        self.layers: dict[str, int] = {}
        """Digests and sizes of layers' blobs."""
        for one in chosen:
            self._take(one.image)

    def _take(self, image: Image) -> None:
        blob = manifest_of(self._store, image)
        self._manifests[image.id] = blob
        self.small[image.id] = self._store.config_of(image.id)
        self.small[blob.digest] = blob.data
        listed = msgspec.json.decode(blob.data)["layers"]
        self._blobs[image.id] = [
            LayerBlob(digest=x["digest"], size=x["size"], media_type=x["mediaType"]) for x in listed
        ]
        for layer in self._blobs[image.id]:
            self.layers[layer.digest] = self._store.content.size(layer.digest)

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of the files that describe the images."""
        yield "index.json", _json(self._index())
        yield "manifest.json", _json([self._entry(one) for one in self._chosen] or None)
        yield "oci-layout", _json({"imageLayoutVersion": "1.0.0"})
        if repositories := self._repositories():
            yield "repositories", _json(repositories)

    def _index(self) -> dict[str, Any]:
        entries = []
        for one in self._chosen:
            blob = self._manifests[one.image.id]
            plain = {"mediaType": blob.media_type, "digest": blob.digest, "size": len(blob.data)}
            for name in one.names:
                notes = {IMAGE_NAME: name.canonical(), REF_NAME: name.tag}
                entries.append({**plain, "annotations": notes})
            if not one.names:
                entries.append(plain)
        return {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries or None,
        }

    def _entry(self, one: Chosen) -> dict[str, Any]:
        blobs = self._blobs[one.image.id]
        made: dict[str, Any] = {
            "Config": _blob_path(one.image.id),
            "RepoTags": [name.familiar() for name in one.names] or None,
            "Layers": [_blob_path(blob.digest) for blob in blobs],
        }
        if any(one.image.parent == other.image.id for other in self._chosen):
            made["Parent"] = one.image.parent
        made["LayerSources"] = {
            diff_id: {"mediaType": blob.media_type, "size": blob.size, "digest": blob.digest}
            for diff_id, blob in zip(one.image.diff_ids, blobs, strict=True)
        }
        return made

    def _repositories(self) -> dict[str, dict[str, str]]:
        made: dict[str, dict[str, str]] = {}
        for one in self._chosen:
            for name in one.names:
                if blobs := self._blobs[one.image.id]:
                    made.setdefault(name.familiar_name, {})[name.tag] = blobs[-1].digest[7:]
        return made


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _json(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _file(name: str, data: bytes) -> bytes:
    header = tarfmt.make(name.encode(), size=len(data))
    return header + data.ljust(tarfmt.padded(len(data)), b"\0")


async def _stream(name: str, path: Path, size: int) -> AsyncGenerator[bytes, None]:
    yield tarfmt.make(name.encode(), size=size)
    with mapped("read a blob"):
        file = path.open("rb", buffering=0)
    with file:
        while data := await asyncio.to_thread(file.read, _READ):
            yield data
    if padding := tarfmt.padded(size) - size:
        yield bytes(padding)
