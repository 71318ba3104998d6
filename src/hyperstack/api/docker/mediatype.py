"""``Content-Type`` of requests with JSON, read as Go's ``mime.ParseMediaType`` reads it.

The sentences are those of moby's ``httputils.CheckForJSON`` (``matchesContentType``).
"""

from __future__ import annotations

import re

from hyperstack.errors import InvalidParameter

JSON = "application/json"
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TYPE = re.compile(rf"({_WORD})?(/)?({_WORD})?(.*)", re.DOTALL)
_PARAMETER = re.compile(rf'\s*;\s*({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*")\s*', re.DOTALL)


def check_json(given: str) -> None:
    """Raise InvalidParameter unless a header says that JSON comes."""
    kind, separator, rest = given.partition(";")
    fault = _type_fault(kind.strip().lower()) or _parameter_fault(separator + rest)
    if fault:
        raise InvalidParameter(f"malformed Content-Type header ({given}): mime: {fault}")
    if kind.strip().lower() != JSON:
        raise InvalidParameter(
            f"unsupported Content-Type header ({given}): must be 'application/json'"
        )


def _type_fault(kind: str) -> str:
    parts = _TYPE.fullmatch(kind)
    if parts is None or not parts[1]:
        return "no media type"
    if not parts[2]:
        return "expected slash after first token" if parts[4] else ""
    if not parts[3]:
        return "expected token after slash"
    return "unexpected content after media subtype" if parts[4] else ""


def _parameter_fault(rest: str) -> str:
    names: set[str] = set()
    while rest.strip() not in ("", ";"):
        found = _PARAMETER.match(rest)
        if found is None:
            return "invalid media parameter"
        if found[1].lower() in names:
            return "duplicate parameter name"
        names.add(found[1].lower())
        rest = rest[found.end() :]
    return ""
