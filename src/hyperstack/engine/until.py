"""The engine's name for ``hyperstack.until``, which images need as well."""

from hyperstack.until import parse_duration, parse_time, parse_unix, parse_until

__all__ = ["parse_duration", "parse_time", "parse_unix", "parse_until"]
