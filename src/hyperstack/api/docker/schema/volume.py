"""Volumes."""

from __future__ import annotations

from typing import Any

from hyperstack.api.docker.gojson import (
    NIL_STRING_MAP,
    STRING,
    Field,
    Schema,
)
from hyperstack.api.docker.gotime import rfc3339
from hyperstack.volume.local import DRIVER, Volume


def _values(**values: Any) -> dict[str, Any]:
    return values


CREATE: Schema[dict[str, Any]] = Schema(
    "CreateOptions",
    _values,
    (
        Field("Name", "name", STRING),
        Field("Driver", "driver", STRING),
        Field("DriverOpts", "driver_opts", NIL_STRING_MAP),
        Field("Labels", "labels", NIL_STRING_MAP),
    ),
)


def volume(
    found: Volume, mountpoint: str, *, usage: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return a volume; *usage*: references and bytes, for ``system df``."""
    made: dict[str, Any] = {
        "CreatedAt": rfc3339(found.created_ns),
        "Driver": DRIVER,
        "Labels": dict(sorted(found.labels.items())) or None,
        "Mountpoint": mountpoint,
        "Name": found.name,
        "Options": dict(sorted(found.options.items())) or None,
        "Scope": "local",
    }
    if usage is not None:
        made["UsageData"] = {"RefCount": usage[0], "Size": usage[1]}
    return made
