"""How the files of a log driver are kept: sizes, counts, whether old ones are compressed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import LogConfig

CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\Z", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_UNITS = "bkmgtp"
_OVERFLOW = -(1 << 63)
"""What Go makes of a number that no int64 holds."""
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
LOCAL = 20 << 20
"""Bytes of a file of driver ``local``, unless said otherwise."""
UNASKED = 512 << 20
"""Bytes of each of two files of a log that nobody has bounded: a guest may not fill the host."""


def parse_size(text: str, base: int = 1024) -> int:
    """Return bytes of a size like ``10m`` as Docker's go-units reads it; k is *base*.

    Raises InvalidParameter in its words.
    """
    last = max(text.rfind(c) for c in "0123456789. ")
    if last < 0:
        raise InvalidParameter(f"invalid size: '{text}'")
    number, suffix = text[: last + 1].removesuffix(" "), text[last + 1 :].lower()
    if _NUMBER.match(number) is None:
        raise InvalidParameter(f'strconv.ParseFloat: parsing "{number}": invalid syntax')
    size = float(number)
    if size < 0:
        raise InvalidParameter(f"invalid size: '{text}'")
    unit = _UNITS.find(suffix[:1])
    if unit < 0 or suffix[1:] not in ("", "b", "ib") or (unit == 0 and len(suffix) > 1):
        raise InvalidParameter(f"invalid suffix: '{suffix}'")
    size *= base**unit
    return int(size) if size < 1 << 63 else _OVERFLOW


def _decimal(text: str) -> int:
    return parse_size(text, 1000)


def flag(options: Mapping[str, str], key: str, words: str, default: bool = False) -> bool:
    """Return what an option says, as Go reads it. Raises InvalidParameter, *words* and it."""
    text = options.get(key, "")
    if not text:
        return default
    if text not in _TRUE + _FALSE:
        raise InvalidParameter(words + text)
    return text in _TRUE


_Kept = tuple[int, int, bool]
"""Bytes of a file (0: no bound), how many files there are, whether old ones are compressed."""


def settle(config: LogConfig) -> _Kept:
    """Return how the files of a driver are kept. Raises HyperError in the words of its start."""
    driver = config.type or "json-file"
    if driver == "json-file":
        try:
            return _json_files(config.config)
        except InvalidParameter as error:
            raise InternalError(error.message) from error
    if driver == "local":
        return _local_files(config.config)
    return _cache_files(config.config)


def _json_files(options: Mapping[str, str]) -> _Kept:
    size = _decimal(options["max-size"]) if "max-size" in options else 0
    if size <= 0 and "max-size" in options:
        raise InvalidParameter("max-size must be a positive number")
    files = _integer(options.get("max-file", "1"))
    if files < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    compress = parse_boolean(options.get("compress", "false"))
    if compress and (files == 1 or not size):
        raise InvalidParameter(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    if not size:
        return UNASKED, 2, False
    return size, files, compress


def _local_files(options: Mapping[str, str]) -> _Kept:
    found: list[int] = []
    for key, read, default in (
        ("max-size", _decimal, str(LOCAL)),
        ("max-file", _integer, "5"),
    ):
        text = options.get(key, default)
        try:
            found.append(read(text))
        except InvalidParameter as error:
            words = f"invalid value for {key}: {text}: {error.message}"
            raise InvalidParameter(words) from error
    try:
        compress = parse_boolean(options.get("compress", "true"))
    except InvalidParameter as error:
        words = f"error reading compress log option: {error.message}"
        raise InvalidParameter(words) from error
    size, files = found
    if size < 0:
        raise InvalidParameter("max file size should be a positive number")
    if files < 0:
        raise InvalidParameter("max file count cannot be less than 0")
    if compress and files <= 1:
        raise InvalidParameter("compression cannot be enabled when max file count is 1")
    return size or LOCAL, max(1, files), compress


def _cache_files(options: Mapping[str, str]) -> _Kept:
    """Return how a cache is kept; as with Docker, what makes no sense is what was not said."""
    own = {key.removeprefix("cache-"): value for key, value in options.items() if key in CACHE}
    with contextlib.suppress(InvalidParameter):
        return _local_files(own)
    return _local_files({})


def _integer(text: str) -> int:
    if _INTEGER.match(text) is None:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": value out of range')
    return int(text)


def parse_boolean(text: str) -> bool:
    """Return what Go's ``strconv.ParseBool`` does. Raises InvalidParameter in its words."""
    if text not in _TRUE + _FALSE:
        raise InvalidParameter(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE
