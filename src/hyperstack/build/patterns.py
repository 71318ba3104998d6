"""Patterns of the shell in ``${name#pattern}``, ``%`` and ``/``: ``*``, ``?``, backslashes.

Matching takes time in proportion to pattern times text, which is bounded: both are a client's.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperstack.errors import InvalidParameter

MAX_WORK = 1 << 20
"""Characters of the pattern times those of the text."""
_STAR, _ONE = object(), object()
Token = object
"""A character, or one of the two above."""


class ShellPattern:
    """One pattern. Raises InvalidParameter for a backslash in front of a common character."""

    def __init__(self, pattern: str) -> None:
        self._tokens = list(_tokens(pattern))

    def without_prefix(self, text: str, *, longest: bool) -> str:
        """Return *text* without the shortest or longest start that fits."""
        _check(self._tokens, text)
        ends = list(_ends(self._tokens, text))
        return text[ends[-1 if longest else 0] :] if ends else text

    def without_suffix(self, text: str, *, longest: bool) -> str:
        """Return *text* without the shortest or longest end that fits."""
        _check(self._tokens, text)
        ends = list(_ends(self._tokens[::-1], text[::-1]))
        return text[: len(text) - ends[-1 if longest else 0]] if ends else text

    def replaced(self, text: str, new: str, *, every: bool) -> str:
        """Return *text* with the first match, or all, replaced; each is as long as it can be."""
        _check(self._tokens, text)
        made: list[str] = []
        while (start := self._start(text)) is not None:
            end = start + list(_ends(self._tokens, text[start:]))[-1]
            made += [text[:start], new]
            if end == start:  # it fits nothing at all: go on behind the next character
                made.append(text[end : end + 1])
                end += 1
            text = text[end:]
            if not every or not text:
                break
        return "".join((*made, text))

    def _start(self, text: str) -> int | None:
        """Return where the first match begins: what is carried along is where each one began."""
        states: dict[int, int] = {}
        best: int | None = None
        for at in range(len(text) + 1):
            states.setdefault(0, at)
            states = _closed(self._tokens, states)
            began = states.get(len(self._tokens))
            if began is not None and (best is None or began < best):
                best = began
            if best is not None and all(other >= best for other in states.values()):
                return best
            if at < len(text):
                states = _step(self._tokens, states, text[at])
        return best


def _check(tokens: list[Token], text: str) -> None:
    if len(tokens) * len(text) > MAX_WORK:
        raise InvalidParameter("a pattern or what it is matched with is too long")


def _tokens(pattern: str) -> Iterator[Token]:
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            yield _STAR
        elif character == "?":
            yield _ONE
        elif character == "\\":
            following = pattern[position : position + 1]
            if following in ("}", "/"):
                continue  # the backslash was for the braces around
            if following not in ("*", "?", "\\"):
                raise InvalidParameter(f"invalid escape '\\{following}'")
            yield following
            position += 1
        else:
            yield character


def _ends(tokens: list[Token], text: str) -> Iterator[int]:
    """Yield where matches from the start of *text* may end, the shortest first."""
    states = _closed(tokens, {0: 0})
    for at in range(len(text) + 1):
        if len(tokens) in states:
            yield at
        if at == len(text) or not states:
            return
        states = _closed(tokens, _step(tokens, states, text[at]))


def _step(tokens: list[Token], states: dict[int, int], character: str) -> dict[int, int]:
    """Take one character; the earliest beginning of each state is kept."""
    found: dict[int, int] = {}
    for state, began in states.items():
        if state == len(tokens):
            continue
        token = tokens[state]
        if token is _STAR:
            to = state
        elif token is _ONE or token == character:
            to = state + 1
        else:
            continue
        found[to] = min(began, found.get(to, began))
    return found


def _closed(tokens: list[Token], states: dict[int, int]) -> dict[int, int]:
    """Add what a star reaches without a character."""
    found = dict(states)
    for state in sorted(states):
        began, at = states[state], state
        while at < len(tokens) and tokens[at] is _STAR:
            at += 1
            if found.get(at, began + 1) <= began:
                break
            found[at] = began
    return found
