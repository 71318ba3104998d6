"""Points in time as Docker's filters and options write them: Go durations, dates, Unix times."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hyperstack.errors import InternalError, InvalidParameter

_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+\Z")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIX = re.compile(r"(\d+)(?:\.(\d{1,9}))?\Z")
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_LONGEST = 64
"""Characters of a time or duration: beyond that its numbers have no meaning."""
_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def parse_duration(text: str) -> int | None:
    """Return a Go duration (``1h30m``) in ns, or None if it is none."""
    if len(text) > _LONGEST or not _DURATION.match(text):
        return None
    total = sum(int(float(n) * _NS[unit]) for n, unit in _PART.findall(text))
    return -total if text.startswith("-") else total


def parse_time(text: str, now_ns: int) -> int:
    """Return ns since the epoch of a Unix time, a date or a duration before *now_ns*.

    Raises InvalidParameter.
    """
    if len(text) > _LONGEST:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text[:_LONGEST]}"')
    if match := _UNIX.match(text):
        return int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0"))
    if (duration := parse_duration(text)) is not None:
        return now_ns - duration
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    fraction = re.search(r"\.(\d{1,9})", text)
    nanoseconds = int(fraction[1].ljust(9, "0")) if fraction else 0
    return int(moment.replace(microsecond=0).timestamp()) * 10**9 + nanoseconds


def parse_unix(text: str) -> int:
    """Return ns since the epoch of ``seconds[.nanoseconds]``, all that events and logs take.

    Clients turn dates and durations into this. Raises InternalError, as Docker answers 500 (moby,
    ``api/types/time/timestamp.go``).
    """
    whole, point, fraction = text.partition(".")
    seconds = _go_integer(whole)
    if not point:
        return seconds * 10**9
    nanoseconds = _go_integer(fraction)
    return seconds * 10**9 + int(nanoseconds * 10.0 ** (9 - len(fraction)))


def _go_integer(text: str) -> int:
    shown = text[:_LONGEST]
    if not _INTEGER.match(text):
        raise InternalError(f'strconv.ParseInt: parsing "{shown}": invalid syntax')
    if len(text) > _LONGEST or not -(1 << 63) <= int(text) < 1 << 63:
        raise InternalError(f'strconv.ParseInt: parsing "{shown}": value out of range')
    return int(text)


def parse_until(values: list[str], now_ns: int) -> int | None:
    """Return the time of an ``until`` filter, None if there is none. One value at most."""
    if not values:
        return None
    if len(values) > 1:
        raise InvalidParameter("more than one until filter specified")
    return parse_time(values[0], now_ns)
