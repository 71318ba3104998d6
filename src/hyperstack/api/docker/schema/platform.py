"""The ``platform`` parameter of requests about images: a JSON object, as OCI writes it.

moby, ``httputils.DecodePlatform``: ``{"os": "linux", "architecture": "arm64", "variant": "v8"}``.
"""

from __future__ import annotations

from collections.abc import Sequence

from hyperstack.api.docker.gojson import STRING, Field, Schema, Strings, decode
from hyperstack.errors import InvalidParameter
from hyperstack.image.manifest import Platform

PLATFORM: Schema[Platform] = Schema(
    "v1.Platform",
    Platform,
    (
        Field("architecture", "architecture", STRING),
        Field("os", "os", STRING),
        Field("os.version", "os_version", STRING, omit=True),
        Field("os.features", "os_features", Strings(), omit=True),
        Field("variant", "variant", STRING, omit=True),
    ),
)
_INVALID = "invalid JSON: "
_SHORT = frozenset({"unexpected EOF", "got EOF while reading request body"})


def read_platform(text: str) -> Platform | None:
    """Return the platform, None without one. Raises InvalidParameter in Docker's words."""
    return _read(text) if text else None


def read_platforms(texts: Sequence[str]) -> Platform | None:
    """Return the one platform of a parameter that may be there several times."""
    if len(texts) > 1:
        raise InvalidParameter("multiple platforms are not supported")
    return _read(texts[0]) if texts else None


def _read(text: str) -> Platform:
    try:
        raw = decode(text.encode())
        platform = Platform() if raw is None else PLATFORM.read(raw)
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to parse platform: {_reason(text, error)}") from error
    if platform.os and platform.architecture:
        return platform
    if (platform.variant or platform.os_version or platform.os_features) and not (
        platform.os or platform.architecture
    ):
        raise InvalidParameter(
            "optional platform fields provided, but OS and Architecture are missing"
        )
    raise InvalidParameter("both OS and Architecture must be provided")


def _reason(text: str, error: InvalidParameter) -> str:
    """Word what a whole text lacks as Go does; the body's reader speaks of a stream."""
    reason = error.message.removeprefix(_INVALID)
    if reason in _SHORT:
        return "unexpected end of JSON input"
    if reason == "unexpected content after JSON":
        return f"invalid character '{text.rstrip()[-1:]}' after top-level value"
    return reason
