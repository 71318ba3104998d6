"""A Dockerfile's text as lines: directives, comments, continuations, then keyword, flags and rest.

Dockerfile reference, "Format", "Parser directives" and "Here-documents", as the classic builder
reads them: the lines of here documents are passed over, since only BuildKit makes files of them.
Meaning comes in ``instructions.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hyperstack.build import shell
from hyperstack.errors import InvalidParameter

MAX_TEXT = 2 << 20
"""Bytes of a Dockerfile."""
MAX_LINE = 65_535
MAX_LINES = 10_000
"""Instructions of one Dockerfile."""
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_QUOTES = "\"'"
_HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)\Z")
_WITH_HEREDOCS = ("add", "copy", "run")
_DIRECTIVES = ("check", "escape", "syntax")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One instruction as written. ``number`` is the first of its lines, counted from 1."""

    keyword: str
    """Lower case."""
    flags: tuple[str, ...]
    """``--name=value`` as they stand in front of the rest."""
    rest: str
    original: str
    """All of it, continuations joined."""
    number: int = 1
    heredocs: bool = False
    """Here documents followed."""


@dataclass(frozen=True, kw_only=True)
class Heredoc:
    """A word like ``<<EOF``. *chomp*: ``<<-EOF``, whose end may be behind tabs."""

    name: str
    chomp: bool


@dataclass(frozen=True, kw_only=True)
class Text:
    """A Dockerfile in lines. ``escape`` is the escape character that it asked for."""

    lines: tuple[Line, ...]
    escape: str
    warnings: tuple[str, ...]


def read(text: str) -> Text:
    """Split a Dockerfile into instructions. Raises InvalidParameter, one sentence."""
    reader = _Reader(text)
    lines = reader.run()
    if not lines:
        raise InvalidParameter("file with no instructions")
    return Text(lines=tuple(lines), escape=reader.escape, warnings=tuple(reader.warnings))


class _Reader:
    """Goes through the physical lines once."""

    def __init__(self, text: str) -> None:
        self._rows = text.removeprefix("\ufeff").split("\n")
        if self._rows[-1] == "":
            self._rows.pop()
        self._at = 0
        self._directives: set[str] | None = set()
        self.escape = "\\"
        self._continues = _continuation("\\")
        self.warnings: list[str] = []

    def run(self) -> list[Line]:
        found: list[Line] = []
        while self._at < len(self._rows):
            number = self._at + 1
            row = self._next().lstrip()
            self._directive(row)
            row = "" if row.startswith("#") else row
            line, goes_on = self._cut(row)
            if not line and not goes_on:
                continue
            if goes_on:
                line = self._join(line)
            found.append(self._with_heredocs(split_line(line, number)))
            if len(found) > MAX_LINES:
                raise InvalidParameter(f"more than {MAX_LINES} instructions in one Dockerfile")
        if self.warnings:
            self.warnings.append(
                "[WARNING]: Empty continuation lines will become errors in a future release."
            )
        return found

    def _with_heredocs(self, line: Line) -> Line:
        """Pass over the here documents of an instruction that may have some."""
        asked = heredocs(line)
        for one in asked:
            end = None
            while self._at < len(self._rows) and end != one.name:
                row = self._next()
                end = row.lstrip("\t") if one.chomp else row
            if end != one.name:
                raise InvalidParameter("unterminated heredoc")
        return replace(line, heredocs=bool(asked))

    def _next(self) -> str:
        row = self._rows[self._at].removesuffix("\r")
        self._at += 1
        if len(row) > MAX_LINE:
            raise InvalidParameter(f"dockerfile line greater than max allowed size of {MAX_LINE}")
        return row

    def _join(self, line: str) -> str:
        """Add the lines that go on from *line*; comments among them are left out."""
        goes_on, empty = True, False
        parts = [line]
        while goes_on and self._at < len(self._rows):
            row = self._next()
            if row.lstrip().startswith("#"):
                continue
            if not row.strip():
                empty = True
                continue
            part, goes_on = self._cut(row)
            parts.append(part)
        joined = "".join(parts)
        if empty:
            self.warnings.append(f"[WARNING]: Empty continuation line found in: {joined}")
        return joined

    def _cut(self, row: str) -> tuple[str, bool]:
        """Take the escape character off a line's end; tell whether there was one."""
        if (match := self._continues.search(row)) is not None:
            return row[: match.start()], True
        return row, False

    def _directive(self, row: str) -> None:
        """Heed ``# escape=`` in front of everything else. Raises InvalidParameter."""
        if self._directives is None:
            return
        match = _DIRECTIVE.match(row)
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            self._directives = None
            return
        if name in self._directives:
            raise InvalidParameter(f"only one {name} parser directive can be used")
        self._directives.add(name)
        if name == "escape":
            if match[2] not in ("`", "\\"):
                raise InvalidParameter(f"invalid escape token '{match[2]}' does not match ` or \\")
            self.escape = match[2]
            self._continues = _continuation(match[2])


def _continuation(escape: str) -> re.Pattern[str]:
    return re.compile(re.escape(escape) + r"[ \t]*\Z")


def split_line(line: str, number: int = 1) -> Line:
    """Split one instruction into keyword, flags and rest."""
    keyword, *more = _BLANKS.split(line.strip(), maxsplit=1)
    flags: list[str] = []
    rest = _flags(more[0], flags) if more else ""
    return Line(
        keyword=keyword.lower(),
        flags=tuple(flags),
        rest=rest.strip(),
        original=line,
        number=number,
    )


def heredoc(word: str) -> Heredoc | None:
    """Read a word that begins a here document, None if it does not. Raises InvalidParameter."""
    match = _HEREDOC.match(word)
    names = shell.split(match[2], "\\") if match else []
    if match is None or len(names) != 1:
        return None
    return Heredoc(name=shell.unquoted(names[0]), chomp=bool(match[1]))


def heredocs(line: Line) -> list[Heredoc]:
    """Return the here documents that an instruction begins. Raises InvalidParameter."""
    if "<<" not in line.rest:
        return []
    inner = split_line(line.rest) if line.keyword == "onbuild" else line
    if inner.keyword not in _WITH_HEREDOCS or shell.json_words(inner.rest) is not None:
        return []
    words = shell.split(inner.rest, "\\")
    return [found for word in words if (found := heredoc(word)) is not None]


def _flags(text: str, flags: list[str]) -> str:
    """Move leading words that begin with two dashes into *flags*; return what follows."""
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if not text.startswith("--", position):
            return text[position:]
        word, position = _flag_word(text, position)
        if word == "--":
            return text[position:]
        flags.append(word)


def _flag_word(text: str, position: int) -> tuple[str, int]:
    """Read one word, taking quotes and backslashes away; return it and where it ends."""
    word: list[str] = []
    quote = ""
    while position < len(text):
        character = text[position]
        if not quote and character.isspace():
            break
        position += 1
        if character == quote:
            quote = ""
        elif not quote and character in _QUOTES:
            quote = character
        elif character == "\\":
            word.append(text[position : position + 1])
            position += 1
        else:
            word.append(character)
    return "".join(word), position
