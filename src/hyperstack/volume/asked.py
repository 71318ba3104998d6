"""``--mount``: what may be asked for, and what it means (moby ``volume/mounts`` for Linux)."""

from __future__ import annotations

import posixpath

from hyperstack.errors import InvalidParameter
from hyperstack.model import MountPoint, MountState
from hyperstack.volume.local import DRIVER
from hyperstack.volume.sources import Absent, missing

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_OPTIONS = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions"}
_TMPFS_OPTIONS = frozenset({"exec", "noexec"})


class Refused(InvalidParameter):
    """A mount that can't be; the sentence begins with its type."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f'invalid mount config for type "{kind}": {reason}')


def check_options(mount: MountPoint) -> None:
    """Raise InvalidParameter for options of a type that the mount is not of."""
    for kind, name in _OPTIONS.items():
        if kind in mount.given and mount.type != kind:
            raise InvalidParameter(f'{name} must not be specified on mount type "{mount.type}"')


def from_mount(mount: MountPoint, *, sources: bool = True) -> MountState:
    """Translate one ``--mount``. Raises InvalidParameter.

    *sources*: a bind's path has to be there, unless it is to be made.
    """
    if sources:
        check_options(mount)
    target = _target(mount)
    if mount.type == "bind":
        _check_foreign(mount, "volume", "image")
        return _bind(mount, target, sources)
    if mount.type == "volume":
        _check_foreign(mount, "bind", "image")
        return _volume(mount, target)
    if mount.type == "tmpfs":
        _check_foreign(mount, "image")
        return _tmpfs(mount, target)
    if mount.type == "image":
        if not mount.source:
            raise Refused(mount.type, "field Source must not be empty")
        raise Refused(mount.type, "mounts of this type are not supported by this engine")
    raise Refused(mount.type, "mount type unknown")


def _target(mount: MountPoint) -> str:
    if not mount.target:
        raise Refused(mount.type, "field Target must not be empty")
    if mount.type not in ("bind", "volume", "tmpfs", "image"):
        raise Refused(mount.type, "mount type unknown")
    # normpath keeps two leading slashes, as POSIX allows them a meaning that Linux does not know.
    clean = "/" + posixpath.normpath(mount.target).lstrip("/")
    if mount.target.startswith("/") and clean == "/":
        raise Refused(mount.type, "invalid specification: destination can't be '/'")
    _check_absolute(mount.type, mount.target)
    return clean


def _check_absolute(kind: str, path: str) -> None:
    if not path.startswith("/"):
        raise Refused(kind, f"invalid mount path: '{path}' mount path must be absolute")


def _check_foreign(mount: MountPoint, *kinds: str) -> None:
    names = {**_OPTIONS, "image": "ImageOptions"}
    for kind in kinds:
        if kind in mount.given:
            raise Refused(mount.type, f"field {names[kind]} must not be specified")


def _bind(mount: MountPoint, target: str, sources: bool) -> MountState:
    if not mount.source:
        raise Refused("bind", "field Source must not be empty")
    if mount.propagation and mount.propagation not in PROPAGATION:
        raise Refused("bind", f"invalid propagation mode: {mount.propagation}")
    _check_absolute("bind", mount.source)
    error = missing(mount.source) if sources else None
    if error is not None and not (mount.create_mountpoint and isinstance(error, Absent)):
        raise error
    return MountState(
        type="bind",
        source="/" + posixpath.normpath(mount.source).lstrip("/"),
        destination=target,
        read_write=not mount.read_only,
        propagation=mount.propagation or "rprivate",
        make_source=mount.create_mountpoint,
        non_recursive=mount.non_recursive,
        read_only_non_recursive=mount.read_only_non_recursive,
        read_only_force_recursive=mount.read_only_force_recursive,
    )


def _volume(mount: MountPoint, target: str) -> MountState:
    if not mount.source and mount.subpath:
        raise Refused("volume", "must not set Subpath when using anonymous volumes")
    if not mount.source and mount.read_only:
        raise Refused("volume", "must not set ReadOnly mode when using anonymous volumes")
    inside = posixpath.normpath(mount.subpath)
    if mount.subpath.startswith("/") or inside == ".." or inside.startswith("../"):
        raise Refused("volume", "subpath must be a relative path within the volume")
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


def _tmpfs(mount: MountPoint, target: str) -> MountState:
    if mount.source:
        raise Refused("tmpfs", "field Source must not be specified")
    for option in mount.tmpfs_options:
        if len(option) not in (1, 2):
            raise Refused("tmpfs", "invalid option array length")
        if option[0] not in _TMPFS_OPTIONS:
            raise Refused("tmpfs", f"invalid option: {option[0]}")
    return MountState(type="tmpfs", destination=target, read_write=not mount.read_only)
