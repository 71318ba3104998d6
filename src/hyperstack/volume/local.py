"""Volumes of driver ``local``: host directories with a name (design 7).

A volume is a row and a directory ``data-root/volumes/NAME/_data`` that virtiofsd serves to guests.
The row is written before the directory and removed after it, so a killed daemon leaves no directory
that no row explains. With the options ``type``, ``o`` and ``device`` the directory is a mount point
(``options``, ``hostmounts``) while containers run that have the volume.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from hyperstack.config import Config
from hyperstack.errors import Conflict, InternalError, InvalidParameter, NotFound
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId, new_id
from hyperstack.model import MountState
from hyperstack.store.database import Database
from hyperstack.volume import options as driver_options
from hyperstack.volume.hostmounts import HostMounts
from hyperstack.volume.options import HostMount
from hyperstack.volume.sizes import sizes
from hyperstack.volume.sources import beneath, bind_source

DRIVER = "local"
ANONYMOUS = "com.docker.volume.anonymous"
"""Label that Docker gives to volumes without a name."""
MAX_NAME = 255
"""Bytes that a file system takes for a name."""
NO_NAME = "get: no such volume"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A named directory. ``created_ns`` is ns since the epoch; ``size`` bytes, -1 if not looked at.

    ``pending``: made for a container whose own row is not written yet.
    """

    name: str
    created_ns: int
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    pending: bool = False
    size: int = -1
    given_empty: tuple[str, ...] = ()
    """Of labels and options those that the client gave as empty ones."""

    @property
    def host_mount(self) -> HostMount | None:
        """What the host mounts for it; None if it is a plain directory."""
        return driver_options.host_mount(self.options)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Volume)

UsersOf = Callable[[str], Iterable[ContainerId]]
"""Says which containers have the volume of a name among their mounts."""


def nobody(_name: str) -> tuple[ContainerId, ...]:
    """Say that no container has a volume."""
    return ()


def _quoted(name: str) -> str:
    """Quote a name as Go's ``%q`` does."""
    return json.dumps(name, ensure_ascii=False)


