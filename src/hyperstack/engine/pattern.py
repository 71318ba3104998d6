"""Regular expressions of filters (``name=^web``), found in time that grows with pattern and text.

Docker's are Go's (RE2), which never go back in the text; Python's may take for ever for one that a
client chose. So an expression is read into states here, and all that are possible are followed at
once (R. Cox, "Regular Expression Matching Can Be Simple And Fast"). What stands for one character
is left to ``re``, which can't go astray there.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

MOST_STATES = 4000
MOST_REPEATS = 1000
"""As RE2."""
DEEPEST = 50
"""Groups within groups."""
_PLAIN = re.compile(r"\^?[A-Za-z0-9_./@:-]*\$?\Z")
_COUNT = re.compile(r"\{(\d{1,4})(,?)(\d{0,4})\}")
_GROUP = re.compile(r"\((?:\?P?<\w+>|\?([is]*):|(?!\?))")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z",
    "space": r"\s", "word": r"\w", "xdigit": "0-9A-Fa-f", "punct": r"!-/:-@\[-`{-~",
}  # fmt: skip


class PatternError(ValueError):
    """It is no expression, or one that is too large."""


@dataclass
class _State:
    """A step: over a character that *char* fits, or over none if *where* allows it."""

    out: list[int]
    char: Callable[[str], object] | None = None
    where: str = ""
    """``^``, ``$``, ``b`` or ``B``: places; empty for everywhere."""


class Pattern:
    """A compiled expression. Raises PatternError for what is none."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._states: list[_State] = []
        start, ends = self._alternatives(0, 0)
        if self._at < len(text):
            raise PatternError("unexpected )")
        self._accept = self._new(_State([]))
        self._join(ends, self._accept)
        self._start = start

    def found_in(self, text: str) -> bool:
        """Tell whether the expression fits anywhere in *text*."""
        now: set[int] = set()
        for place in range(len(text) + 1):
            self._follow(now, self._start, text, place)
            if self._accept in now:
                return True
            if place == len(text):
                return False
            following: set[int] = set()
            for number in now:
                state = self._states[number]
                if state.char is not None and state.char(text[place]):
                    for out in state.out:
                        self._follow(following, out, text, place + 1)
            now = following
        return False

    def _follow(self, into: set[int], first: int, text: str, place: int) -> None:
        left = [first]
        while left:
            number = left.pop()
            if number in into:
                continue
            state = self._states[number]
            into.add(number)
            if state.char is None and _is_there(state.where, text, place):
                left += state.out

    # -- reading

    def _new(self, state: _State) -> int:
        if len(self._states) >= MOST_STATES:
            raise PatternError("expression too large")
        self._states.append(state)
        return len(self._states) - 1

    def _join(self, ends: list[int], target: int) -> None:
        for end in ends:
            self._states[end].out.append(target)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _alternatives(self, depth: int, flags: int) -> tuple[int, list[int]]:
        if depth > DEEPEST:
            raise PatternError("expression nests too deeply")
        start = self._new(_State([]))
        ends: list[int] = []
        while True:
            first, last = self._sequence(depth, flags)
            self._states[start].out.append(first)
            ends += last
            if self._peek() != "|":
                return start, ends
            self._at += 1

    def _sequence(self, depth: int, flags: int) -> tuple[int, list[int]]:
        first = self._new(_State([]))
        ends = [first]
        while self._peek() not in ("", "|", ")"):
            if (match := re.compile(r"\(\?([is]+)\)").match(self._text, self._at)) is not None:
                flags |= _flags(match[1])
                self._at = match.end()
                continue
            start, last = self._repeated(depth, flags)
            self._join(ends, start)
            ends = last
        return first, ends

    def _repeated(self, depth: int, flags: int) -> tuple[int, list[int]]:
        place = self._at
        start, ends = self._atom(depth, flags)
        after = self._at
        span = self._span()
        if span is None:
            return start, ends
        low, high = span
        beyond = self._at

        def again() -> tuple[int, list[int]]:
            self._at = place
            made = self._atom(depth, flags)
            assert self._at == after
            return made

        first = self._new(_State([]))
        parts = [(start, ends)]
        wanted = max(low, 1) if high is None else high
        for _ in range(wanted - 1):
            parts.append(again())
        self._at = beyond
        return first, self._chain(first, parts, low, endless=high is None, none=high == 0)

    def _chain(
        self, first: int, parts: list[tuple[int, list[int]]], low: int, *, endless: bool, none: bool
    ) -> list[int]:
        """Put copies of an atom one after the other; past *low* of them one may leave."""
        if none:
            return [first]
        out: list[int] = []
        at = [first]
        for number, (start, ends) in enumerate(parts):
            if number >= low:
                out += at
            self._join(at, start)
            at = ends
        if endless:
            self._join(at, parts[-1][0])
        return [*out, *at]

    def _span(self) -> tuple[int, int | None] | None:
        """Read a quantifier, if one is there; a lazy one finds the same."""
        sign = self._peek()
        spans: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if sign and sign in spans:
            self._at += 1
            span = spans[sign]
        elif (match := _COUNT.match(self._text, self._at)) is not None:
            self._at = match.end()
            low = int(match[1])
            span = (low, int(match[3]) if match[3] else (None if match[2] else low))
            if max(low, span[1] or 0) > MOST_REPEATS or (span[1] is not None and span[1] < low):
                raise PatternError("invalid repeat count")
        else:
            return None
        if self._peek() == "?":
            self._at += 1
        elif self._peek() in ("*", "+"):
            raise PatternError("invalid nested repetition operator")
        return span

    def _atom(self, depth: int, flags: int) -> tuple[int, list[int]]:
        text, place = self._text, self._at
        char = text[place]
        if char == "(":
            match = _GROUP.match(text, place)
            if match is None:
                raise PatternError("invalid or unsupported Perl syntax")
            self._at = match.end()
            made = self._alternatives(depth + 1, flags | _flags(match[1] or ""))
            if self._peek() != ")":
                raise PatternError("missing closing )")
            self._at += 1
            return made
        if char in "^$":
            return self._place(char, 1)
        if char in "*+?":
            raise PatternError("missing argument to repetition operator")
        if char == "\\" and text[place + 1 : place + 2] in tuple("AzbB"):
            letter = text[place + 1]
            return self._place({"A": "^", "z": "$"}.get(letter, letter), 2)
        return self._one(flags)

    def _place(self, where: str, length: int) -> tuple[int, list[int]]:
        self._at += length
        number = self._new(_State([], where=where))
        return number, [number]

    def _one(self, flags: int) -> tuple[int, list[int]]:
        """Read what stands for one character."""
        text, place = self._text, self._at
        if text[place] == "[":
            match = _CLASS.match(text, place)
            if match is None:
                raise PatternError("missing closing ]")
            word = re.sub(r"\[:(\w+):\]", lambda m: _POSIX.get(m[1], m[0]), match[0])
            self._at = match.end()
        elif text[place] == "\\":
            word = text[place : place + 2]
            if len(word) < 2 or (word[1].isalnum() and word[1] not in "dDsSwWnrtfv"):
                raise PatternError("invalid escape sequence")
            self._at += 2
        else:
            word = text[place] if text[place] == "." else re.escape(text[place])
            self._at += 1
        number = self._new(_State([], char=_single(word, flags)))
        return number, [number]


