"""Volumes of driver ``local``: host directories with a name (design 7).

A volume is a row and a directory ``data-root/volumes/NAME/_data`` that virtiofsd serves to guests.
The row is written before the directory and removed after it, so a killed daemon leaves no directory
that no row explains. With the options ``type=none,o=bind,device=/path`` the volume is that path, as
with Docker; other kinds of mounts are refused.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from hyperstack.config import Config
from hyperstack.errors import Conflict, InternalError, InvalidParameter, NotFound
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId, new_id
from hyperstack.model import MountState
from hyperstack.store.database import Database

DRIVER = "local"
ANONYMOUS = "com.docker.volume.anonymous"
"""Label that Docker gives to volumes without a name."""
MAX_NAME = 255
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


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Volume)


class LocalVolumes:
    """The volumes of this host, in memory and in the database."""

    def __init__(self, config: Config, db: Database, events: EventBus) -> None:
        self._root = config.data_root / "volumes"
        self._db = db
        self._events = events
        rows = db.read(lambda c: c.execute("SELECT data FROM volumes").fetchall())
        self._volumes = {volume.name: volume for volume in (_decoder.decode(r[0]) for r in rows)}
        self._lock = asyncio.Lock()

    def get(self, name: str) -> Volume:
        """Find a volume by its name. Raises NotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def all(self) -> list[Volume]:
        """Return every volume, by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def path(self, volume: Volume) -> Path:
        """Return the host directory that the volume is."""
        device = volume.options.get("device")
        return Path(device) if device else self._root / volume.name / "_data"

    async def create(
        self,
        name: str,
        *,
        driver: str = DRIVER,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
        pending: bool = False,
    ) -> Volume:
        """Make a volume, or return the one of this name. An empty name means an anonymous one.

        Raises InvalidParameter for a bad name or option, NotFound for another driver, Conflict if
        it exists with other options.
        """
        if (driver or DRIVER) != DRIVER:
            raise NotFound(
                f"create {name}: error looking up volume plugin {driver}: "
                f'plugin "{driver}" not found'
            )
        volume = Volume(
            name=name or new_id(),
            created_ns=time.time_ns(),
            labels={**(labels or {}), **({ANONYMOUS: ""} if anonymous or not name else {})},
            options=_checked_options(name, options or {}),
            anonymous=anonymous or not name,
            pending=pending,
        )
        _check_name(volume.name)
        async with self._lock:
            existing = self._volumes.get(volume.name)
            if existing is not None:
                return _same(existing, volume)
            await self._store(volume)
            try:
                await asyncio.to_thread(self._make, volume)
            except BaseException:
                await asyncio.shield(self._forget(volume.name))
                raise
        self._events.publish("volume", "create", volume.name, {"driver": DRIVER})
        return volume

    def _make(self, volume: Volume) -> None:
        if volume.options.get("device"):
            return
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

    async def settle(self, mounts: Iterable[MountState]) -> None:
        """The container of these mounts has its row: its new volumes are there to stay."""
        for mount in mounts:
            volume = self._volumes.get(mount.name) if mount.type == "volume" else None
            if volume is not None and volume.pending:
                await self._store(msgspec.structs.replace(volume, pending=False))

    async def remove(self, name: str, *, users: Iterable[ContainerId], force: bool = False) -> None:
        """Remove a volume that no container uses, with its files.

        Raises NotFound (not with *force*) or Conflict with the ids of its *users*.
        """
        volume = self._volumes.get(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        holders = list(users)
        if holders:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(holders)}]")
        async with self._lock:
            if name not in self._volumes:
                return
            await asyncio.to_thread(shutil.rmtree, self._root / name, True)
            await self._forget(name)
        self._events.publish("volume", "destroy", name, {"driver": DRIVER})

    async def drop_anonymous(self, mounts: Iterable[MountState], used: Iterable[str] = ()) -> None:
        """Remove the anonymous volumes among a removed container's mounts that nobody else uses."""
        kept = set(used)
        for mount in mounts:
            volume = self._volumes.get(mount.name) if mount.type == "volume" else None
            if volume is not None and volume.anonymous and volume.name not in kept:
                await self.remove(volume.name, users=())

    async def recover(self, used: Iterable[str]) -> int:
        """Drop volumes made for containers that never came to be; return how many."""
        kept = set(used)
        pending = [v for v in self._volumes.values() if v.pending]
        for volume in pending:
            if volume.name in kept:
                await self._store(msgspec.structs.replace(volume, pending=False))
            else:
                await self.remove(volume.name, users=())
        known = {*self._volumes}
        if self._root.is_dir():
            for entry in self._root.iterdir():
                if entry.name not in known:
                    await asyncio.to_thread(shutil.rmtree, entry, True)
        return sum(volume.name not in kept for volume in pending)

    async def mount_source(self, mount: MountState) -> Path:
        """Return the host path that a mount shows, made if it is a volume's.

        Raises InvalidParameter if a bind's source is gone, NotFound if the volume is.
        """
        if mount.type == "volume":
            volume = self.get(mount.name)
            await asyncio.to_thread(self._make, volume)
            source = self.path(volume)
            if mount.subpath:
                source = await asyncio.to_thread(_beneath, source, mount.subpath)
        else:
            source = Path(mount.source)
        if not await asyncio.to_thread(source.exists):
            raise InvalidParameter(
                f'invalid mount config for type "{mount.type}": bind source path does not exist: '
                f"{source}"
            )
        return source

    async def list_with_sizes(self) -> list[Volume]:
        """Return every volume with the bytes that its files take."""
        found = self.all()
        sizes = await asyncio.gather(*(asyncio.to_thread(_size, self.path(v)) for v in found))
        return [
            msgspec.structs.replace(volume, size=size)
            for volume, size in zip(found, sizes, strict=True)
        ]


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME:
        raise InvalidParameter(
            f"create {name[:32]}...: volume name is too long, {MAX_NAME} at most"
        )
    if len(name) < 2:
        raise InvalidParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric "
            "characters"
        )
    if not _NAME.match(name):
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


def _checked_options(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """Accept what the local driver can do here: nothing, or a bind of a host directory."""
    for key in options:
        if key not in ("type", "o", "device", "size"):
            raise InvalidParameter(f'create {name}: invalid option: "{key}"')
    if not options:
        return {}
    flags = options.get("o", "").split(",")
    device = options.get("device", "")
    if "bind" not in flags or not device.startswith("/"):
        raise InvalidParameter(
            f"create {name}: the local driver binds host directories only: give the options "
            "type=none, o=bind and device=/absolute/path"
        )
    return dict(options)


def _same(existing: Volume, asked: Volume) -> Volume:
    if asked.options and asked.options != existing.options:
        raise Conflict(f"volume {asked.name} already exists with other options")
    return existing


def _beneath(root: Path, subpath: str) -> Path:
    """Return an existing path below a volume; a link that leads out of it is refused."""
    base = root.resolve()
    found = (base / subpath.lstrip("/")).resolve()
    if found != base and base not in found.parents:
        raise InvalidParameter(f"invalid mount config: subpath {subpath} leaves the volume")
    if not found.exists():
        raise NotFound(f"cannot access path {found}: no such file or directory")
    return found


def _size(path: Path) -> int:
    """Add up the allocated bytes of a tree; what vanishes meanwhile counts nothing; blocking."""
    total = 0
    stack = [str(path)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
