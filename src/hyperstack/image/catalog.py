"""All images in memory: found by id, id prefix, name or digest as Docker finds them.

The rows are the truth (rows.py); this follows each write. All calls are made on the event loop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from hyperstack.errors import NotFound
from hyperstack.ids import is_id
from hyperstack.image import configfile
from hyperstack.image.reference import Reference, is_digest
from hyperstack.image.rows import Everything, ImageRow, ManifestRow
from hyperstack.image.values import Descriptor, Image, LayerBlob, LayerInfo


@dataclass(kw_only=True)
class Entry:
    """One image: what never changes, its names and its manifests."""

    base: Image
    names: set[str] = field(default_factory=set)
    """Canonical, ``docker.io/library/busybox:latest`` or ``...@sha256:...``."""
    manifests: list[Descriptor] = field(default_factory=list)
    hidden: bool = False


class Catalog:
    """Images by id and by name, layers and the blobs that hold them."""

    def __init__(self, rows: Everything) -> None:
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}
        self._manifests: dict[str, str] = {}
        self.layers: dict[str, LayerInfo] = {}
        self.blobs: dict[str, list[LayerBlob]] = {}
        """By diff id, the one that came first in front."""
        self.load(rows)

    def load(self, rows: Everything) -> None:
        """Take over what the database holds."""
        self.layers.update((layer.diff_id, layer) for layer in rows.layers)
        for diff_id, blob in rows.blobs:
            self.put_blob(diff_id, blob)
        for row in rows.images:
            self.put(row)
        for name, image in rows.names.items():
            self.name(name, image)
        for manifest in rows.manifests:
            self.put_manifest(manifest)

    # Changes

    def put(self, row: ImageRow) -> None:
        """Take in an image. Raises InvalidParameter for a config that can't be read."""
        parsed = configfile.parse(row.config)
        size = sum(self.layers[d].content_size for d in parsed.diff_ids if d in self.layers)
        image = Image(
            id=row.id,
            parent=row.parent,
            created=parsed.created,
            created_ns=configfile.to_ns(parsed.created),
            author=parsed.author,
            comment=parsed.comment,
            container=parsed.container,
            docker_version=parsed.docker_version,
            architecture=parsed.architecture,
            variant=parsed.variant,
            os=parsed.os or "linux",
            os_version=parsed.os_version,
            config=parsed.config,
            diff_ids=parsed.diff_ids,
            history=parsed.history,
            size=size,
            last_tagged_ns=row.tagged_ns,
        )
        old = self._entries.get(row.id)
        if old is None:
            self._entries[row.id] = Entry(base=image, hidden=row.hidden)
        else:
            old.base = replace(
                image,
                parent=image.parent or old.base.parent,
                last_tagged_ns=max(old.base.last_tagged_ns, image.last_tagged_ns),
            )
            old.hidden = row.hidden

    def put_blob(self, diff_id: str, blob: LayerBlob) -> None:
        """Note that *blob* holds the layer."""
        found = self.blobs.setdefault(diff_id, [])
        if all(other.digest != blob.digest for other in found):
            found.append(blob)

    def put_manifest(self, row: ManifestRow) -> None:
        """Note that a manifest describes an image."""
        old = self._entries.get(self._manifests.get(row.digest, ""))
        if old is not None:
            old.manifests = [m for m in old.manifests if m.digest != row.digest]
        made = Descriptor(media_type=row.media_type, digest=row.digest, size=row.size)
        self._entries[row.image].manifests.append(made)
        self._manifests[row.digest] = row.image

    def name(self, name: str, image: str, tagged_ns: int = 0) -> None:
        """Let a canonical name mean *image*, whatever it meant before."""
        self.unname(name)
        self._names[name] = image
        entry = self._entries[image]
        entry.names.add(name)
        if tagged_ns:
            entry.base = replace(entry.base, last_tagged_ns=tagged_ns)

    def link(self, image: str, parent: str) -> None:
        """Let an image be made from another."""
        if (entry := self._entries.get(image)) is not None and parent in self._entries:
            entry.base = replace(entry.base, parent=parent)

    def unname(self, name: str) -> None:
        """Forget a name."""
        old = self._names.pop(name, None)
        if old is not None:
            self._entries[old].names.discard(name)

    def hide(self, image: str) -> None:
        """Take an image out of sight; by its full id its layers are still found."""
        entry = self._entries[image]
        for name in list(entry.names):
            self.unname(name)
        self._forget_manifests(entry)
        entry.hidden = True
        entry.base = replace(entry.base, parent="")

    def drop(self, image: str) -> None:
        """Forget an image."""
        entry = self._entries.pop(image)
        for name in list(entry.names):
            self._names.pop(name, None)
        self._forget_manifests(entry)
        for other in self._entries.values():
            if other.base.parent == image:
                other.base = replace(other.base, parent="")

    def _forget_manifests(self, entry: Entry) -> None:
        for manifest in entry.manifests:
            self._manifests.pop(manifest.digest, None)
        entry.manifests = []

    # Questions

    def __iter__(self) -> Iterator[Image]:
        """Yield every image that is not hidden."""
        for entry in list(self._entries.values()):
            if not entry.hidden:
                yield self._shown(entry)

    def __len__(self) -> int:
        return sum(not entry.hidden for entry in self._entries.values())

    def find(self, image_id: str) -> Image | None:
        """Return an image by its full id, hidden or not."""
        entry = self._entries.get(image_id)
        return self._shown(entry) if entry else None

    def visible(self, image_id: str) -> bool:
        """Tell whether there is an image that the user may see."""
        entry = self._entries.get(image_id)
        return entry is not None and not entry.hidden

    def hidden(self) -> list[str]:
        """Return the ids of images that were removed while a container needed them."""
        return [id_ for id_, entry in self._entries.items() if entry.hidden]

    def get(self, ref: str) -> Image:
        """Find an image: by id, name, name with digest or prefix of an id, in this order.

        Raises InvalidParameter for what is no reference, NotFound in Docker's words.
        """
        full = f"sha256:{ref}" if is_id(ref) else ref
        if is_digest(full):
            if self.visible(full):
                return self._shown(self._entries[full])
            raise NotFound(f"No such image: {full}")
        parsed = Reference.parse(ref)
        found = self._names.get(name_of(parsed)) or self._by_prefix(ref)
        if found is None:
            raise NotFound(f"No such image: {parsed.tagged().familiar()}")
        return self._shown(self._entries[found])

    def named(self, name: str) -> str | None:
        """Return the id of the image that a canonical name means."""
        return self._names.get(name)

    def names(self, image: str) -> list[Reference]:
        """Return the names of an image, tags and digests, sorted."""
        return [Reference.parse(name) for name in sorted(self._entries[image].names)]

    def manifests(self, image: str) -> list[Descriptor]:
        """Return the manifests that describe an image, the one that came last at the end."""
        return list(self._entries[image].manifests)

    def _by_prefix(self, ref: str) -> str | None:
        prefix = ref.removeprefix("sha256:")
        if not prefix or prefix.strip("0123456789abcdef"):
            return None
        found = [i for i, e in self._entries.items() if i[7:].startswith(prefix) and not e.hidden]
        return found[0] if len(found) == 1 else None

    def children(self, image: str) -> list[str]:
        """Return the ids of images that were made from *image*."""
        return [
            id_
            for id_, entry in self._entries.items()
            if entry.base.parent == image and not entry.hidden
        ]

    def descendants(self, images: Iterable[str]) -> set[str]:
        """Return the ids of all images made from *images*, directly or not."""
        found: set[str] = set()
        todo = list(images)
        while todo:
            fresh = set(self.children(todo.pop())) - found
            found |= fresh
            todo += fresh
        return found

    def needed_layers(self) -> set[str]:
        """Return the diff ids that some image needs, hidden ones included."""
        return {d for entry in self._entries.values() for d in entry.base.diff_ids}

    def needed_chains(self) -> set[str]:
        """Return the chain ids that exist because of some image."""
        return {
            chain for entry in self._entries.values() for chain in chain_ids(entry.base.diff_ids)
        }

    def _shown(self, entry: Entry) -> Image:
        names = [Reference.parse(name) for name in sorted(entry.names)]
        return replace(
            entry.base,
            names=tuple(n.familiar() for n in names if n.digest is None),
            repo_digests=tuple(n.familiar() for n in names if n.digest is not None),
            manifest=entry.manifests[-1] if entry.manifests else None,
        )


def name_of(reference: Reference) -> str:
    """Return the canonical name that the store knows: ``name@digest``, else ``name:tag``."""
    if reference.digest is not None:
        return reference.with_digest(reference.digest).canonical()
    return reference.tagged().canonical()


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Return the chain id of every layer (OCI image specification 1.1, "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        if not chains:
            chains.append(diff_id)
        else:
            joined = f"{chains[-1]} {diff_id}".encode()
            chains.append(f"sha256:{hashlib.sha256(joined).hexdigest()}")
    return chains
