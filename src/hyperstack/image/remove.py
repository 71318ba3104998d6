"""``rmi`` and ``image prune``: names, images, and the layers that nobody needs afterwards.

Docker's rules. A name of several is only taken away; with the last one the image goes, if nothing
forbids it: a running container or an image made from this one always do, a stopped container and
further names unless forced. Parents without a name that nothing else needs go along. An image that
a stopped container still needs is hidden until the container is gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from hyperstack.errors import Conflict, HyperError, InternalError
from hyperstack.ids import short
from hyperstack.image import rows
from hyperstack.image.catalog import chain_ids, name_of
from hyperstack.image.listing import Filters, boolean, check_keys, label_test, moment
from hyperstack.image.reference import Reference
from hyperstack.image.store import ImageStore
from hyperstack.image.values import Image

Removed = tuple[Literal["untagged", "deleted"], str]


async def remove(store: ImageStore, ref: str, *, force: bool, prune: bool) -> list[Removed]:
    """Remove a name or an image, and with *prune* its nameless parents; return what went, in order.

    Raises NotFound, or Conflict in Docker's words.
    """
    job = _Removal(store)
    try:
        async with store.lock:
            await job.run(ref, force=force, prune=prune)
    finally:
        await store.collect()
    return job.done


async def prune(store: ImageStore, filters: Filters) -> tuple[list[Removed], int]:
    """Remove images that nothing uses; return what went and the bytes of their layers.

    Without a filter ``dangling=false`` only those without a tag. Raises InvalidParameter for bad
    filters.
    """
    check_keys(filters, ("dangling", "label", "label!", "until"))
    only_dangling = boolean(filters, "dangling", default=True)
    before = {
        chain: store.catalog.layers[diff_id].content_size
        for image in store.catalog
        for chain, diff_id in zip(chain_ids(image.diff_ids), image.diff_ids, strict=True)
        if diff_id in store.catalog.layers
    }
    done: list[Removed] = []
    for image in _candidates(store, filters, only_dangling=bool(only_dangling)):
        names = [n.canonical() for n in store.catalog.names(image.id)]
        for ref in names or [image.id]:
            done += await _quietly(store, ref)
    freed = sum(before.get(text, 0) for what, text in done if what == "deleted")
    await store.collect(patience=0)
    store.events.publish("image", "prune", "", {"reclaimed": str(freed)})
    return done, freed


def _candidates(store: ImageStore, filters: Filters, *, only_dangling: bool) -> list[Image]:
    until = _until(filters.get("until", []))
    wanted = label_test(filters.get("label", []))
    unwanted = [label_test([value]) for value in filters.get("label!", [])]
    return [
        image
        for image in store.catalog
        if (until is None or (image.created and image.created_ns <= until))
        and wanted(image)
        and not any(test(image) for test in unwanted)
        and not (only_dangling and image.names)
        and (
            not store.catalog.children(image.id)
            or (not only_dangling and bool(image.names or image.repo_digests))
        )
    ]


def _until(values: Sequence[str]) -> int | None:
    if len(values) > 1:
        raise InternalError("more than one until filter specified")
    return moment(values[0], time.time_ns()) if values else None


async def _quietly(store: ImageStore, ref: str) -> list[Removed]:
    job = _Removal(store)
    try:
        async with store.lock:
            await job.run(ref, force=False, prune=True)
    except HyperError:
        pass  # it is in use, or went with another one
    return job.done


class _Refusal(Exception):
    """Why an image can't be deleted."""

    def __init__(self, image: str, reason: str, *, hard: bool = False, used: bool = False) -> None:
        how = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {short(image)} ({how}) - {reason}")
        self.used = used


