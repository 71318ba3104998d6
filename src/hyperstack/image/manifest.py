"""Manifests, indexes and image configs: what describes an image, read from hostile bytes.

OCI image specification 1.1 (``manifest.md``, ``image-index.md``, ``config.md``) and Docker's
"Image Manifest V2, Schema 2", which differ in media types only. Schema 1 is refused. Sizes, counts
and depth are bounded here; a digest of the bytes is checked by whoever fetched them. JSON follows
Go's rules: null is the zero value, unknown keys are ignored.
"""

from __future__ import annotations

import hashlib
import platform as host_platform
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec

from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.ids import Digest

MiB = 1 << 20
MAX_MANIFEST = 4 * MiB
MAX_CONFIG = 8 * MiB
MAX_LAYERS = 127
MAX_BLOB = 1 << 40
"""Bytes of one layer as it travels."""
MAX_INDEX_ENTRIES = 1024
MAX_INDEX_DEPTH = 3
"""An index may name indexes (OCI allows it); deeper than this nobody nests in earnest."""
MAX_HISTORY = 1024
MAX_JSON_DEPTH = 32


class MediaType(StrEnum):
    """Media types of what a registry keeps."""

    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
    SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"


INDEX_TYPES = frozenset({MediaType.OCI_INDEX, MediaType.DOCKER_LIST})
MANIFEST_TYPES = frozenset({MediaType.OCI_MANIFEST, MediaType.DOCKER_MANIFEST})
SCHEMA1_TYPES = frozenset({MediaType.SCHEMA1, MediaType.SCHEMA1_SIGNED})
CONFIG_TYPES = frozenset({MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG})
LAYER_TYPES = frozenset({
    MediaType.OCI_LAYER, MediaType.OCI_LAYER_GZIP, MediaType.OCI_LAYER_ZSTD,
    MediaType.DOCKER_LAYER, MediaType.DOCKER_LAYER_GZIP,
})  # fmt: skip
FOREIGN_LAYERS = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)
"""Layers that lie at an address of their own. Nothing is fetched from an address in a manifest."""

ACCEPT = ", ".join((*sorted(MANIFEST_TYPES), *sorted(INDEX_TYPES), *sorted(SCHEMA1_TYPES), "*/*"))
"""What is asked for; schema 1 is accepted to be refused with a sentence."""

