"""Query strings as Docker's handlers read them (moby, ``api/server/httputils/form.go``)."""

from __future__ import annotations

from urllib.parse import parse_qsl

from hyperstack.errors import InvalidParameter

MOST_FIELDS = 1000
_FALSE = frozenset({"", "0", "no", "false", "none"})


class Query:
    """The parameters of one request. A missing one is the empty string, as in Go."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        if not text:
            return
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError:
            raise InvalidParameter("invalid query string: too many parameters") from None
        for key, value in pairs:
            self._values.setdefault(key, []).append(value)

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
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": invalid syntax')
        if len(digits) > 18:
            raise InvalidParameter(f'strconv.Atoi: parsing "{value}": value out of range')
        return int(value)

    def optional_integer(self, key: str) -> int | None:
        """Return a whole number, or None if *key* is missing or empty."""
        return self.integer(key) if self.text(key) else None