class _Removal:
    """One removal, under the store's lock. ``done`` grows as things go."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._catalog = store.catalog
        self.done: list[Removed] = []

    async def run(self, ref: str, *, force: bool, prune: bool) -> None:
        """Remove what *ref* names. Raises NotFound, Conflict."""
        image = self._catalog.get(ref)
        names = self._catalog.names(image.id)
        try:
            if _is_id(image.id, ref):
                if is_single(names):
                    self._check(image, force=force, references=False)
                    for name in names:
                        await self._untag(image, name)
                await self._delete(image, force=force, prune=prune, quiet=False)
                return
            await self._by_name(image, names, ref, force=force)
            if not self._catalog.names(image.id):
                await self._delete(image, force=force, prune=prune, quiet=True)
        except _Refusal as refusal:
            raise Conflict(str(refusal)) from None

    async def _by_name(
        self, image: Image, names: Sequence[Reference], ref: str, *, force: bool
    ) -> None:
        parsed = Reference.parse(ref)
        users = self._store.users(image.id)
        if users and not force and is_single(names):
            raise Conflict(
                f'conflict: unable to remove repository reference "{parsed.familiar()}" (must '
                f"force) - container {short(users[0].id)} is using its referenced image "
                f"{short(image.id)}"
            )
        await self._untag(image, Reference.parse(name_of(parsed)))
        if parsed.digest is not None:
            return
        left = [n for n in self._catalog.names(image.id) if n.name == parsed.name]
        if all(name.digest is not None for name in left):
            # The repository's last tag is gone: its digests mean nothing to the user any more.
            for name in left:
                await self._untag(image, name, event=False)

    async def _untag(self, image: Image, name: Reference, *, event: bool = True) -> None:
        await rows.remove(self._store.db, rows.Removal(names=[name.canonical()]))
        self._catalog.unname(name.canonical())
        self.done.append(("untagged", name.familiar()))
        if event:
            self._store.event("untag", image)

    def _check(self, image: Image, *, force: bool, references: bool = True) -> None:
        """Raise _Refusal if something forbids to delete the image."""
        if self._catalog.children(image.id):
            raise _Refusal(image.id, "image has dependent child images", hard=True)
        users = self._store.users(image.id)
        for container in users:
            if container.state.status.is_up:
                reason = f"image is being used by running container {short(container.id)}"
                raise _Refusal(image.id, reason, hard=True, used=True)
        if force:
            return
        if references and self._catalog.names(image.id):
            raise _Refusal(image.id, "image is referenced in multiple repositories")
        if users:
            reason = f"image is being used by stopped container {short(users[0].id)}"
            raise _Refusal(image.id, reason, used=True)

    async def _delete(self, image: Image, *, force: bool, prune: bool, quiet: bool) -> None:
        """Delete the image, then its nameless parents. Raises _Refusal unless it is *quiet*."""
        try:
            self._check(image, force=force)
        except _Refusal as refusal:
            if quiet and (self._catalog.names(image.id) or refusal.used):
                return
            if quiet and self._catalog.children(image.id):
                return
            raise
        for name in self._catalog.names(image.id):
            await self._untag(image, name)
        chains = chain_ids(image.diff_ids)
        if self._store.users(image.id):
            await rows.hide(self._store.db, image.id)
            self._catalog.hide(image.id)
        else:
            await rows.remove(self._store.db, rows.Removal(images=[image.id]))
            self._catalog.drop(image.id)
        # As with Docker, whose image is gone by now, without its labels.
        self._store.events.publish("image", "delete", image.id, {"name": image.id})
        self.done.append(("deleted", image.id))
        needed = self._catalog.needed_chains()
        self.done += [("deleted", chain) for chain in reversed(chains) if chain not in needed]
        parent = self._catalog.find(image.parent) if image.parent else None
        if prune and parent is not None:
            await self._delete(parent, force=False, prune=True, quiet=True)


def _is_id(image: str, ref: str) -> bool:
    """Tell whether *ref* is the image's id or a prefix of it, as Docker does."""
    return image.startswith(ref) or image.removeprefix("sha256:").startswith(ref)


def is_single(names: Sequence[Reference]) -> bool:
    """Tell whether an image has one name: at most one tag, and digests of one repository only."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if name.digest is None]
    digests = {name.name for name in names if name.digest is not None}
    if len(tags) > 1:
        return False
    return digests == {(tags or list(names))[0].name}
