"""The ``filters`` parameter in both of its spellings (moby, ``api/types/filters/parse.go``).

``{"label": {"a=b": true}}`` since API 1.22, ``{"label": ["a=b"]}`` before and from many SDKs.
"""

from __future__ import annotations

from collections.abc import Iterable

from hyperstack.api.docker import gojson
from hyperstack.errors import InvalidParameter

MOST_VALUES = 1000

Filters = dict[str, list[str]]


def parse(text: str) -> Filters:
    """Return each filter's values. Raises InvalidParameter."""
    if not text or text == "null":
        return {}
    try:
        raw = gojson.decode(text.encode())
    except InvalidParameter as error:
        raise InvalidParameter("invalid filter") from error
    if not isinstance(raw, dict):
        raise InvalidParameter("invalid filter")
    found = {key: _values(value) for key, value in raw.items()}
    if sum(len(values) for values in found.values()) > MOST_VALUES:
        raise InvalidParameter(f"invalid filter: more than {MOST_VALUES} values")
    return found


def _values(value: object) -> list[str]:
    if value is None:
        return []
    # As Go reads them: null is false, which says nothing, or an empty text.
    if isinstance(value, dict) and all(isinstance(on, bool | None) for on in value.values()):
        return list(value)
    if isinstance(value, list) and all(isinstance(item, str | None) for item in value):
        return list(dict.fromkeys(item or "" for item in value))
    raise InvalidParameter("invalid filter")


def check(filters: Filters, known: Iterable[str]) -> None:
    """Raise InvalidParameter in Docker's words for a filter that is not *known*."""
    accepted = set(known)
    for key in filters:
        if key not in accepted:
            raise InvalidParameter(f"invalid filter '{key}'")


def flag(filters: Filters, key: str, default: bool = False) -> bool:
    """Return a boolean filter (``dangling=true``). Raises InvalidParameter for anything else."""
    values = filters.get(key)
    if not values:
        return default
    verdicts = {value.lower() for value in values}
    if verdicts <= {"1", "true"}:
        return True
    if verdicts <= {"0", "false"}:
        return False
    raise InvalidParameter(f"invalid filter '{key}={values}'")
