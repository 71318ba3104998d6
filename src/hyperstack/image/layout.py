"""What an archive says of its images: Docker's ``manifest.json`` or an OCI ``index.json``.

With both (Docker and Hyper write both) manifest.json names the images, and the index adds the
manifests, so that a later push sends the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from hyperstack.errors import HyperError, InvalidParameter
from hyperstack.image.archive import Archive, File
from hyperstack.image.manifest import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_CONFIG,
    MAX_INDEX_DEPTH,
    MAX_LAYERS,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    host,
    parse_manifest,
)
from hyperstack.image.reference import Reference
from hyperstack.image.values import ManifestBlob

MAX_IMAGES = 1000
IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(kw_only=True)
class Found:
    """An image that the archive describes."""

    config: bytes
    layers: list[File | None]
    """The lowest first; None where the archive has no such file."""
    paths: list[str] = field(default_factory=list)
    """Names of the layers in the archive, where there is one."""
    media_types: dict[str, str] = field(default_factory=dict)
    """Of layers, by their digest, where the archive says it."""
    names: list[Reference] = field(default_factory=list)
    wrong: InvalidParameter | None = None
    """What is wrong with the name after these."""
    parent: str = ""
    manifest: ManifestBlob | None = None

    @property
    def id(self) -> str:
        """The image's id."""
        return _digest(self.config)


class _Source(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""


class _Item(msgspec.Struct, rename="pascal"):
    """An entry of manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None
    parent: str | None = None
    layer_sources: dict[str, _Source] | None = None


def is_legacy(archive: Archive) -> bool:
    """Tell whether an archive has neither of the two: it is older, or none."""
    return archive.find("manifest.json") is None and archive.find("index.json") is None


def read(archive: Archive) -> list[Found]:
    """Return the images of an archive; blocking. Raises InvalidParameter for a damaged one."""
    index = list(_from_index(archive)) if archive.find("index.json") else []
    if archive.find("manifest.json") is None:
        if not index:
            raise InvalidParameter("open manifest.json: no such file or directory")
        return index
    manifests = {_digest(found.config): found for found in index}
    images = _from_manifest_json(archive)
    for image in images:
        twin = manifests.get(_digest(image.config))
        if twin is not None and _same_layers(twin, image):
            image.manifest = twin.manifest
            image.media_types.update(twin.media_types)
    return images


def _same_layers(one: Found, other: Found) -> bool:
    def digests(found: Found) -> list[str]:
        return [file.digest if file else "" for file in found.layers]

    return digests(one) == digests(other)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _from_manifest_json(archive: Archive) -> list[Found]:
    data = archive.read(archive.get("manifest.json"), MAX_MANIFEST)
    try:
        items = msgspec.json.decode(data, type=list[_Item])
    except msgspec.ValidationError as error:
        raise InvalidParameter(_mismatch(data, error)) from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        cut = "unexpected EOF" if data.strip() else "EOF"
        raise InvalidParameter(
            cut if "truncated" in str(error) else f"invalid manifest.json: {error}"
        ) from error
    if len(items) > MAX_IMAGES:
        raise InvalidParameter(f"the archive has more than {MAX_IMAGES} images")
    return [_item(archive, item) for item in items]


def _mismatch(data: bytes, error: Exception) -> str:
    """Word a manifest.json that is not a list of items."""
    first = data.lstrip()[:1]
    if first == b"n":
        return "invalid manifest, manifest cannot be null (but can be [])"
    if first == b"{":
        return "json: cannot unmarshal object into Go value of type []tarexport.manifestItem"
    return f"invalid manifest.json: {error}"


def _item(archive: Archive, item: _Item) -> Found:
    layers = item.layers or []
    if len(layers) > MAX_LAYERS:
        raise InvalidParameter("max depth exceeded")
    sources = (item.layer_sources or {}).values()
    found = Found(
        config=archive.read(archive.get(item.config), MAX_CONFIG),
        layers=[archive.find(name) for name in layers],
        paths=layers,
        media_types={source.digest: source.media_type for source in sources},
        parent=item.parent or "",
    )
    try:
        for name in item.repo_tags or []:
            found.names.append(_tagged(name))
    except InvalidParameter as error:
        found.wrong = error
    return found


def _tagged(name: str) -> Reference:
    reference = Reference.parse(name)
    if not reference.tag:
        raise InvalidParameter(f'invalid tag "{name[:200]}"')
    return Reference(domain=reference.domain, path=reference.path, tag=reference.tag)


def _from_index(archive: Archive) -> Iterator[Found]:
    data = archive.read(archive.get("index.json"), MAX_MANIFEST)
    try:
        index = parse_manifest(data, "application/vnd.oci.image.index.v1+json")
    except HyperError as error:
        raise InvalidParameter(f"invalid index.json: {error.message}") from error
    if not isinstance(index, Index):
        raise InvalidParameter("invalid index.json")
    found: dict[str, Found] = {}
    for entry in index.manifests[:MAX_IMAGES]:
        for image in _described(archive, entry, 0):
            # One image may stand there several times, once for each of its names.
            same = found.setdefault(_digest(image.config), image)
            same.names += [n for n in _names(entry) if n not in same.names]
    yield from found.values()


def _names(entry: Descriptor) -> list[Reference]:
    text = entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME, "")
    if IMAGE_NAME not in entry.annotations and not {"/", ":"} & set(text):
        return []  # a bare tag: of what, nobody says
    try:
        reference = Reference.parse(text).tagged()
    except InvalidParameter:
        return []
    return [reference] if reference.digest is None else []


def _described(archive: Archive, entry: Descriptor, depth: int) -> Iterator[Found]:
    """Yield the image that a descriptor leads to; of several platforms this host's."""
    file = archive.blob(entry.digest)
    if file is None or entry.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        return
    if file.size != entry.size or depth > MAX_INDEX_DEPTH:
        raise InvalidParameter(f"invalid archive: {entry.digest} does not fit its descriptor")
    data = archive.read(file, MAX_MANIFEST)
    try:
        parsed = parse_manifest(data, entry.media_type)
    except HyperError as error:
        raise InvalidParameter(f"invalid manifest {entry.digest}: {error.message}") from error
    if isinstance(parsed, Index):
        here = [e for e in parsed.manifests if archive.blob(e.digest) is not None]
        mine = [e for e in here if e.platform is None or host().accepts(e.platform)]
        for inner in mine[:1]:
            yield from _described(archive, inner, depth + 1)
        return
    image = _image(archive, parsed)
    if image is not None:
        media_type = parsed.media_type or entry.media_type
        image.manifest = ManifestBlob(digest=file.digest, media_type=media_type, data=data)
        yield image


def _image(archive: Archive, manifest: Manifest) -> Found | None:
    config = archive.blob(manifest.config.digest)
    if config is None or manifest.config.media_type not in CONFIG_TYPES:
        return None  # an artifact, not an image
    return Found(
        config=archive.read(config, MAX_CONFIG),
        layers=[archive.blob(layer.digest) for layer in manifest.layers],
        media_types={layer.digest: layer.media_type for layer in manifest.layers},
    )