def _flags(letters: str) -> int:
    return (re.IGNORECASE if "i" in letters else 0) | (re.DOTALL if "s" in letters else 0)


@functools.lru_cache(maxsize=1024)
def _single(word: str, flags: int) -> Callable[[str], object]:
    try:
        with warnings.catch_warnings():
            # A bracket in brackets is one character to both, as long as Python only warns of it.
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(word, flags | re.ASCII).fullmatch
    except re.error as error:
        raise PatternError(str(error)) from error


def _is_there(where: str, text: str, place: int) -> bool:
    if where == "^":
        return place == 0
    if where == "$":
        return place == len(text)
    if where in ("b", "B"):
        edge = _in_word(text, place - 1) != _in_word(text, place)
        return edge == (where == "b")
    return True


def _in_word(text: str, place: int) -> bool:
    return 0 <= place < len(text) and (text[place] == "_" or text[place].isalnum())


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Pattern | None:
    try:
        return Pattern(pattern)
    except PatternError:
        return None


def found(pattern: str, text: str) -> bool | None:
    """Tell whether *pattern* fits anywhere in *text*; None if it is no expression."""
    if _PLAIN.match(pattern) is not None:
        return re.search(pattern.replace("$", r"\Z"), text) is not None
    compiled = _compiled(pattern)
    return None if compiled is None else compiled.found_in(text)
