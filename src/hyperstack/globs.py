"""Patterns over paths: Go's ``path.Match``, and with ``**`` what ``.dockerignore`` has.

Matching takes time in proportion to pattern times path, whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable

from hyperstack.errors import InvalidParameter

MAX_PATTERN = 4096
_ANY, _STAR, _ENTER, _FOLDERS, _REST = "any", "star", "enter", "folders", "rest"
Token = str | Callable[[str], bool]


class Glob:
    """One pattern. *double*: ``**`` stands for any number of directories."""

    def __init__(self, pattern: str, *, double: bool = False) -> None:
        if len(pattern) > MAX_PATTERN:
            raise InvalidParameter("pattern too long")
        self._tokens = _tokens(pattern, double)

    def matches(self, path: str) -> bool:
        """Tell whether the pattern fits all of *path*."""
        states = self._closed({0})
        for character in path:
            states = self._closed(self._step(states, character))
            if not states:
                return False
        return len(self._tokens) in states

    def _step(self, states: set[int], character: str) -> set[int]:
        found: set[int] = set()
        for at in states:
            token = self._tokens[at] if at < len(self._tokens) else _ENTER
            if callable(token):
                if token(character):
                    found.add(at + 1)
            elif token == _REST or (token == _STAR and character != "/"):
                found.add(at)
            elif token == _FOLDERS:
                found.add(at)
                if character == "/":
                    found.add(at + 1)
        return found

    def _closed(self, states: set[int]) -> set[int]:
        """Add what is reached without a character: behind stars, and around ``**/``."""
        todo, found = list(states), set(states)
        while todo:
            at = todo.pop()
            token = self._tokens[at] if at < len(self._tokens) else _FOLDERS
            more = {_STAR: (at + 1,), _REST: (at + 1,), _ENTER: (at + 1, at + 2)}.get(
                token if isinstance(token, str) else "", ()
            )
            fresh = set(more) - found
            found |= fresh
            todo += fresh
        return found


def _tokens(pattern: str, double: bool) -> list[Token]:
    """Read a pattern. Raises InvalidParameter for a malformed one."""
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*" and double and pattern[at : at + 1] == "*":
            at += 1
            at += pattern[at : at + 1] == "/"
            tokens += [_REST] if at == len(pattern) else [_ENTER, _FOLDERS]
        elif character == "*":
            tokens.append(_STAR)
        elif character == "?":
            tokens.append(lambda c: c != "/")
        elif character == "[":
            test, at = _class(pattern, at)
            tokens.append(test)
        else:
            if character == "\\":
                character, at = _escaped(pattern, at)
            tokens.append(character.__eq__)
    return tokens


def _escaped(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern):
        raise InvalidParameter("syntax error in pattern")
    return pattern[at], at + 1


def _class(pattern: str, at: int) -> tuple[Token, int]:
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern[at : at + 1] == "]"):
        low, at = _end(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _end(pattern, at + 1)
        ranges.append((low, high))
    return (lambda c: c != "/" and any(a <= c <= b for a, b in ranges) != negated), at + 1


def _end(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at : at + 1]
    if character in ("", "-", "]"):
        raise InvalidParameter("syntax error in pattern")
    if character == "\\":
        return _escaped(pattern, at + 1)
    return character, at + 1


def has_wildcards(path: str) -> bool:
    """Tell whether a source of COPY is a pattern."""
    at = 0
    while at < len(path):
        if path[at] == "\\":
            at += 1
        elif path[at] in "*?[":
            return True
        at += 1
    return False