_DigestText = Annotated[str, msgspec.Meta(pattern=r"^sha256:[a-f0-9]{64}\Z")]
_Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOB)]
_Text = Annotated[str, msgspec.Meta(max_length=4096)]
_Name = Annotated[str, msgspec.Meta(max_length=256)]


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operating system and a processor, in Go's names."""

    architecture: _Name = ""
    os: _Name = ""
    os_version: _Name = msgspec.field(default="", name="os.version")
    os_features: tuple[_Name, ...] = msgspec.field(default=(), name="os.features")
    variant: _Name = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/arm64/v8``, ``linux`` or ``arm64``. Raises InvalidParameter."""
        parts = text.lower().split("/")
        for part in parts:
            if not re.fullmatch(r"[a-z0-9_.-]+", part):
                raise InvalidParameter(
                    f'"{part}" is an invalid component of "{text}": platform specifier component '
                    'must match "^[A-Za-z0-9_.-]+$": invalid argument'
                )
        if len(parts) > 3:
            raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
        if len(parts) > 1:
            variant = parts[2] if len(parts) == 3 else ""
            found = cls(os=parts[0], architecture=parts[1], variant=variant).normal()
            if found.architecture == "arm64" and variant in ("8", "v8"):
                # The one there is: it means nothing, but is shown if it was named.
                return msgspec.structs.replace(found, variant="v8")
            return found
        if parts[0] in _SYSTEMS:
            return cls(os=parts[0], architecture=host().architecture)
        named = cls(os="linux", architecture=parts[0]).normal()
        if named.architecture not in _ARCHITECTURES:
            raise InvalidParameter(f'"{text}": unknown operating system or architecture: '
                                   "invalid argument")  # fmt: skip
        return named

    def normal(self) -> Platform:
        """Return the platform with aliases resolved and default variants left away."""
        given = self.architecture.lower()
        machine, variant = _ALIASES.get(given, (given, self.variant.lower()))
        if machine == "arm":
            variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        elif (machine, variant) in (("arm64", "8"), ("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        return msgspec.structs.replace(
            self, os=self.os.lower(), architecture=machine, variant=variant
        )

    def accepts(self, other: Platform) -> bool:
        """Tell whether an image made for *other* runs where this platform is asked for."""
        mine, its = self.normal(), other.normal()
        return (mine.os, mine.architecture, mine.variant) == (its.os, its.architecture, its.variant)

    def __str__(self) -> str:
        features = f"(+{','.join(self.os_features)})" if self.os_features else ""
        system = f"{self.os}({self.os_version})" if self.os_version else self.os
        parts = (system + features, self.architecture, self.variant)
        return "/".join(part for part in parts if part)


_ALIASES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""),
    "i386": ("386", ""), "i686": ("386", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
}  # fmt: skip
_SYSTEMS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd",
    "openbsd", "plan9", "solaris", "wasip1", "windows",
})  # fmt: skip
_ARCHITECTURES = frozenset({
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
})  # fmt: skip


def host() -> Platform:
    """Return the platform whose images run on this host."""
    return Platform(os="linux", architecture=host_platform.machine().lower()).normal()


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What names a blob: its type, digest and size in bytes."""

    media_type: _Name = msgspec.field(default="", name="mediaType")
    digest: _DigestText
    size: _Size
    platform: Platform | None = None
    annotations: dict[_Text, _Text] = {}

    @property
    def id(self) -> Digest:
        """The digest, typed."""
        return Digest(self.digest)


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image: its config and its layers, the lowest first."""

    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: _Name = msgspec.field(default="", name="mediaType")
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=MAX_LAYERS)] = ()


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Images of several platforms under one name."""

    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: _Name = msgspec.field(default="", name="mediaType")
    manifests: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=MAX_INDEX_ENTRIES)] = ()

    def select(self, wanted: Platform | None) -> Descriptor:
        """Return the entry for a platform (None: this host's), the first that fits.

        Raises NotFound in Docker's words.
        """
        platform = wanted or host()
        for entry in self.manifests:
            if entry.platform is not None and platform.accepts(entry.platform):
                return entry
        nested = [e for e in self.manifests if e.platform is None and _may_hold_images(e)]
        if len(nested) == 1:
            return nested[0]
        raise NotFound(f"no matching manifest for {platform} in the manifest list entries")


def _may_hold_images(entry: Descriptor) -> bool:
    return entry.media_type in INDEX_TYPES or entry.media_type in MANIFEST_TYPES


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The diff ids of an image's layers, the lowest first."""

    type: _Name = "layers"
    diff_ids: Annotated[tuple[_DigestText, ...], msgspec.Meta(max_length=MAX_LAYERS)] = ()


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a layer, or an empty step, came to be."""

    created: str | None = None
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An image's config as stored; ``config`` keeps the keys of Docker's container config."""

    created: str | None = None
    author: str = ""
    architecture: _Name = ""
    variant: _Name = ""
    os: _Name = ""
    os_version: _Name = msgspec.field(default="", name="os.version")
    os_features: tuple[_Name, ...] = msgspec.field(default=(), name="os.features")
    config: dict[str, object] = {}
    rootfs: RootFS = RootFS()
    history: Annotated[tuple[History, ...], msgspec.Meta(max_length=MAX_HISTORY)] = ()

    @property
    def platform(self) -> Platform:
        """What the image was made for."""
        return Platform(architecture=self.architecture, os=self.os, variant=self.variant,
                        os_version=self.os_version, os_features=self.os_features)  # fmt: skip


_T = TypeVar("_T", Manifest, Index, ImageConfig)


