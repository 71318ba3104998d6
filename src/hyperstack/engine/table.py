"""All containers in memory, found by name, id or unique prefix; every change is written through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from weakref import WeakValueDictionary

from hyperstack.engine import rows
from hyperstack.errors import Conflict, InvalidParameter, NotFound
from hyperstack.ids import ContainerId
from hyperstack.model import Container
from hyperstack.store.database import Database


class Table:
    """The containers of this host. Lookups are synchronous; saves are durable when they return."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._by_id: dict[ContainerId, Container] = {}
        self._by_name: dict[str, ContainerId] = {}
        self._locks: WeakValueDictionary[ContainerId, asyncio.Lock] = WeakValueDictionary()

    def load(self) -> None:
        """Read the database; called once at start."""
        for container in rows.load_containers(self._db):
            self._by_id[container.id] = container
            self._by_name[container.name] = container.id

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def lock(self, container: ContainerId) -> asyncio.Lock:
        """Return the lock under which a container changes its state.

        It is the same one for as long as anybody holds it or waits for it.
        """
        return self._locks.setdefault(container, asyncio.Lock())

    def find(self, container: ContainerId) -> Container | None:
        """Return the container of a full id, or None."""
        return self._by_id.get(container)

    def get(self, reference: str) -> Container:
        """Find a container by full id, name (with or without slash) or unique id prefix.

        Raises NotFound, or InvalidParameter when a prefix fits several.
        """
        if not reference:
            raise InvalidParameter("invalid container name or ID: value is empty")
        if (found := self._by_id.get(ContainerId(reference))) is not None:
            return found
        named = self._by_name.get(reference.removeprefix("/"))
        if named is not None and named in self._by_id:  # else it is only being made
            return self._by_id[named]
        if (linked := self._linked(reference)) is not None:
            return linked
        matches = [c for i, c in self._by_id.items() if i.startswith(reference)]
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {reference}")
        if not matches:
            raise NotFound(f"No such container: {reference}")
        return matches[0]

    def _linked(self, reference: str) -> Container | None:
        """Return whom ``parent/alias`` means, a name that ``--link`` gives."""
        name, slash, alias = reference.strip("/").rpartition("/")
        parent = self._by_id.get(self._by_name.get(name, ContainerId(""))) if slash else None
        link = parent.links.get(alias) if parent is not None else None
        return self._by_id.get(link.container) if link is not None else None

    def claim(self, name: str, container: ContainerId) -> None:
        """Reserve a name. Raises Conflict in Docker's words if another container has it."""
        holder = self._by_name.get(name)
        if holder is not None and holder != container:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container '
                f'"{holder}". You have to remove (or rename) that container to be able to reuse '
                "that name."
            )
        self._by_name[name] = container

    def taken(self, name: str) -> bool:
        """Tell whether a name belongs to a container or is reserved for one."""
        return name in self._by_name

    def release_name(self, name: str, container: ContainerId) -> None:
        """Give a claimed name back if *container* holds it."""
        if self._by_name.get(name) == container:
            del self._by_name[name]

    async def add(self, container: Container) -> None:
        """Store a new container whose name has been claimed."""
        # In memory first: what looks meanwhile for users of its image and volumes must find it.
        self._by_id[container.id] = container
        try:
            await rows.put_container(self._db, container)
        except BaseException:
            del self._by_id[container.id]
            raise

    async def save(self, container: Container) -> None:
        """Store a container's present state."""
        if container.id in self._by_id:
            await rows.put_container(self._db, container)

    async def delete(self, container: Container) -> None:
        """Forget a container and its name."""
        # Out of memory first: a save that comes meanwhile would write the row again.
        self._by_id.pop(container.id, None)
        try:
            await rows.delete_container(self._db, container.id)
        except BaseException:
            self._by_id[container.id] = container
            raise
        self.release_name(container.name, container.id)
