"""Query strings as Docker's handlers read them (moby, ``api/server/httputils/form.go``)."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from hyperstack.build.shell import go_quote
from hyperstack.errors import InvalidParameter

MOST_FIELDS = 1000
_FALSE = frozenset({"", "0", "no", "false", "none"})
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")


def _pairs(text: str) -> list[tuple[str, str]]:
    """Take a query apart. Raises InvalidParameter in the words of Go's ``url.ParseQuery``."""
    for field in text.split("&", MOST_FIELDS):
        if ";" in field:
            raise InvalidParameter("invalid semicolon separator in query")
        for part in field.split("=", 1):
            if bad := _BAD_ESCAPE.search(part):
                raise InvalidParameter(f"invalid URL escape {go_quote(bad[0])}")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidParameter("invalid query string: too many parameters") from None


class Query:
    """The parameters of one request. A missing one is the empty string, as in Go.

    A malformed query is an error of whoever asks for a parameter: raises InvalidParameter then.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._read: dict[str, list[str]] | None = None

    @property
    def _values(self) -> dict[str, list[str]]:
        if self._read is None:
            found: dict[str, list[str]] = {}
            for key, value in _pairs(self._text) if self._text else ():
                found.setdefault(key, []).append(value)
            self._read = found
        return self._read

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: str = "") -> str:
        """Return the first value of *key*."""
        return self._values.get(key, [default])[0]

    def all(self, key: str) -> list[str]:
        """Return every value of *key*."""
        return self._values.get(key, [])

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a boolean: everything but empty, 0, no, false and none is true."""
        if key not in self._values:
            return default
        return self.text(key).strip().lower() not in _FALSE

    def integer(self, key: str, default: int = 0) -> int:
        """Return a whole number. Raises InvalidParameter in Go's words."""
        value = self.text(key)
        if not value:
            return default
        digits = value[1:] if value[0] in "+-" else value
        if not (digits.isascii() and digits.isdigit()):
            raise InvalidParameter(f"strconv.Atoi: parsing {go_quote(value)}: invalid syntax")
        if len(digits) > 18:
            raise InvalidParameter(f"strconv.Atoi: parsing {go_quote(value)}: value out of range")
        return int(value)

    def optional_integer(self, key: str) -> int | None:
        """Return a whole number, or None if *key* is missing or empty."""
        return self.integer(key) if self.text(key) else None