def digest_of(data: bytes) -> Digest:
    """Return the sha256 digest of *data*."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def parse_manifest(data: bytes, media_type: str, name: str = "") -> Manifest | Index:
    """Read what a registry gave for a manifest.

    *media_type* is the response's; the document's own, where it has one, must agree. *name* is who
    is asked to upgrade a schema 1 image. Raises InvalidParameter for schema 1 and for what is
    neither a manifest nor an index, InternalError if it breaks its format's rules or a bound.
    """
    if len(data) > MAX_MANIFEST:
        raise InternalError(f"the manifest is larger than {MAX_MANIFEST} bytes")
    document = _document(data, "the manifest")
    stated = media_type.split(";")[0].strip().lower()
    inner = document.get("mediaType")
    kind = inner if isinstance(inner, str) and inner else stated
    if kind in SCHEMA1_TYPES or (stated in SCHEMA1_TYPES or document.get("schemaVersion") == 1):
        raise InvalidParameter(_schema1(name))
    is_index = _is_index(document, kind, stated)
    made = (
        _convert(document, Index, "the manifest")
        if is_index
        else _convert(document, Manifest, "the manifest")
    )
    if made.schema_version != 2:
        raise InternalError(f"unsupported manifest schema version {made.schema_version}")
    return made


def _is_index(document: dict[str, object], kind: str, stated: str) -> bool:
    """Decide what a document is; one that could be both is refused (CVE-2021-41190)."""
    known = INDEX_TYPES | MANIFEST_TYPES
    if kind in known and stated in known and kind != stated:
        raise InternalError(f"if present, mediaType in manifest should be '{stated}' not '{kind}'")
    looks = {"manifests"} & document.keys(), {"config", "layers"} & document.keys()
    if all(looks):
        raise InternalError("the manifest is ambiguous: it has both layers and manifests")
    if kind in known:
        wrong = looks[1] if kind in INDEX_TYPES else looks[0]
        if wrong:
            raise InternalError(f"the manifest's content does not fit its media type {kind}")
        return kind in INDEX_TYPES
    if not any(looks):
        raise InvalidParameter(f"unsupported manifest media type {kind[:200]!r}")
    return bool(looks[0])


def check_image(manifest: Manifest) -> None:
    """See that a manifest is an image whose layers can be fetched. Raises InvalidParameter."""
    if manifest.config.media_type not in CONFIG_TYPES:
        raise InvalidParameter(f"unsupported media type {manifest.config.media_type}")
    if manifest.config.size > MAX_CONFIG:
        raise InvalidParameter(f"the image's config is larger than {MAX_CONFIG} bytes")
    for layer in manifest.layers:
        if layer.media_type.startswith(FOREIGN_LAYERS):
            raise InvalidParameter(f"layers of type {layer.media_type} are not fetched: they lie "
                                   "at an address of their own")  # fmt: skip
        if layer.media_type not in LAYER_TYPES:
            raise InvalidParameter(f"unsupported media type {layer.media_type}")


def parse_config(data: bytes) -> ImageConfig:
    """Read an image's config. Raises InternalError if it breaks the format's rules or a bound."""
    if len(data) > MAX_CONFIG:
        raise InternalError(f"the image's config is larger than {MAX_CONFIG} bytes")
    return _convert(_document(data, "the image's config"), ImageConfig, "the image's config")


def check_rootfs(config: ImageConfig, layers: Sequence[Descriptor]) -> tuple[Digest, ...]:
    """Return the diff ids of a manifest's layers. Raises InternalError if they don't match."""
    diff_ids = config.rootfs.diff_ids
    if config.rootfs.type != "layers":
        raise InternalError("invalid rootfs in image configuration")
    if len(diff_ids) != len(layers):
        raise InternalError("layers from manifest don't match image configuration")
    return tuple(Digest(diff_id) for diff_id in diff_ids)


def _schema1(name: str) -> str:
    author = f" Suggest the author of {name} to upgrade the image to the OCI Format or Docker " \
             "Image manifest v2, schema 2." if name else ""  # fmt: skip
    return (
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been "
        f"removed.{author} More information at https://docs.docker.com/go/deprecated-image-specs/"
    )


def _document(data: bytes, what: str) -> dict[str, object]:
    try:
        document = without_nulls(msgspec.json.decode(data))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InternalError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InternalError(f"{what} is not a JSON object")
    return document


def without_nulls(value: object, depth: int = 0) -> object:
    """Return decoded JSON without null members: what Go's decoder leaves at the zero value.

    Raises RecursionError if it is nested deeper than MAX_JSON_DEPTH.
    """
    if depth > MAX_JSON_DEPTH:
        raise RecursionError(f"nested deeper than {MAX_JSON_DEPTH}")
    if isinstance(value, dict):
        return {k: without_nulls(v, depth + 1) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(item, depth + 1) for item in value]
    return value


def _convert(document: dict[str, object], kind: type[_T], what: str) -> _T:
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InternalError(f"{what} is not valid: {error}") from error
