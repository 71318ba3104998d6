"""Which handler answers which method and path, with or without a version in front.

One file per resource under ``routes/`` adds its routes; the first one that fits wins, as in moby's
router. What fits no route is 404 ``page not found``, whatever the method.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyperstack.api.docker.request import API_VERSION, MIN_API_VERSION, Request, version_tuple
from hyperstack.errors import InvalidParameter

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

Handler = Callable[[Request, "Engine"], Awaitable[None]]

_VERSION = re.compile(r"/v([0-9.]+)(/.*)\Z", re.DOTALL)
_PARAMETER = re.compile(r"{(\w+)}")
_SEGMENT = re.compile(r"<(\w+)>")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route. ``waits``: the handler only waits or streams, and ends when its client leaves."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    waits: bool = False


class Router:
    """All routes, by method and first path segment."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], list[Route]] = {}

    def add(self, method: str, path: str, handler: Handler, *, waits: bool = False) -> None:
        """Add a route; ``{name}`` in *path* takes anything, slashes too, ``<name>`` one segment."""
        plain = re.escape(path).replace(r"\{", "{").replace(r"\}", "}")
        pattern = _PARAMETER.sub(r"(?P<\1>.*)", _SEGMENT.sub(r"(?P<\1>[^/]+)", plain))
        route = Route(method=method, pattern=re.compile(pattern), handler=handler, waits=waits)
        self._routes.setdefault((method, _first(path)), []).append(route)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route for a path without version, and its parameters."""
        for route in self._routes.get((method, _first(path)), ()):
            if (match := route.pattern.fullmatch(path)) is not None:
                return route, match.groupdict()
        return None


def _first(path: str) -> str:
    return path.partition("/")[2].partition("/")[0]


def split_version(path: str) -> tuple[str | None, str]:
    """Take the version off a path: ``/v1.41/info`` is ``1.41`` and ``/info``."""
    match = _VERSION.match(path)
    return (match[1], match[2]) if match else (None, path)


class TooOld(InvalidParameter):
    """The client speaks no version that is spoken here any more."""


MOST_DIGITS = 20
"""Digits of a version's number that are looked at: more than any version has."""


def check_version(version: str) -> tuple[int, int]:
    """Return a client's version. Raises InvalidParameter in Docker's words if it is not spoken.

    As moby's ``versions.LessThan``: any number of parts, of which empty and missing ones are 0.
    """
    numbers = [int(part[:MOST_DIGITS] or "0") for part in version.split(".")]
    while len(numbers) > 2 and not numbers[-1]:
        numbers.pop()
    asked = tuple([*numbers, 0][: max(len(numbers), 2)])
    if asked < version_tuple(MIN_API_VERSION):
        raise TooOld(
            f"client version {version} is too old. Minimum supported API version is "
            f"{MIN_API_VERSION}, please upgrade your client to a newer version"
        )
    if asked > version_tuple(API_VERSION):
        raise InvalidParameter(
            f"client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )
    return asked[0], asked[1]


def cleaned(path: str) -> str:
    """Return the path that Go's mux redirects to: without empty and dot segments."""
    if not path.startswith("/"):
        return "/" + path
    clean = posixpath.normpath(path)
    clean = "/" + clean.lstrip("/")
    return clean + "/" if path.endswith("/") and clean != "/" else clean
