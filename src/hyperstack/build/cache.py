"""The build cache: an image that the same step on the same parent made before.

There is no other store than the images themselves. A child of the parent whose last step of
history and whose configuration are what this step would make is that step's result; the newest one
wins. With ``--cache-from`` only what those images are made of counts, and of an image that was
pulled, whose parents are not here, the step's image is made anew from its history.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hyperstack.errors import HyperError
from hyperstack.image.configfile import encode_container_config
from hyperstack.image.service import Image, ImageService
from hyperstack.model import ContainerConfig

log = logging.getLogger(__name__)


class Cache:
    """What may stand in for a step of one build; asked again after each FROM."""

    def __init__(self, images: ImageService, *, off: bool, sources: Sequence[str]) -> None:
        self._images = images
        self._off = off
        self._missed = False
        self._only = bool(sources)
        self._sources = [image for ref in sources if (image := self._source(ref)) is not None]

    def _source(self, ref: str) -> Image | None:
        try:
            return self._images.get(ref)
        except HyperError as error:
            log.info("no cache from %s: %s", ref, error)
            return None

    def reset(self) -> None:
        """A stage begins: an earlier one's miss means nothing to it."""
        self._missed = False

    async def probe(self, parent: str, config: ContainerConfig, created_by: str) -> str:
        """Return the id of the image that a step would make, empty if it must be made.

        After one miss every later step of the stage is made.
        """
        if self._off or self._missed:
            return ""
        found = self._local(parent, config, created_by)
        if found and self._only and not any(self._made_of(s, found) for s in self._sources):
            found = ""
        if not found and self._sources:
            found = await self._from_sources(parent, config, created_by)
        self._missed = not found
        return found

    def _local(self, parent: str, config: ContainerConfig, created_by: str) -> str:
        depth = self._depth(parent)
        wanted = encode_container_config(config)
        fitting = [
            image
            for image in self._images.children(parent)
            if len(image.history) == depth + 1
            and image.history[-1].created_by == created_by
            and encode_container_config(image.config) == wanted
        ]
        return max(fitting, key=lambda image: image.created_ns).id if fitting else ""

    def _depth(self, image: str) -> int:
        return len(self._images.get(image).history) if image else 0

    def _made_of(self, source: Image, image: str) -> bool:
        """Tell whether *source* is *image* or was made from it."""
        seen: set[str] = set()
        at = source.id
        while at and at not in seen:
            if at == image:
                return True
            seen.add(at)
            try:
                at = self._images.get(at).parent
            except HyperError:
                return False
        return False

    async def _from_sources(self, parent: str, config: ContainerConfig, created_by: str) -> str:
        base = self._images.get(parent) if parent else None
        depth = len(base.history) if base else 0
        for source in self._sources:
            if not _begins_with(source, base) or source.history[depth].created_by != created_by:
                continue
            if len(source.history) > depth + 1:
                self._sources = [source]  # what goes on from here must go on in the same image
            return await self._images.restore(parent, source, config)
        return ""


def _begins_with(image: Image, base: Image | None) -> bool:
    """Tell whether *image* has a step more than *base*, and the same ones before it."""
    if base is None:
        return bool(image.history)
    steps, layers = len(base.history), len(base.diff_ids)
    return (
        len(image.history) > steps
        and image.history[:steps] == base.history
        and image.diff_ids[:layers] == base.diff_ids
    )
