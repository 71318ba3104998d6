"""From ``-v``, ``--mount``, ``--volumes-from`` and an image's VOLUME to a container's mounts.

Docker's rules and sentences (moby ``volume/mounts``): an absolute source is a bind, any other a
volume's name, none an anonymous volume; a destination is used once; binds by ``-v`` make a missing
host directory, those by ``--mount`` refuse it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.model import Container, ContainerConfig, HostConfig, MountPoint, MountState
from hyperstack.volume.local import DRIVER, LocalVolumes

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_FLAGS = frozenset({"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"})


class Containers(Protocol):
    """Where ``--volumes-from`` looks containers up."""

    def get(self, reference: str) -> Container:
        """Find a container. Raises NotFound."""
        ...


async def resolve_mounts(
    volumes: LocalVolumes, config: ContainerConfig, host: HostConfig, containers: Containers
) -> tuple[MountState, ...]:
    """Return the mounts of a container to be created; makes the volumes that are missing.

    New anonymous volumes are pending until ``LocalVolumes.settle``. Raises InvalidParameter in
    Docker's words, NotFound for an unknown container of ``--volumes-from``.
    """
    found: dict[str, MountState] = {}
    for mount in _inherited(host.volumes_from, containers):
        found[mount.destination] = mount
    asked: set[str] = set()
    for mount in (*map(parse_bind, host.binds), *map(from_mount, host.mounts)):
        if mount.destination in asked:
            raise InvalidParameter(f"Duplicate mount point: {mount.destination}")
        asked.add(mount.destination)
        found[mount.destination] = mount
    for target in config.volumes:
        clean = _target(target, target)
        if clean not in found and clean not in map(_clean, host.tmpfs):
            found[clean] = MountState(
                type="volume", destination=clean, driver=DRIVER, anonymous=True
            )
    for mount in found.values():
        if mount.type == "bind" and mount.destination in asked:
            _make_source(mount, host.mounts)
    return await _with_volumes(volumes, list(found.values()), host.mounts)


def _inherited(specs: Iterable[str], containers: Containers) -> list[MountState]:
    made: list[MountState] = []
    for spec in specs:
        name, _, mode = spec.partition(":")
        if not name:
            raise InvalidParameter(f"invalid volume specification: '{spec}'")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidParameter(f"invalid mode for volumes-from: {mode}")
        try:
            lender = containers.get(name)
        except NotFound as error:  # not the image is missing: the CLI would pull it
            raise InvalidParameter(error.message) from error
        for mount in lender.mounts:
            made.append(_changed(mount, read_only=True) if mode == "ro" else mount)
    return made


def _changed(mount: MountState, *, read_only: bool) -> MountState:
    values = {name: getattr(mount, name) for name in mount.__struct_fields__}
    return MountState(**{**values, "read_write": not read_only, "mode": "ro" if read_only else ""})


def parse_bind(spec: str) -> MountState:
    """Translate ``source:target:mode`` of ``-v``. Raises InvalidParameter."""
    parts = spec.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidParameter(f"invalid volume specification: '{spec}'")
    if len(parts) == 1:
        parts = ["", parts[0]]
    source, target = parts[0], _target(parts[1], spec)
    mode = parts[2] if len(parts) == 3 else ""
    flags = _mode(mode)
    if source.startswith("/"):
        if "nocopy" in flags:
            raise InvalidParameter(f"invalid mode: {mode}")
        return MountState(
            type="bind",
            source=posixpath.normpath(source),
            destination=target,
            mode=mode,
            read_write="ro" not in flags,
            propagation=next((f for f in flags if f in PROPAGATION), "rprivate"),
        )
    if any(flag in PROPAGATION for flag in flags):
        raise InvalidParameter(f"invalid mode: {mode}")
    return MountState(
        type="volume",
        name=source,
        destination=target,
        driver=DRIVER,
        mode=mode or "z",
        read_write="ro" not in flags,
        no_copy="nocopy" in flags,
        anonymous=not source,
    )


def _mode(mode: str) -> list[str]:
    flags = mode.split(",") if mode else []
    known = all(flag in _FLAGS or flag in PROPAGATION for flag in flags)
    exclusive = ({"ro", "rw"}, {"z", "Z"}, {"cached", "delegated", "consistent"}, set(PROPAGATION))
    if (
        not known
        or len(set(flags)) != len(flags)
        or any(len(s & set(flags)) > 1 for s in exclusive)
    ):
        raise InvalidParameter(f"invalid mode: {mode}")
    return flags


def _clean(target: str) -> str:
    return posixpath.normpath(target) if target.startswith("/") else target


def _target(target: str, spec: str) -> str:
    clean = posixpath.normpath(target)
    kind = "bind" if spec.startswith("/") and spec != target else "volume"
    refused = f"invalid volume specification: '{spec}': invalid mount config for type \"{kind}\":"
    if not target.startswith("/"):
        raise InvalidParameter(
            f"{refused} invalid mount path: '{target}' mount path must be absolute"
        )
    # normpath keeps two leading slashes, as POSIX allows them a meaning that Linux does not know.
    clean = "/" + clean.lstrip("/")
    if clean == "/":
        raise InvalidParameter(f"{refused} invalid specification: destination can't be '/'")
    return clean


def from_mount(mount: MountPoint) -> MountState:
    """Translate one ``--mount``. Raises InvalidParameter."""

    def refuse(reason: str) -> InvalidParameter:
        return InvalidParameter(f'invalid mount config for type "{mount.type}": {reason}')

    if not mount.target:
        raise refuse("field Target must not be empty")
    if not mount.target.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.target}' mount path must be absolute")
    target = "/" + posixpath.normpath(mount.target).lstrip("/")
    if target == "/":
        raise refuse("invalid specification: destination can't be '/'")
    if mount.type == "bind":
        return _bind(mount, target, refuse)
    if mount.type == "volume":
        if mount.driver not in ("", DRIVER):
            raise refuse(f'plugin "{mount.driver}" not found')
        return MountState(
            type="volume",
            name=mount.source,
            destination=target,
            driver=DRIVER,
            mode="z",
            read_write=not mount.read_only,
            no_copy=mount.no_copy,
            subpath=mount.subpath,
            anonymous=not mount.source,
        )
    if mount.type == "tmpfs":
        if mount.source:
            raise refuse("field Source must not be specified")
        return MountState(type="tmpfs", destination=target, read_write=not mount.read_only)
    if mount.type in ("image", "npipe", "cluster"):
        raise refuse("mounts of this type are not supported by this engine")
    raise refuse("mount type unknown")


class _Refuse(Protocol):
    def __call__(self, reason: str) -> InvalidParameter: ...


def _bind(mount: MountPoint, target: str, refuse: _Refuse) -> MountState:
    if not mount.source:
        raise refuse("field Source must not be empty")
    if not mount.source.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.source}' mount path must be absolute")
    if mount.propagation and mount.propagation not in PROPAGATION:
        raise refuse(f"invalid propagation mode: {mount.propagation}")
    if mount.no_copy or mount.labels or mount.driver:
        raise refuse("field VolumeOptions must not be specified")
    return MountState(
        type="bind",
        source=posixpath.normpath(mount.source),
        destination=target,
        read_write=not mount.read_only,
        propagation=mount.propagation or "rprivate",
    )


def _make_source(mount: MountState, mounts: Iterable[MountPoint]) -> None:
    """Make a bind's missing directory, or refuse it as ``--mount`` does."""
    source = Path(mount.source)
    if source.exists():
        return
    by_mount = [m for m in mounts if m.type == "bind" and _clean(m.target) == mount.destination]
    if by_mount and not by_mount[0].create_mountpoint:
        raise InvalidParameter(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )
    try:
        source.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InternalError(
            f"error while creating mount source path '{mount.source}': mkdir {mount.source}: "
            f"{(error.strerror or str(error)).lower()}"
        ) from error


async def _with_volumes(
    volumes: LocalVolumes, mounts: list[MountState], asked: Iterable[MountPoint]
) -> tuple[MountState, ...]:
    """Make the volumes that mounts name, and fill in where they are."""
    options = {m.source: m for m in asked if m.type == "volume" and m.source}
    made: list[MountState] = []
    try:
        for mount in mounts:
            if mount.type != "volume" or mount.source:
                made.append(mount)
                continue
            wish = options.get(mount.name, MountPoint())
            volume = await volumes.create(
                mount.name,
                options=wish.driver_options,
                labels=wish.labels,
                anonymous=mount.anonymous,
                pending=mount.anonymous,
            )
            values = {name: getattr(mount, name) for name in mount.__struct_fields__}
            values |= {"name": volume.name, "source": str(volumes.path(volume))}
            made.append(MountState(**values))
    except BaseException:
        await volumes.drop_anonymous(made)
        raise
    return tuple(made)
