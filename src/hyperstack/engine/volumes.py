"""Volumes as clients see them: with the containers that use them, and Docker's filters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hyperstack.engine.core import Core
from hyperstack.engine.listing import Filters, label_test, matches
from hyperstack.engine.table import Table
from hyperstack.errors import Conflict, InvalidParameter
from hyperstack.ids import ContainerId
from hyperstack.model import Container
from hyperstack.volume.local import DRIVER, LocalVolumes, UsersOf, Volume

_KEYS = frozenset({"name", "label", "dangling", "driver"})
_PRUNE_KEYS = frozenset({"label", "label!"})


def users(table: Table, name: str) -> list[ContainerId]:
    """Return the containers, running or not, that have a volume among their mounts."""
    return [c.id for c in table if any(m.type == "volume" and m.name == name for m in c.mounts)]


def users_beside(table: Table, leaving: ContainerId) -> UsersOf:
    """Return what says who has a volume among its mounts beside *leaving*."""
    return lambda name: [user for user in users(table, name) if user != leaving]


def used_names(table: Table) -> set[str]:
    """Return the volumes that containers have among their mounts."""
    return {m.name for container in table for m in container.mounts if m.type == "volume"}


def mounted(core: Core, container: Container) -> None:
    """Publish that a container that starts has its volumes mounted."""
    for mount in container.mounts:
        if mount.type == "volume":
            attributes = {
                "container": container.id,
                "destination": mount.destination,
                "driver": DRIVER,
                "propagation": mount.propagation,
                "read/write": "true" if mount.read_write else "false",
            }
            core.events.publish("volume", "mount", mount.name, attributes)


def unmounted(core: Core, container: Container) -> None:
    """Publish that a container that has ended mounts its volumes no more."""
    for mount in container.mounts:
        if mount.type == "volume":
            attributes = {"container": container.id, "driver": DRIVER}
            core.events.publish("volume", "unmount", mount.name, attributes)


@dataclass(frozen=True, kw_only=True)
class VolumeUse:
    """A volume, where it lies on the host, and how many containers use it."""

    volume: Volume
    mountpoint: str
    references: int


class VolumeService:
    """What clients may do with volumes."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def _volumes(self) -> LocalVolumes:
        return self._core.volumes

    def _use(self, volume: Volume) -> VolumeUse:
        return VolumeUse(
            volume=volume,
            mountpoint=str(self._volumes.path(volume)),
            references=len(users(self._core.table, volume.name)),
        )

    def get(self, name: str) -> VolumeUse:
        """Find a volume. Raises NotFound."""
        return self._use(self._volumes.get(name))

    def list(self, filters: Filters) -> list[VolumeUse]:
        """List volumes by name. Raises InvalidParameter for filters that Docker refuses."""
        return [self._use(volume) for volume in self._selected(filters, _KEYS)]

    def _selected(self, filters: Filters, keys: frozenset[str]) -> Iterator[Volume]:
        for key in filters:
            if key not in keys:
                raise InvalidParameter(f"invalid filter '{key}'")
        wanted = label_test(filters.get("label", []))
        unwanted = [label_test([value]) for value in filters.get("label!", [])]
        used = used_names(self._core.table)
        dangling = _dangling(filters["dangling"]) if "dangling" in filters else None
        for volume in self._volumes.all():
            if not wanted(volume.labels) or any(test(volume.labels) for test in unwanted):
                continue
            if dangling is not None and (volume.name not in used) is not dangling:
                continue
            if not _named(volume.name, filters.get("name", [])):
                continue
            if "driver" in filters and DRIVER not in filters["driver"]:
                continue
            yield volume

    async def create(
        self,
        name: str,
        driver: str = DRIVER,
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> VolumeUse:
        """Make a volume, or return the one of this name."""
        volume = await self._volumes.create(name, driver=driver, options=driver_opts, labels=labels)
        return self._use(volume)

    async def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume. Raises Conflict if a container uses it, NotFound unless *force*."""
        table = self._core.table
        await self._volumes.remove(name, users=lambda one: users(table, one), force=force)

    async def prune(self, filters: Filters) -> tuple[tuple[str, ...], int]:
        """Remove unused anonymous volumes (``all``: named ones too); return names and bytes."""
        everything = _all(filters["all"]) if filters.get("all") else False
        rest = {key: values for key, values in filters.items() if key != "all"}
        chosen = {v.name for v in self._selected(rest, _PRUNE_KEYS)}
        used = used_names(self._core.table)
        removed = []
        freed = 0
        for volume in await self._volumes.list_with_sizes():
            if volume.name not in chosen or volume.name in used:
                continue
            if not (volume.anonymous or everything):
                continue
            try:
                await self.remove(volume.name)
            except Conflict:
                continue  # a container has taken it meanwhile
            removed.append(volume.name)
            freed += max(0, volume.size)
        self._core.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return tuple(removed), freed


def _named(name: str, patterns: list[str]) -> bool:
    if not patterns:
        return True
    return any(matches(pattern, name) for pattern in patterns)


def _dangling(values: list[str]) -> bool:
    """Read the filter as moby's ``GetBoolOrDefault`` does. Raises InvalidParameter."""
    if not values:
        raise InvalidParameter("invalid filter 'dangling'")
    answers = {{"1": True, "true": True, "0": False, "false": False}.get(v) for v in values}
    if answers in ({True}, {False}):
        return answers == {True}
    raise InvalidParameter(f"invalid filter 'dangling=[{' '.join(values)}]'")


def _all(values: list[str]) -> bool:
    """Read prune's ``all``. Raises InvalidParameter."""
    if len(values) > 1:
        raise InvalidParameter(
            f"invalid filter 'all=[{' '.join(values)}]': only one value is expected"
        )
    (value,) = values
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidParameter(
        f"invalid filter 'all': strconv.ParseBool: parsing {json.dumps(value)}: invalid syntax"
    )
