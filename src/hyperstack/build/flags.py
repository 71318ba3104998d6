"""Flags in front of an instruction's arguments, ``--name=value``, and words that were meant.

The words of errors are those of the Dockerfile front end that the classic builder has too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hyperstack.errors import InvalidParameter

_FAR = 3
"""Edits from which on a word is another one."""
_LONGEST = 64


def read(
    given: Sequence[str], texts: Iterable[str], switches: Iterable[str] = ()
) -> dict[str, str]:
    """Return flags by name; *switches* need no value, *texts* do.

    Raises InvalidParameter for unknown ones, twins, and values that are missing or wrong.
    """
    texts, switches = tuple(texts), tuple(switches)
    found: dict[str, str] = {}
    for flag in given:
        name, equals, value = flag[2:].partition("=")
        if name not in texts and name not in switches:
            raise InvalidParameter(f"unknown flag: --{name}{meant(name, (*texts, *switches))}")
        if name in found and name not in _MANY:
            raise InvalidParameter(f"duplicate flag specified: --{name}")
        if name in switches:
            value = value.lower() if equals else "true"
            if value not in ("true", "false"):
                raise InvalidParameter(f"expecting boolean value for flag --{name}, not: {value}")
        elif not equals:
            raise InvalidParameter(f"missing a value on flag: --{name}")
        found[name] = value
    return found


_MANY = frozenset(("exclude", "mount", "device"))
"""Flags that may come several times; only BuildKit heeds them."""


def meant(word: str, options: Iterable[str]) -> str:
    """Return " (did you mean ...?)" for a word that is nearly one of *options*, else nothing."""
    best, distance = "", _FAR
    for option in options:
        if (edits := _edits(word.lower(), option.lower())) < distance:
            best, distance = option.lower(), edits
    if not best or not distance:
        return ""
    return f" (did you mean {best.upper() if word.isupper() else best}?)"


def _edits(one: str, other: str) -> int:
    """Return the Levenshtein distance of two words, at least *_FAR* for long ones."""
    if max(len(one), len(other)) > _LONGEST:
        return _FAR
    row = list(range(len(other) + 1))
    for n, left in enumerate(one, 1):
        before, row[0] = row[0], n
        for m, right in enumerate(other, 1):
            before, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, before + (left != right))
    return row[-1]
