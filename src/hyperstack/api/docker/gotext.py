"""JSON text as Go's ``encoding/json`` reads and writes it: values, and what is wrong with the rest.

The sentences are those of Go since 1.25 (``encoding/json/jsontext``), which dockerd passes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

from hyperstack.build.shell import go_quote
from hyperstack.errors import InvalidParameter

_SURROGATE = re.compile("[\ud800-\udfff]")
_LONE = re.compile(
    rb"((?<!\\)(?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|((?<!\\)(?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""Escapes of surrogates: a pair, or one alone, after any number of escaped backslashes."""


class Number(float):
    """A number with fraction or exponent, which remembers its digits for what is said of it."""

    def __new__(cls, text: str) -> Number:
        """Read a number as JSON writes it."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __str__(self) -> str:
        return self.text


_decode = msgspec.json.Decoder(float_hook=Number).decode
_encode = msgspec.json.Encoder().encode


def encode(value: Any) -> bytes:
    """Return *value* as one line of JSON (Docker turns Go's escaping of HTML off)."""
    try:
        return _encode(value) + b"\n"
    except UnicodeEncodeError:
        return _encode(_valid(value)) + b"\n"


def _valid(value: Any) -> Any:
    """Return *value* with U+FFFD for each byte that is no UTF-8 (file names), as Go writes it."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_valid(key): _valid(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_valid(item) for item in value]
    return value


def decode(data: bytes) -> Any:
    """Parse a whole request body. Raises InvalidParameter in Go's words."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # perhaps only characters that Go replaces
    try:
        return _decode(_repaired(data))
    except RecursionError:
        raise InvalidParameter(_syntax_error(data[:MOST_CHECKED])) from None
    except msgspec.DecodeError as error:
        if len(data) > MOST_CHECKED:
            raise InvalidParameter(f"invalid JSON: {error}") from error
        raise InvalidParameter(_syntax_error(data)) from None


def _repaired(data: bytes) -> bytes:
    """Return *data* with U+FFFD for what is no UTF-8 and for surrogates alone, as Go reads it."""
    text = data.decode("utf-8", "replace").encode()
    return _LONE.sub(lambda got: got[0] if got[2] else got[3] + b"\\ufffd", text)


MOST_CHECKED = 64 << 10
"""Bytes that are read once more to find Go's words: with more nobody is to keep others waiting."""
MOST_DEPTH = 300
"""Arrays and objects within each other, as far as the reader of this module goes."""
_BLANK = re.compile(r"[ \t\n\r]*")
_TEXT = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = re.compile(r"[0-9A-Fa-f]{4}")
_DIGITS = re.compile(r"[0-9]+")


class _End(Exception):
    """The text ended too early."""


def _syntax_error(data: bytes) -> str:
    """Say what is wrong with JSON that did not parse, as Go's decoder would."""
    text = data.decode("utf-8", "replace")
    if not text.strip(" \t\r\n"):
        return "invalid JSON: got EOF while reading request body"
    checker = _Checker(text)
    try:
        checker.value(0)
    except _End:
        return "invalid JSON: unexpected EOF"
    except InvalidParameter as error:
        return f"invalid JSON: {error.message}"
    if checker.peek():
        return "unexpected content after JSON"
    return "invalid JSON: invalid character in string literal or number"


class _Checker:
    """Reads JSON only to find out where it is wrong."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def peek(self) -> str:
        """Skip blanks; return the next character, empty at the end."""
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at
        return self._text[self._at : self._at + 1]

    def _char(self) -> str:
        if self._at >= len(self._text):
            raise _End
        return self._text[self._at]

    def _refuse(self, where: str) -> NoReturn:
        raise InvalidParameter(f"invalid character {_quoted(self._char())} {where}")

    def value(self, depth: int) -> None:
        """Pass over one value. Raises InvalidParameter or _End."""
        if depth > MOST_DEPTH:
            raise InvalidParameter("exceeded max depth")
        first = self.peek()
        if first == "{":
            self._object(depth)
        elif first == "[":
            self._array(depth)
        elif first == '"':
            self._string()
        elif first == "-" or (first.isascii() and first.isdigit()):
            self._number()
        elif first in ("t", "f", "n") and first:
            self._literal({"t": "true", "f": "false", "n": "null"}[first])
        else:
            self._refuse("looking for beginning of value")

    def _object(self, depth: int) -> None:
        self._at += 1
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                self._refuse("looking for beginning of object key string")
            self._string()
            if self.peek() != ":":
                self._refuse("after object key")
            self._at += 1
            self.value(depth + 1)
            if self._after("}", "after object key:value pair"):
                return

    def _array(self, depth: int) -> None:
        self._at += 1
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            self.value(depth + 1)
            if self._after("]", "after array element"):
                return

    def _after(self, end: str, where: str) -> bool:
        """Pass over a comma or the end of what it separates; tell whether it was the end."""
        found = self.peek()
        if found not in (",", end) or not found:
            self._refuse(where)
        self._at += 1
        return found == end

    def _string(self) -> None:
        self._at += 1
        while True:
            plain = _TEXT.match(self._text, self._at)
            self._at = plain.end() if plain else self._at
            char = self._char()
            if char == '"':
                self._at += 1
                return
            if char != "\\":
                self._refuse("in string")
            self._escape()

    def _escape(self) -> None:
        rest = self._text[self._at : self._at + 6]
        if len(rest) < 2:
            raise _End
        if rest[1] in '"\\/bfnrt':
            self._at += 2
        elif rest[1] == "u" and _HEX.fullmatch(rest[2:]):
            self._at += 6
        elif rest[1] == "u":
            raise InvalidParameter(f"invalid escape sequence `{rest}` in string")
        else:
            raise InvalidParameter(f"invalid escape sequence `{rest[:2]}` in string")

    def _number(self) -> None:
        if self._text[self._at] == "-":
            self._at += 1
        if self._char() == "0":
            self._at += 1
        else:
            self._digits()
        if self._text[self._at : self._at + 1] == ".":
            self._at += 1
            self._digits()
        if self._text[self._at : self._at + 1] in ("e", "E"):
            self._at += 1
            if self._char() in "+-":
                self._at += 1
            self._digits()

    def _digits(self) -> None:
        digits = _DIGITS.match(self._text, self._at)
        if digits is None:
            self._refuse("in numeric literal")
        self._at = digits.end()

    def _literal(self, word: str) -> None:
        for letter in word:
            if self._char() != letter:
                self._refuse(f"in literal {word} (expecting {letter!r})")
            self._at += 1


def _quoted(char: str) -> str:
    """Quote a character as Go does."""
    if char == "'":
        return "'\\''"
    return "'\"'" if char == '"' else f"'{go_quote(char)[1:-1]}'"
