"""Images as one service: finds the image, then the verb's own module does it."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperstack.config import Config
from hyperstack.errors import InvalidParameter, NotFound
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image import (
    commit,
    configfile,
    history,
    importing,
    listing,
    load,
    recover,
    remove,
    save,
)
from hyperstack.image.history import HistoryItem
from hyperstack.image.manifest import Platform
from hyperstack.image.progress import Progress
from hyperstack.image.reference import Reference, tag_name
from hyperstack.image.registryside import RegistrySide
from hyperstack.image.remove import Removed
from hyperstack.image.store import ImageStore, Users
from hyperstack.image.values import Image
from hyperstack.model import ContainerConfig
from hyperstack.store.database import Database

if TYPE_CHECKING:
    from hyperstack.image.auth import AuthConfig

__all__ = ["Image", "ImageService"]

Filters = dict[str, list[str]]


class ImageService:
    """What may be done with images. *ref* is a name, an id or a unique prefix of an id.

    Every method that takes a *ref* raises NotFound for an unknown one and InvalidParameter for what
    is no reference, and what its verb's module says.
    """

    def __init__(self, config: Config, db: Database, kit: Kit, events: EventBus) -> None:
        self._store = ImageStore(config, db, kit, events)
        self.registry = RegistrySide(self._store)
        """What pulls and pushes work on."""

    # Life

    def set_users(self, users: Users) -> None:
        """Say who uses an image (by full id): what may be removed hangs on it."""
        self._store.users = users

    async def recover(self) -> None:
        """Clear what an earlier daemon left half made. To be called once, before anything else."""
        await recover.recover(self._store)

    async def close(self) -> None:
        """End what runs in the background."""
        await self._store.tasks.aclose()

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Keep every blob and layer that is here, needed or not, while the block runs."""
        return self._store.hold()

    async def released(self) -> None:
        """Say that a container is gone: an image that was removed before it may go now."""
        await self._store.drop_hidden()

    # Questions

    def get(self, ref: str, platform: Platform | None = None) -> Image:
        """Find an image. Raises NotFound, "No such image: ...", or for another platform's."""
        image = self._store.catalog.get(ref)
        actual = Platform(os=image.os, architecture=image.architecture, variant=image.variant)
        if platform is None or platform.accepts(actual):
            return image
        raise NotFound(
            f"image with reference {ref} was found but its platform ({actual}) does not match the "
            f"specified platform ({platform})"
        )

    def rootfs(self, image_id: str) -> list[Path]:
        """Return the EROFS files of an image (by full id), the uppermost first.

        Raises NotFound if there is no such image.
        """
        return [self._store.layers.path(d) for d in reversed(self._find(image_id).diff_ids)]

    def made_of(self, image_id: str) -> dict[str, Any]:
        """Return the configuration of the container that an image (full id) was made of.

        It is by Docker's keys, as the image's config has it; empty if that says nothing.
        """
        return configfile.made_of(self._store.config_of(image_id))

    async def nothing(self) -> Path:
        """Return an EROFS file without anything in it; it stays while somebody holds (``hold``)."""
        return await commit.nothing(self._store)

    def size(self, image_id: str) -> int:
        """Return the bytes of an image's files; 0 if it is unknown. *image_id* is a full id."""
        image = self._store.catalog.find(image_id)
        return image.size if image else 0

    def layers_size(self) -> int:
        """Return the bytes of all layers' files, each counted once on what lies below it."""
        return listing.layers_size(self._store)

    def count(self) -> int:
        """Return how many images there are."""
        return len(self._store.catalog)

    def list(self, *, all_: bool, filters: Filters) -> builtins.list[Image]:
        """List images, newest first; *all_* with intermediate ones. See ``listing.py``."""
        return listing.list_images(self._store, all_=all_, filters=filters)

    def shared_sizes(self) -> dict[str, int]:
        """Return by id how many of an image's bytes other images have too."""
        return listing.shared_sizes(self._store)

    def descendants(self, ids: Iterable[str]) -> set[str]:
        """Return the ids of all images made from these, directly or not."""
        return self._store.catalog.descendants(ids)

    def children(self, image_id: str) -> builtins.list[Image]:
        """Return the images made from an image (full id), or from none if it is empty."""
        found = map(self._store.catalog.find, self._store.catalog.children(image_id))
        return [image for image in found if image is not None]

    def history(self, ref: str, platform: Platform | None = None) -> builtins.list[HistoryItem]:
        """Return how an image was made, the last step first."""
        return history.history(self._store, self.get(ref, platform))

    def _find(self, image_id: str) -> Image:
        image = self._store.catalog.find(image_id)
        if image is None:
            raise NotFound(f"No such image: {image_id}")
        return image

    # Changes

    async def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Give an image another name (``docker tag``)."""
        name = tag_name(repo, tag)
        try:
            image = self.get(ref)
        except InvalidParameter as error:
            raise NotFound(error.message) from error  # as dockerd has it here
        await self._store.tag(image.id, name)
        self._store.event("tag", image, name.familiar())

    async def remove(
        self, ref: str, *, force: bool, prune: bool, platform: Platform | None = None
    ) -> builtins.list[Removed]:
        """Remove a name or an image; see ``remove.py``."""
        if platform is not None:
            self.get(ref, platform)
        return await remove.remove(self._store, ref, force=force, prune=prune)

    async def prune(self, filters: Filters) -> tuple[builtins.list[Removed], int]:
        """Remove images that nothing uses; return what went and the bytes it took."""
        return await remove.prune(self._store, filters)

    async def commit(
        self,
        *,
        parent: str,
        layer: Path | None,
        config: ContainerConfig,
        container: str = "",
        created_by: str = "",
        author: str = "",
        comment: str = "",
        reference: str = "",
        made_of: ContainerConfig | None = None,
        announced: bool = True,
    ) -> str:
        """Make an image of a parent and one more layer; see ``commit.py``. Returns its id."""
        return await commit.commit(
            self._store,
            parent=parent,
            layer=layer,
            config=config,
            container=container,
            created_by=created_by,
            author=author,
            comment=comment,
            reference=reference,
            made_of=made_of,
            announced=announced,
        )

    async def restore(self, parent: str, source: Image, config: ContainerConfig) -> str:
        """Make the image of *source*'s next step on *parent* anew; see ``commit.py``."""
        return await commit.restore(self._store, parent, source, config)

    def import_(
        self,
        body: AsyncIterator[bytes] | str,
        *,
        repo: str = "",
        tag: str = "",
        message: str = "",
        config: ContainerConfig | None = None,
        platform: str = "",
    ) -> AsyncGenerator[Progress, None]:
        """Make an image of a root's tar, or of what an address has; see ``importing.py``."""
        return importing.import_image(
            self._store,
            body,
            repo=repo,
            tag=tag,
            message=message,
            config=config or ContainerConfig(),
            platform=platform,
        )

    def load(
        self, body: AsyncIterator[bytes], *, quiet: bool = False, platform: Platform | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Take in what ``save`` wrote, here or elsewhere; see ``load.py``."""
        return load.load(self._store, body, quiet=quiet, platform=platform)

    def save(
        self, refs: Sequence[str], platform: Platform | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Return images as one tar; see ``save.py``. Raises at once for an unknown *ref*."""
        return save.save(self._store, refs, platform)

    async def pull(
        self,
        name: str,
        tag: str = "",
        *,
        platform: str = "",
        auth: AuthConfig | None = None,
        all_tags: bool = False,
    ) -> AsyncGenerator[Progress, None]:
        """Pull an image (``latest`` without a tag), or all tags; see ``pull.py``."""
        # The registry's client takes longer to import than the daemon has to start.
        from hyperstack.image import pull
        from hyperstack.image.auth import NOBODY

        reference = Reference.parse_with_tag(name, tag)
        if not all_tags:
            reference = reference.tagged()
        with self._store.hold():
            lines = pull.pull(
                self.registry, reference.canonical(), platform=platform, auth=auth or NOBODY
            )
            async with contextlib.aclosing(lines):
                async for line in lines:
                    yield line
        self._transferred("pull", reference)

    async def push(
        self, name: str, tag: str = "", *, auth: AuthConfig | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Push an image, or all tags of a repository; see ``push.py``."""
        from hyperstack.image import push
        from hyperstack.image.auth import NOBODY

        reference = push.to_push(name, tag)
        with self._store.hold():
            await self.registry.prepare(reference)
            lines = push.push(self.registry, reference.canonical(), auth=auth or NOBODY)
            async with contextlib.aclosing(lines):
                async for line in lines:
                    yield line
        self._transferred("push", reference)

    def _transferred(self, action: str, reference: Reference) -> None:
        labels: Mapping[str, str] = {}
        with contextlib.suppress(NotFound):
            labels = self.get(reference.canonical()).config.labels
        attributes = {**labels, "name": reference.familiar_name}
        self._store.events.publish("image", action, reference.familiar(), attributes)
