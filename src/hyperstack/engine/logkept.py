"""How the files of a log driver are kept: sizes, counts, whether old ones are compressed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.model import LogConfig

CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?\Z", re.IGNORECASE)
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
UNASKED = 512 << 20
"""Bytes of each of two files of a log that nobody has bounded: a guest may not fill the host."""


def parse_size(text: str) -> int:
    """Return bytes of a size like ``10m``. Raises InvalidParameter."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def flag(options: Mapping[str, str], key: str, words: str, default: bool = False) -> bool:
    """Return what an option says, as Go reads it. Raises InvalidParameter with *words*."""
    text = options.get(key, "")
    if not text:
        return default
    if text not in _TRUE + _FALSE:
        raise InvalidParameter(words.format(text))
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
    size = parse_size(options["max-size"]) if "max-size" in options else 0
    if not size and "max-size" in options:
        raise InvalidParameter("max-size must be a positive number")
    files = _integer(options.get("max-file", "1"))
    if files < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    compress = _boolean(options.get("compress", "false"))
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
        ("max-size", parse_size, "20m"),
        ("max-file", _integer, "5"),
    ):
        text = options.get(key, default)
        try:
            found.append(read(text))
        except InvalidParameter as error:
            words = f"invalid value for {key}: {text}: {error.message}"
            raise InvalidParameter(words) from error
    try:
        compress = _boolean(options.get("compress", "true"))
    except InvalidParameter as error:
        words = f"error reading compress log option: {error.message}"
        raise InvalidParameter(words) from error
    size, files = found
    if compress and files <= 1:
        raise InvalidParameter("compression cannot be enabled when max file count is 1")
    return size, max(1, files), compress


def _cache_files(options: Mapping[str, str]) -> _Kept:
    """Return how a cache is kept; as with Docker, what makes no sense is what was not said."""
    own = {key.removeprefix("cache-"): value for key, value in options.items() if key in CACHE}
    with contextlib.suppress(InvalidParameter):
        return _local_files(own)
    return _local_files({})


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax') from None


def _boolean(text: str) -> bool:
    return flag({"": text}, "", f'strconv.ParseBool: parsing "{text}": invalid syntax')
