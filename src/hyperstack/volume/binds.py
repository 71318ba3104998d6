"""From ``-v``, ``--mount``, ``--volumes-from`` and an image's VOLUME to a container's mounts.

Docker's rules and sentences (moby ``volume/mounts``): an absolute source is a bind, any other a
volume's name, none an anonymous volume; a destination is used once. What a bind shows is looked up
at each start (``sources``); only ``--mount`` asks for it to be there at create already.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Iterable
from typing import Protocol

from msgspec.structs import replace

from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.ids import ContainerId
from hyperstack.model import Container, ContainerConfig, HostConfig, MountPoint, MountState
from hyperstack.volume.asked import PROPAGATION as PROPAGATION
from hyperstack.volume.asked import Refused, from_mount
from hyperstack.volume.local import DRIVER, LocalVolumes

_FLAGS = frozenset({"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"})


class Containers(Protocol):
    """Where ``--volumes-from`` looks containers up."""

    def get(self, reference: str) -> Container:
        """Find a container. Raises NotFound."""
        ...


async def resolve_mounts(
    volumes: LocalVolumes,
    config: ContainerConfig,
    host: HostConfig,
    containers: Containers,
    holder: ContainerId,
) -> tuple[MountState, ...]:
    """Return the mounts of the container *holder* to be made; makes the volumes that are missing.

    They are claimed for it until ``settle`` or ``abandon`` of the volumes, whatever is raised:
    InvalidParameter and InternalError in Docker's words, NotFound for a volume's driver that there
    is not.
    """
    inherited = _inherited(host.volumes_from, containers)
    volumes.claim(inherited, holder)  # before anything is waited for
    found = {mount.destination: mount for mount in inherited}
    asked: set[str] = set()
    for spec in host.binds:
        mount = parse_bind(spec)
        given = mount.propagation in mount.mode.split(",")
        mount = _beside_the_root(mount, volumes.data_root, given=given)
        _claim(asked, mount.destination, mount.destination)
        found[mount.destination] = mount
    for target in host.tmpfs:
        if _clean(target) in asked:
            raise InvalidParameter(f"Duplicate mount point: {target}")
    for wish in host.mounts:
        # A source may lie on a file system whose server is silent.
        mount = await asyncio.to_thread(from_mount, wish)
        mount = _beside_the_root(mount, volumes.data_root, given=bool(wish.propagation))
        _claim(asked, mount.destination, wish.target)
        found[mount.destination] = mount
    for target in config.volumes:
        clean = _clean(target)
        if clean not in found and clean not in map(_clean, host.tmpfs):
            found[clean] = MountState(
                type="volume", destination=clean, driver=DRIVER, anonymous=True
            )
    return await _with_volumes(volumes, list(found.values()), host, holder)


def _claim(asked: set[str], destination: str, told: str) -> None:
    if destination in asked:
        raise InvalidParameter(f"Duplicate mount point: {told}")
    asked.add(destination)


def _beside_the_root(mount: MountState, root: str, *, given: bool) -> MountState:
    """Give a bind that shows the data root, or lies in it, Docker's propagation unless *given*.

    Raises InvalidParameter for another one (moby's ``validateBindDaemonRoot``, which compares
    beginnings of names).
    """
    beside = root.startswith(mount.source) or mount.source.startswith(root)
    if mount.type != "bind" or not beside:
        return mount
    if not given:
        return replace(mount, propagation="rslave", implied=True)
    if mount.propagation in ("rslave", "rshared"):
        return mount
    raise InvalidParameter(
        'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount '
        f'source is within the daemon root, daemon root: "{root}", bind mount source: '
        f'"{mount.source}", propagation: "{mount.propagation}"'
    )


def _inherited(specs: Iterable[str], containers: Containers) -> list[MountState]:
    made: list[MountState] = []
    for spec in specs:
        if not spec:
            raise InvalidParameter("volumes-from specification cannot be an empty string")
        name, _, mode = spec.partition(":")
        flags = _flags(mode)
        if flags is None or "nocopy" in flags or any(flag in PROPAGATION for flag in flags):
            raise InvalidParameter(f"invalid mode: {mode}")
        if not name:
            raise InvalidParameter('invalid name or ID supplied: ""')
        try:
            lender = containers.get(name)
        except NotFound as error:  # not the image is missing: the CLI would pull it
            raise InvalidParameter(error.message) from error
        for mount in lender.mounts:
            writable = mount.read_write and "ro" not in flags
            made.append(replace(mount, read_write=writable, mode="", no_copy=True))
    return made


def parse_bind(spec: str) -> MountState:
    """Translate ``source:target:mode`` of ``-v``. Raises InternalError, as dockerd answers 500."""
    parts = spec.split(":")
    # With two parts the second is the target; a mode there would be one without a source.
    two_is_mode = len(parts) == 2 and _flags(parts[1]) is not None
    if len(parts) > 3 or not parts[0] or two_is_mode:
        raise InternalError(f"invalid volume specification: '{spec}'")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    flags = _flags(mode)
    if flags is None:
        raise InternalError(f"invalid mode: {mode}")
    try:
        return _bind_state(source, target, mode, flags)
    except Refused as error:
        raise InternalError(f"invalid volume specification: '{spec}': {error.message}") from error


def _bind_state(source: str, target: str, mode: str, flags: list[str]) -> MountState:
    propagation = next((flag for flag in flags if flag in PROPAGATION), "")
    if source.startswith("/"):
        wish = MountPoint(
            type="bind",
            source=source,
            target=target,
            given=("volume",) if "nocopy" in flags else (),
        )
    else:
        wish = MountPoint(
            type="volume", source=source, target=target, given=("bind",) if propagation else ()
        )
    made = from_mount(wish, sources=False)
    made = replace(made, read_write="ro" not in flags)
    if made.type == "bind":
        return replace(made, mode=mode, propagation=propagation or "rprivate", make_source=True)
    return replace(made, mode=mode or "z", no_copy="nocopy" in flags)


def _flags(mode: str) -> list[str] | None:
    """Split a mode; None if it is none."""
    flags = mode.split(",") if mode else []
    known = all(flag in _FLAGS or flag in PROPAGATION for flag in flags)
    exclusive = ({"ro", "rw"}, {"z", "Z"}, {"cached", "delegated", "consistent"}, set(PROPAGATION))
    twice = len(set(flags)) != len(flags) or any(len(s & set(flags)) > 1 for s in exclusive)
    return flags if known and not twice else None


def _clean(target: str) -> str:
    clean = posixpath.normpath(target)
    # normpath keeps two leading slashes, as POSIX allows them a meaning that Linux does not know.
    return "/" + clean.lstrip("/") if clean.startswith("/") else clean


async def _with_volumes(
    volumes: LocalVolumes, mounts: list[MountState], host: HostConfig, holder: ContainerId
) -> tuple[MountState, ...]:
    """Make the volumes that mounts name, and fill in where they are."""
    options = {_clean(m.target): m for m in host.mounts if m.type == "volume"}
    made: list[MountState] = []
    for mount in mounts:
        if mount.type != "volume" or mount.source:
            made.append(mount)
            continue
        wish = options.get(mount.destination)
        volume = await volumes.create(
            mount.name,
            driver=wish.driver if wish is not None else host.volume_driver,
            options=(wish.driver_options if wish is not None else {}) or None,
            labels=(wish.labels if wish is not None else {}) or None,
            anonymous=mount.anonymous,
            holder=holder,
        )
        made.append(replace(mount, name=volume.name, source=str(volumes.path(volume))))
    return tuple(made)
