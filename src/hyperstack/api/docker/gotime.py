"""Times, spans and sizes as Go and Docker print them."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time: something that has not happened."""

NS = 1_000_000_000
_cached = (0, "")


def rfc3339nano(time_ns: int) -> str:
    """Return a time (ns since the epoch) in UTC as ``time.RFC3339Nano``; 0 is Go's zero time."""
    return moment(time_ns) if time_ns else ZERO


def moment(time_ns: int) -> str:
    """Return a time in UTC as ``time.RFC3339Nano``, the epoch itself too."""
    seconds, rest = divmod(time_ns, NS)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{_seconds(seconds)}{fraction}Z"


def rfc3339fixed(time_ns: int) -> str:
    """Return a time with all nine digits, as ``docker logs -t`` prints it."""
    seconds, rest = divmod(time_ns, NS)
    return f"{_seconds(seconds)}.{rest:09d}Z"


def rfc3339(time_ns: int) -> str:
    """Return a time without its fraction, as volumes show it."""
    return f"{_seconds(time_ns // NS)}Z" if time_ns else ZERO


def _seconds(seconds: int) -> str:
    # Log lines come many to a second: the last second's text is kept.
    global _cached
    if _cached[0] != seconds:
        _cached = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return _cached[1]


def http_date(seconds: float) -> str:
    """Return a time for the ``Date`` header (RFC 9110, 5.6.7), whatever the locale says."""
    now = time.gmtime(seconds)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[now.tm_wday]
    month = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()[now.tm_mon - 1]
    clock = f"{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d}"
    return f"{day}, {now.tm_mday:02d} {month} {now.tm_year} {clock} GMT"


def human_duration(seconds: float) -> str:
    """Return a span as ``docker ps`` shows it: Less than a second, 5 minutes, About an hour ..."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for bound, unit, name in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 60, 168, "weeks"),
        (24 * 365 * 2, 720, "months"),
    ):
        if hours < bound:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600 / 24 / 365)} years"


def human_size(size: float) -> str:
    """Return bytes in decimal units with four significant digits, as Docker's progress bars do."""
    unit = 0
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    while size >= 1000 and unit < len(units) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{units[unit]}"
