"""What pulling and pushing need of the image store: its narrow side towards registries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hyperstack.config import Config
from hyperstack.image.content import ContentStore
from hyperstack.image.layer import LayerStore
from hyperstack.image.manifest import Platform
from hyperstack.image.transfers import Transfers
from hyperstack.image.values import LayerBlob, ManifestBlob


class Images(Protocol):
    """The image store, ``service.ImageService``."""

    @property
    def config(self) -> Config:
        """The daemon's configuration."""

    @property
    def content(self) -> ContentStore:
        """Blobs as they travel."""

    @property
    def layers(self) -> LayerStore:
        """Layers as guests see them."""

    @property
    def transfers(self) -> Transfers:
        """The daemon's places for downloads and uploads."""

    def lookup(self, name: str) -> str | None:
        """Return the id of the image that a familiar ``name:tag`` or ``name@digest`` names."""

    def has_image(self, image: str) -> bool:
        """Tell whether there is an image of this id."""

    def platform(self, image: str) -> Platform:
        """Return what an image was made for."""

    async def tag(self, image: str, name: str) -> None:
        """Give an image another name."""

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
        """Write the rows of an image whose blobs and layers are here, and return its id."""

    def tags_of(self, repository: str) -> Sequence[tuple[str, str]]:
        """Return tag and image id of every tag of a repository, by its familiar name."""

    def manifest_of(self, image: str) -> ManifestBlob:
        """Return the manifest by which an image is pushed; all its blobs are here."""

    def config_of(self, image: str) -> bytes:
        """Return an image's config as it came."""

    def known_in(self, digest: str, domain: str) -> Sequence[str]:
        """Return paths of repositories on *domain* that are known to have had a blob."""

    async def add_digest(self, image: str, name: str) -> None:
        """Note ``name@digest`` for an image that was pushed."""
