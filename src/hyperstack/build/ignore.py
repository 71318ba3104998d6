"""``.dockerignore``: which files of a context are left out (Docker build, "Build context")."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from hyperstack.errors import InvalidParameter
from hyperstack.globs import Glob

MAX_PATTERNS = 10_000


def read_ignore(text: str) -> list[str]:
    """Return the patterns of a ``.dockerignore``: comments out, cleaned, ``!`` kept."""
    patterns: list[str] = []
    for row in text.removeprefix("\ufeff").splitlines():
        if row.startswith("#") or not (pattern := row.strip()):
            continue
        inverted = pattern.startswith("!")
        pattern = pattern[inverted:].strip()
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
        patterns.append("!" * inverted + pattern)
    if len(patterns) > MAX_PATTERNS:
        raise InvalidParameter(f".dockerignore has more than {MAX_PATTERNS} patterns")
    return patterns


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a file of the context is left out; the last pattern that fits decides.

    A pattern fits what lies below a directory that it fits. Raises InvalidParameter.
    """
    parts = path.split("/")
    candidates = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    out = False
    for pattern in patterns:
        inverted = pattern.startswith("!")
        if inverted and pattern == "!":
            raise InvalidParameter('illegal exclusion pattern: "!"')
        if inverted != out:
            continue  # it could not change the verdict
        glob = Glob(pattern[inverted:], double=True)
        if any(glob.matches(candidate) for candidate in candidates):
            out = not inverted
    return out
