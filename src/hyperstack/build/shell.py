"""Words of instructions: splitting, quotes, ``$VARIABLES`` (Dockerfile reference, "Environment
replacement").

    $NAME  ${NAME}  ${NAME:-word}  ${NAME-word}  ${NAME:+word}  ${NAME+word}  ${NAME:?word}
    ${NAME#pattern}  ${NAME##pattern}  ${NAME%pattern}  ${NAME%%pattern}
    ${NAME/pattern/word}  ${NAME//pattern/word}

The escape character is the file's own.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from hyperstack.build.patterns import ShellPattern
from hyperstack.errors import InvalidParameter

MAX_EXPANDED = 1 << 20
"""Characters that one word may become."""
MAX_DEPTH = 32
_SPECIAL = "@*#?-$!0"


def split(text: str, escape: str) -> list[str]:
    """Split at blanks outside of quotes; quotes and escapes stay for ``expand``."""
    words: list[str] = []
    word: list[str] = []
    quote, started, position = "", False, 0
    while position < len(text):
        character = text[position]
        position += 1
        if not quote and character.isspace():
            if started:
                words.append("".join(word))
            word, started = [], False
            continue
        started = True
        if character == escape and quote != "'":
            if position == len(text):
                break  # an escape at the very end means nothing
            character += text[position]
            position += 1
        elif character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        word.append(character)
    return [*words, "".join(word)] if started and word else words


def unquoted(word: str) -> str:
    """Return a word without its quotes; variables stay. Raises InvalidParameter."""
    return "".join(shlex.split(word, posix=True)) if set(word) & set("\"'\\") else word


def go_quote(text: str) -> str:
    """Return *text* as Go's ``%q`` writes it (strconv.Quote)."""
    made = ['"']
    for character in text:
        code = ord(character)
        if character in '"\\':
            made.append("\\" + character)
        elif character in _NAMED:
            made.append(_NAMED[character])
        elif code < 0x20 or code == 0x7F:
            made.append(f"\\x{code:02x}")
        elif not character.isprintable():
            made.append(f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}")
        else:
            made.append(character)
    return "".join(made) + '"'


_NAMED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Replace variables and take quotes away. Raises InvalidParameter, one sentence."""
    return _Expansion(word, variables, escape).whole()


def expand_words(word: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """The same, and split what comes of a variable's value at its blanks."""
    expansion = _Expansion(word, variables, escape)
    expansion.whole()
    return expansion.words()


