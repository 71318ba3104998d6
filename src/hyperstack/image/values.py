"""Values of the image store: an image, its history, and what a new one is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from hyperstack.model import ContainerConfig

LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """Media type, digest and size in bytes of a piece of content (OCI "Content Descriptors")."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One step of an image's making, as its config tells it; *created* is RFC 3339 or empty."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """A layer that is in the layer store. Sizes are bytes."""

    diff_id: str
    tar_size: int
    """Of the uncompressed tar."""
    content_size: int
    """Sum of the files' sizes: what Docker shows as a layer's size."""
    disk_size: int
    """Of the EROFS file."""


@dataclass(frozen=True, kw_only=True)
class LayerBlob:
    """A blob of the content store that holds a layer: what the image's manifest names."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, kw_only=True)
class ManifestBlob:
    """A manifest (or index) as it came, byte for byte."""

    digest: str
    media_type: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image of the store. ``id`` is the digest of its config; times are ns since the epoch."""

    id: str
    parent: str = ""
    names: tuple[str, ...] = ()
    """``busybox:latest`` ..., as Docker shows them."""
    repo_digests: tuple[str, ...] = ()
    """``busybox@sha256:...``"""
    created: str = ""
    """RFC 3339, as the config has it; empty if it has none."""
    created_ns: int = 0
    author: str = ""
    comment: str = ""
    container: str = ""
    docker_version: str = ""
    architecture: str = ""
    variant: str = ""
    os: str = ""
    os_version: str = ""
    config: ContainerConfig = field(default_factory=ContainerConfig)
    diff_ids: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    size: int = 0
    """Bytes of all its layers' files."""
    last_tagged_ns: int = 0
    manifest: Descriptor | None = None
    """The manifest by which it was pulled or loaded, if that is known."""