class LocalVolumes:
    """The volumes of this host, in memory and in the database.

    A container that is being made claims its volumes before anything is waited for, so that nobody
    removes them before its row tells who uses them; ``settle`` or ``abandon`` ends that.
    """

    def __init__(self, config: Config, db: Database, events: EventBus) -> None:
        self.data_root = str(config.data_root)
        self._root = config.data_root / "volumes"
        self._db = db
        self._events = events
        rows = db.read(lambda c: c.execute("SELECT data FROM volumes").fetchall())
        self._volumes = {volume.name: volume for volume in (_decoder.decode(r[0]) for r in rows)}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._claims: dict[ContainerId, set[str]] = {}
        self._made: dict[ContainerId, list[str]] = {}
        self._mounts = HostMounts()

    def _lock(self, name: str) -> asyncio.Lock:
        """Return the lock under which the volume of a name comes and goes."""
        return self._locks.setdefault(name, asyncio.Lock())

    def get(self, name: str) -> Volume:
        """Find a volume by its name. Raises NotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume" if name else NO_NAME) from None

    def all(self) -> list[Volume]:
        """Return every volume, by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def path(self, volume: Volume) -> Path:
        """Return the host directory that the volume is."""
        return self._root / volume.name / "_data"

    async def create(
        self,
        name: str,
        *,
        driver: str = DRIVER,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
        holder: ContainerId | None = None,
    ) -> Volume:
        """Make a volume, or return the one of this name. An empty name means an anonymous one.

        Whatever options are asked for, one that exists stays as it is. *holder* is the container
        that is being made with it, and claims it; an anonymous one is pending until its
        ``settle``. Raises InvalidParameter for a bad name or option, NotFound for another driver.
        """
        chosen = name or new_id()
        if (driver or DRIVER) != DRIVER:
            raise NotFound(
                f"create {chosen}: error looking up volume plugin {driver}: "
                f'plugin "{driver}" not found'
            )
        async with self._lock(chosen):
            if (existing := self._volumes.get(chosen)) is not None:
                self._claim(chosen, holder)
                return existing
            self._check_name(chosen)
            unnamed = anonymous or not name
            volume = Volume(
                name=chosen,
                created_ns=time.time_ns(),
                labels={**(labels or {}), **({ANONYMOUS: ""} if unnamed else {})},
                options=driver_options.check(chosen, options or {}),
                anonymous=unnamed,
                pending=unnamed and holder is not None,
                given_empty=tuple(
                    word
                    for word, value in (("labels", labels), ("options", options))
                    if value == {}
                ),
            )
            await self._make_new(volume)
            self._claim(chosen, holder)
            if holder is not None and volume.pending:
                self._made.setdefault(holder, []).append(chosen)
        self._events.publish("volume", "create", volume.name, {"driver": DRIVER})
        return volume

    async def _make_new(self, volume: Volume) -> None:
        await self._store(volume)
        try:
            await asyncio.to_thread(self._make, volume)
        except BaseException:
            await asyncio.shield(self._forget(volume.name))
            raise

    def _claim(self, name: str, holder: ContainerId | None) -> None:
        if holder is not None:
            self._claims.setdefault(holder, set()).add(name)

    def claim(self, mounts: Iterable[MountState], holder: ContainerId) -> None:
        """Claim the volumes that *holder*, which is being made, takes over from others."""
        for mount in mounts:
            if mount.type == "volume" and mount.name:
                self._claim(mount.name, holder)

    def _check_name(self, name: str) -> None:
        if len(name.encode()) < 2:
            raise InvalidParameter(
                f"create {name}: volume name is too short, names should be at least two "
                "alphanumeric characters"
            )
        if not _NAME.match(name):
            raise InvalidParameter(
                f"create {name}: {_quoted(name)} includes invalid characters for a local volume "
                'name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a '
                "host directory, use absolute path"
            )
        if len(name) > MAX_NAME:
            path = self._root / name
            raise InternalError(
                f"create {name}: error while creating volume root path '{path}': "
                f"mkdir {path}: file name too long"
            )

    def _make(self, volume: Volume) -> None:
        try:
            self._root.mkdir(mode=0o701, exist_ok=True)
            (self._root / volume.name).mkdir(mode=0o701, exist_ok=True)
            (self._root / volume.name / "_data").mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise InternalError(
                f"create {volume.name}: {error.strerror}: {error.filename}"
            ) from error

    async def _store(self, volume: Volume) -> None:
        row = (volume.name, _encoder.encode(volume))

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO volumes (name, data) VALUES (?, ?)", row)

        await self._db.write(write)
        self._volumes[volume.name] = volume

    async def _forget(self, name: str) -> None:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM volumes WHERE name = ?", (name,))

        await self._db.write(write)
        self._volumes.pop(name, None)

    async def settle(self, holder: ContainerId) -> None:
        """The container *holder* has its row: its new volumes are there to stay."""
        self._claims.pop(holder, None)
        for name in self._made.pop(holder, ()):
            if (volume := self._volumes.get(name)) is not None and volume.pending:
                await self._store(msgspec.structs.replace(volume, pending=False))

    async def abandon(self, holder: ContainerId) -> None:
        """The container *holder* did not come to be: remove what was made for it alone."""
        self._claims.pop(holder, None)
        for name in self._made.pop(holder, ()):
            await self.remove(name, force=True)

    async def remove(self, name: str, *, users: UsersOf = nobody, force: bool = False) -> None:
        """Remove a volume that no container uses, with its files.

        Raises NotFound (not with *force*) or Conflict with the ids of its *users*.
        """
        async with self._lock(name):
            volume = self._volumes.get(name)
            if volume is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume" if name else NO_NAME)
            if holders := self._holders(name, users):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(holders)}]")
            if volume.host_mount is not None:
                # A container that ends just now: what is mounted must not be taken for its files.
                await self._mounts.sweep([(name, self.path(volume))])
            await asyncio.to_thread(shutil.rmtree, self._root / name, True)
            await self._forget(name)
        self._events.publish("volume", "destroy", name, {"driver": DRIVER})

    def _holders(self, name: str, users: UsersOf) -> list[ContainerId]:
        claiming = [holder for holder, names in self._claims.items() if name in names]
        return [*users(name), *claiming]

    async def drop_anonymous(self, mounts: Iterable[MountState], users: UsersOf = nobody) -> None:
        """Remove the anonymous volumes among a removed container's mounts that nobody else uses."""
        for mount in mounts:
            volume = self._volumes.get(mount.name) if mount.type == "volume" else None
            if volume is not None and volume.anonymous:
                with contextlib.suppress(Conflict):  # somebody else has it
                    await self.remove(volume.name, users=users, force=True)

    async def recover(self, used: Iterable[str]) -> int:
        """Drop volumes made for containers that never came to be; return how many."""
        kept = set(used)
        pending = [v for v in self._volumes.values() if v.pending]
        for volume in pending:
            if volume.name in kept:
                await self._store(msgspec.structs.replace(volume, pending=False))
            else:
                await self.remove(volume.name)
        known = {*self._volumes}
        if self._root.is_dir():
            for entry in self._root.iterdir():
                if entry.name not in known:
                    await asyncio.to_thread(shutil.rmtree, entry, True)
        return sum(volume.name not in kept for volume in pending)

    async def sweep_mounts(self) -> None:
        """Unmount what an earlier daemon mounted and no container that runs has."""
        await self._mounts.sweep(
            (v.name, self.path(v)) for v in self._volumes.values() if v.host_mount is not None
        )

    async def mount_source(self, mount: MountState, holder: ContainerId) -> Path:
        """Return the host path that a mount shows, made or mounted if that is missing.

        A volume that the host mounts stays so until ``release`` for *holder*. Raises HyperError in
        Docker's words.
        """
        if mount.type != "volume":
            return await asyncio.to_thread(bind_source, mount)
        volume = self.get(mount.name)
        await asyncio.to_thread(self._make, volume)
        path = self.path(volume)
        if (wanted := volume.host_mount) is not None:
            await self._mounts.hold(volume.name, holder, wanted, path)
        return await asyncio.to_thread(beneath, path, mount.subpath) if mount.subpath else path

    def take_up(self, mounts: Iterable[MountState], holder: ContainerId) -> None:
        """Know that *holder*, a container of an earlier daemon, runs with these mounts."""
        for mount in mounts:
            volume = self._volumes.get(mount.name) if mount.type == "volume" else None
            if volume is not None and volume.host_mount is not None:
                self._mounts.take_up(volume.name, holder)

    async def release(self, mounts: Iterable[MountState], holder: ContainerId) -> None:
        """*holder* has ended: unmount what the host mounted for it alone."""
        for mount in mounts:
            volume = self._volumes.get(mount.name) if mount.type == "volume" else None
            if volume is not None and volume.host_mount is not None:
                await self._mounts.release(volume.name, holder, self.path(volume))

    async def list_with_sizes(self) -> list[Volume]:
        """Return every volume with the bytes that its files hold.

        Those that the host mounts are left out, as by Docker: what they hold is not the engine's.
        """
        found = [volume for volume in self.all() if not volume.options]
        measured = await sizes([self.path(volume) for volume in found])
        return [
            msgspec.structs.replace(volume, size=size)
            for volume, size in zip(found, measured, strict=True)
        ]