class _Expansion:
    """A scanner over one word."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._at = 0
        self._depth = 0
        self._size = 0
        self._parts: list[tuple[str, bool]] = []
        """What the outermost level became, and whether blanks in it divide words."""

    def whole(self) -> str:
        """Expand all of it."""
        self._parts = self._level("")
        return "".join(text for text, _ in self._parts)

    def words(self) -> list[str]:
        """Return what ``whole`` made as words."""
        words: list[str] = []
        word = ""
        for text, divides in self._parts:
            for character in text:
                if divides and character.isspace():
                    if word:
                        words.append(word)
                    word = ""
                else:
                    word += character
        return [*words, word] if word else words

    def _level(self, end: str, *, raw: bool = False) -> list[tuple[str, bool]]:
        """Expand up to *end*, which is passed over, or to the end of the text.

        *raw*: the escape character stays, for a pattern to read.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong("nested too deep")
        parts: list[tuple[str, bool]] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == end:
                self._depth -= 1
                return parts
            part = self._next(character)
            parts.append(
                (character + part[0], False) if raw and character == self._escape else part
            )
        if end:
            raise self._wrong(f"syntax error: missing '{end}'{' in ${' if end == '/' else ''}")
        return parts

    def _next(self, character: str) -> tuple[str, bool]:
        if character == "'":
            return self._single(), False
        if character == '"':
            return self._double(), False
        if character == "$":
            return self._bounded(self._variable()), True
        if character == self._escape:
            character = self._text[self._at : self._at + 1]
            self._at += 1
            return character, False
        return character, True

    def _bounded(self, text: str) -> str:
        self._size += len(text)
        if self._size > MAX_EXPANDED:
            raise self._wrong("it becomes too long")
        return text

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise self._wrong("unexpected end of statement while looking for matching single-quote")
        inner, self._at = self._text[self._at : end], end + 1
        return inner

    def _double(self) -> str:
        made: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == '"':
                return "".join(made)
            if character == "$":
                character = self._bounded(self._variable())
            elif character == self._escape:
                following = self._text[self._at : self._at + 1]
                if not following:
                    break
                if following in ('"', "$", self._escape):
                    character = following
                    self._at += 1
            made.append(character)
        raise self._wrong("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._text[self._at : self._at + 1] != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._at += 1
        following = self._text[self._at : self._at + 1]
        if not following:
            raise self._wrong("syntax error: missing '}'")
        if following in "{}:":
            raise self._wrong("syntax error: bad substitution")
        return self._braced(self._name())

    def _name(self) -> str:
        start = self._at
        first = self._text[start : start + 1]
        if first.isdigit():
            self._while(str.isdigit)
        elif first and first in _SPECIAL:
            self._at += 1
        else:
            self._while(lambda c: c.isalnum() or c == "_")
        return self._text[start : self._at]

    def _while(self, test: object) -> None:
        assert callable(test)
        while self._at < len(self._text) and test(self._text[self._at]):
            self._at += 1

    def _braced(self, name: str) -> str:
        value = self._variables.get(name)
        modifier = self._take()
        if modifier == "}":
            return value or ""
        if modifier == "/":
            return self._replaced(value or "")
        if modifier in ("#", "%"):
            return self._trimmed(value or "", modifier)
        colon = modifier == ":"
        if colon:
            modifier = self._take()
            if modifier in ("#", "%"):
                raise self._unsupported(":" + modifier)
        elif modifier not in ("-", "+", "?"):
            raise self._unsupported(modifier or "\ufffd")
        word = self._word("}")
        if modifier not in ("-", "+", "?"):
            raise self._unsupported(":" + modifier)
        there = bool(value) if colon else value is not None
        if modifier == "+":
            return word if there else ""
        if there or modifier == "-":
            return (value or "") if there else word
        state = "empty" if value is not None else "unset"
        raise self._wrong(f"{name}: {word or f'is not allowed to be {state}'}")

    def _take(self) -> str:
        """Return the next character, nothing at the end."""
        self._at += 1
        return self._text[self._at - 1 : self._at]

    def _word(self, end: str, *, raw: bool = False) -> str:
        return "".join(text for text, _ in self._level(end, raw=raw))

    def _trimmed(self, value: str, modifier: str) -> str:
        """``${name#pattern}`` and its like."""
        word = self._word("}", raw=True)
        longest = word.startswith(modifier)
        pattern = self._pattern(word[longest:])
        if modifier == "#":
            return pattern.without_prefix(value, longest=longest)
        return pattern.without_suffix(value, longest=longest)

    def _replaced(self, value: str) -> str:
        """``${name/pattern/word}`` and with two slashes."""
        every = self._text.startswith("/", self._at)
        self._at += every
        pattern = self._pattern(self._word("/", raw=True))
        return pattern.replaced(value, self._word("}", raw=True), every=every)

    def _pattern(self, text: str) -> ShellPattern:
        try:
            return ShellPattern(text)
        except InvalidParameter as error:
            raise self._wrong(error.message) from None

    def _unsupported(self, modifier: str) -> InvalidParameter:
        return self._wrong(f"unsupported modifier ({modifier}) in substitution")

    def _wrong(self, what: str) -> InvalidParameter:
        return InvalidParameter(f"failed to process {go_quote(self._text[:200])}: {what}")


def json_words(text: str) -> list[str] | None:
    """Return the strings of the exec form, ``["a", "b"]``, or None if *text* is not that.

    Raises InvalidParameter for a list of anything else than strings.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(word, str) for word in value):
        raise InvalidParameter(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    return value
