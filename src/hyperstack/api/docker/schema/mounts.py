"""``Mounts``: what was asked for with ``--mount``, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from hyperstack.api.docker.gojson import (
    BOOL,
    INT64,
    STRING,
    STRING_MAP,
    Int,
    Kind,
    String,
    Strings,
    Where,
)
from hyperstack.errors import InvalidParameter
from hyperstack.model import MountPoint, MountState

# Docker's nested keys of one mount, and where the model keeps them.
_TOP: dict[str, tuple[str, Kind]] = {
    "Type": ("type", String("mount.Type")),
    "Source": ("source", STRING),
    "Target": ("target", STRING),
    "ReadOnly": ("read_only", BOOL),
    "Consistency": ("consistency", String("mount.Consistency")),
}
_BIND: dict[str, tuple[str, Kind]] = {
    "Propagation": ("propagation", String("mount.Propagation")),
    "NonRecursive": ("non_recursive", BOOL),
    "CreateMountpoint": ("create_mountpoint", BOOL),
    "ReadOnlyNonRecursive": ("read_only_non_recursive", BOOL),
    "ReadOnlyForceRecursive": ("read_only_force_recursive", BOOL),
}
_VOLUME: dict[str, tuple[str, Kind]] = {
    "NoCopy": ("no_copy", BOOL),
    "Labels": ("labels", STRING_MAP),
    "Subpath": ("subpath", STRING),
}
_DRIVER: dict[str, tuple[str, Kind]] = {
    "Name": ("driver", STRING),
    "Options": ("driver_options", STRING_MAP),
}
_TMPFS: dict[str, tuple[str, Kind]] = {
    "SizeBytes": ("tmpfs_size", INT64),
    "Mode": ("tmpfs_mode", Int("fs.FileMode", 0, (1 << 32) - 1)),
}
_IMAGE: dict[str, tuple[str, Kind]] = {"Subpath": ("subpath", STRING)}
_STRINGS = Strings()


def _take(
    raw: Any, keys: dict[str, tuple[str, Kind]], struct: str, where: Where, into: dict[str, Any]
) -> dict[str, Any]:
    """Read known keys into *into*; return the rest by lower-case name."""
    if not isinstance(raw, dict):
        raise where.mismatch(raw, f"mount.{struct}")
    folded = {key.lower(): (key, *found) for key, found in keys.items()}
    rest: dict[str, Any] = {}
    for key, value in raw.items():
        if value is None:
            continue
        if (found := folded.get(key.lower())) is None:
            rest[key.lower()] = value
            continue
        name, attribute, kind = found
        into[attribute] = kind.read(value, where.field(struct, name))
    return rest


class MountKind(Kind):
    """One entry of ``HostConfig.Mounts``: nested in JSON, flat in the model."""

    go_type = "mount.Mount"

    def read(self, value: Any, where: Where) -> MountPoint:
        """Read a mount."""
        into: dict[str, Any] = {"type": ""}
        rest = _take(value, _TOP, "Mount", where, into)
        for key, keys, struct in (
            ("bindoptions", _BIND, "BindOptions"),
            ("volumeoptions", _VOLUME, "VolumeOptions"),
            ("tmpfsoptions", _TMPFS, "TmpfsOptions"),
            ("imageoptions", _IMAGE, "ImageOptions"),
        ):
            if key in rest:
                into["given"] = (*into.get("given", ()), key.removesuffix("options"))
                place = where.field("Mount", struct)
                left = _take(rest[key], keys, struct, place, into)
                if key == "volumeoptions" and "driverconfig" in left:
                    deeper = place.field(struct, "DriverConfig")
                    _take(left["driverconfig"], _DRIVER, "Driver", deeper, into)
                if key == "tmpfsoptions" and "options" in left:
                    into["tmpfs_options"] = _tmpfs_options(left["options"], place)
        return MountPoint(**into)

    def write(self, value: MountPoint) -> dict[str, Any]:
        """Write a mount with the options that its type has and that were set."""
        made = _give(value, _TOP)
        options: dict[str, Any]
        if value.type == "volume":
            options = _give(value, _VOLUME)
            if driver := _give(value, _DRIVER):
                options["DriverConfig"] = driver
            key = "VolumeOptions"
        elif value.type == "bind":
            options, key = _give(value, _BIND), "BindOptions"
        elif value.type == "tmpfs":
            options, key = _give(value, _TMPFS), "TmpfsOptions"
            if value.tmpfs_options:
                options["Options"] = [list(option) for option in value.tmpfs_options]
        else:
            options, key = _give(value, _IMAGE), "ImageOptions"
        if options or value.type in value.given:
            made[key] = options
        return made


def as_of(mounts: Sequence[MountPoint], version: tuple[int, int]) -> tuple[MountPoint, ...]:
    """Leave out of a client's wishes what its API version did not know, as dockerd does.

    Raises InvalidParameter for what would be missed.
    """
    made = []
    for mount in mounts:
        if version < (1, 45) and mount.type == "volume" and mount.subpath:
            raise InvalidParameter("VolumeOptions.Subpath needs API v1.45 or newer")
        if version < (1, 44) and "bind" in mount.given:
            mount = replace(
                mount,
                read_only_non_recursive=mount.read_only,
                read_only_force_recursive=False,
                create_mountpoint=mount.create_mountpoint and version >= (1, 42),
                non_recursive=mount.non_recursive and version >= (1, 40),
            )
        made.append(mount)
    return tuple(made)


def _tmpfs_options(raw: Any, where: Where) -> tuple[tuple[str, ...], ...]:
    place = where.field("TmpfsOptions", "Options")
    if not isinstance(raw, list):
        raise place.mismatch(raw, "[][]string")
    return tuple(
        () if item is None else _STRINGS.read(item, place.item(number))
        for number, item in enumerate(raw)
    )


def _give(value: MountPoint, keys: dict[str, tuple[str, Kind]]) -> dict[str, Any]:
    made = {}
    for key, (attribute, _) in keys.items():
        if found := getattr(value, attribute):
            made[key] = found
    return made


def mount_point(mount: MountState) -> dict[str, Any]:
    """Return one entry of a container's ``Mounts``."""
    made: dict[str, Any] = {"Type": mount.type}
    if mount.name:
        made["Name"] = mount.name
    made["Source"] = mount.source
    made["Destination"] = mount.destination
    if mount.driver:
        made["Driver"] = mount.driver
    made["Mode"] = mount.mode
    made["RW"] = mount.read_write
    made["Propagation"] = mount.propagation
    return made
