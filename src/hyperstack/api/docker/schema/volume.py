"""Volumes."""

from __future__ import annotations

from typing import Any

from hyperstack.api.docker.gojson import (
    NIL_STRING_MAP,
    STRING,
    Field,
    Object,
    Schema,
)
from hyperstack.api.docker.gotime import rfc3339
from hyperstack.volume.local import DRIVER, Volume


def _values(**values: Any) -> dict[str, Any]:
    return values


_CLUSTER: Schema[dict[str, Any]] = Schema("volume.ClusterVolumeSpec", _values, ())
"""Swarm's: what is in it is not looked at."""
CREATE: Schema[dict[str, Any]] = Schema(
    "volume.CreateOptions",
    _values,
    (
        Field("Name", "name", STRING),
        Field("Driver", "driver", STRING),
        Field("DriverOpts", "driver_opts", NIL_STRING_MAP),
        Field("Labels", "labels", NIL_STRING_MAP),
        Field("ClusterVolumeSpec", "cluster", Object(_CLUSTER)),
    ),
)


def _shown(given: dict[str, str], *, empty: bool) -> dict[str, str] | None:
    """Return a map in the order of its keys; null for an empty one that was not given as such."""
    return dict(sorted(given.items())) if given or empty else None


def volume(
    found: Volume, mountpoint: str, *, usage: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return a volume; *usage*: references and bytes, for ``system df``."""
    made: dict[str, Any] = {
        "CreatedAt": rfc3339(found.created_ns),
        "Driver": DRIVER,
        "Labels": _shown(found.labels, empty="labels" in found.given_empty),
        "Mountpoint": mountpoint,
        "Name": found.name,
        "Options": _shown(found.options, empty="options" in found.given_empty),
        "Scope": "local",
    }
    if usage is not None:
        made["UsageData"] = {"RefCount": usage[0], "Size": usage[1]}
    return made
