"""Words of Dockerfile instructions: splitting, quoting and ``$VARIABLES`` (Dockerfile reference,
"Environment replacement").

    $NAME ${NAME} ${NAME:-word} ${NAME-word} ${NAME:+word} ${NAME+word} ${NAME:?word} ${NAME?word}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from hyperstack.errors import InvalidParameter

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#]")
MAX_EXPANDED = 1 << 20
"""Characters that one word may become."""


def instructions(changes: list[str]) -> list[tuple[str, str]]:
    """Split Dockerfile text into instructions: keyword as written, and the rest of the line.

    Comments and empty lines are left out, a backslash at the end of a line goes on with the next.
    """
    found = []
    pending = ""
    for line in "\n".join(changes).splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        # Blanks at the start of a line belong to it only if it goes on with another.
        pending += line.rstrip() if pending else text
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        found.append(_instruction(pending))
        pending = ""
    return [*found, _instruction(pending)] if pending.strip() else found


def _instruction(line: str) -> tuple[str, str]:
    keyword, _, rest = re.sub(r"\s", " ", line.strip(), count=1).partition(" ")
    if len(parts := line.split(None, 1)) == 2:
        keyword, rest = parts
    return keyword, rest.strip()


def split(text: str) -> list[str]:
    """Split at blanks outside of quotes; quotes and backslashes stay for ``expand``."""
    words: list[str] = []
    word, quote, position = "", "", 0
    started = False
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\" and quote != "'":
            word += text[position - 1 : position + 1]
            position += 1
            started = True
        elif not quote and character.isspace():
            if started:
                words.append(word)
            word, started = "", False
        else:
            if character in "\"'":
                quote = "" if quote == character else quote or character
            word += character
            started = True
    return [*words, word] if started else words


def json_words(text: str) -> list[str] | None:
    """Return the strings of the exec form, ``["a", "b"]``, or None if *text* is not that."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return None
    return value


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace variables and take quotes away. Raises InvalidParameter, one sentence."""
    made = _Expansion(text, variables).run("")
    if len(made) > MAX_EXPANDED:
        raise InvalidParameter("failed to process word: it becomes too long")
    return made


class _Expansion:
    """A scanner over one word."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._variables = variables
        self._at = 0
        self._depth = 0

    def run(self, end: str) -> str:
        """Expand up to *end* (which is passed over), or to the end of the word."""
        self._depth += 1
        if self._depth > 32:
            raise InvalidParameter("failed to process word: nested too deep")
        made: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == end:
                self._at += 1
                break
            made.append(self._next(character))
        else:
            if end:
                raise self._wrong("syntax error: missing '}'")
        self._depth -= 1
        return "".join(made)

    def _next(self, character: str) -> str:
        self._at += 1
        if character == "'":
            return self._single()
        if character == '"':
            return self._double()
        if character == "$":
            return self._variable()
        if character == "\\" and self._at < len(self._text):
            self._at += 1
            return self._text[self._at - 1]
        return character

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
                made.append(self._variable())
            elif character == "\\" and self._text[self._at : self._at + 1] in ('"', "$", "\\"):
                made.append(self._text[self._at : self._at + 1])
                self._at += 1
            else:
                made.append(character)
        raise self._wrong("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._text[self._at : self._at + 1] != "{":
            match = _NAME.match(self._text, self._at)
            if match is None:
                return "$"
            self._at = match.end()
            return self._variables.get(match[0], "")
        match = _NAME.match(self._text, self._at + 1)
        if match is None:
            raise self._wrong("syntax error: bad substitution")
        self._at = match.end()
        return self._braced(match[0])

    def _braced(self, name: str) -> str:
        value = self._variables.get(name)
        colon = self._text[self._at : self._at + 1] == ":"
        self._at += colon
        operator = self._text[self._at : self._at + 1]
        self._at += 1
        if operator == "}" and not colon:
            return value or ""
        if not operator:
            raise self._wrong("syntax error: missing '}'")
        if operator not in ("-", "+", "?"):
            raise self._wrong(f"unsupported modifier ({operator}) in substitution")
        word = self.run("}")
        there = bool(value) if colon else value is not None
        if operator == "+":
            return word if there else ""
        if there or operator == "-":
            return (value or "") if there else word
        raise self._wrong(f"{name}: {word or 'not allowed to be empty'}")

    def _wrong(self, what: str) -> InvalidParameter:
        return InvalidParameter(f"failed to process {json.dumps(self._text[:200])}: {what}")
