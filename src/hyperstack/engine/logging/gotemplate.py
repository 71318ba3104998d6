"""The part of Go's templates (pkg.go.dev/text/template) that tags of logs are made of.

Text, fields, literals, pipelines, comments, trimmed blanks, and the functions that moby adds. No
control structures, no variables, no brackets: those are refused by name. All takes time in
proportion to the template, which comes from a client.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from hyperstack.errors import InternalError

Value: TypeAlias = str | int | Sequence[str] | Mapping[str, str]

LONGEST = 1 << 16
"""Characters of a template, and of what comes of it."""
WORDS = 32
"""Words of an action: each may stand for all that a client said of a container."""
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|\||[^\s|"`]+')
_NOT_HERE = frozenset(
    "if else end range with define template block break continue and or not".split()
)


def fill(template: str, values: Mapping[str, Value]) -> str:
    """Return what comes of a template. Raises InternalError in the words of Go."""
    if len(template) > LONGEST:
        raise InternalError(f"the log's tag is longer than {LONGEST} characters")
    made: list[str] = []
    length = at = 0
    trimmed = False
    while at < len(template):
        start = template.find("{{", at)
        text = template[at:] if start < 0 else template[at:start]
        text = text.lstrip() if trimmed else text
        action, trims = "", (False, False)
        at = len(template)
        if start >= 0:
            action, trims, at = _action(template, start + 2)
            text = text.rstrip() if trims[0] else text
        trimmed = trims[1]
        made.append(text)
        if start >= 0 and not _is_comment(action):
            made.append(_shown(_pipeline(action, start + 2, values)))
        length += sum(map(len, made[-2:]))
        if length > LONGEST:
            raise InternalError(f"the log's tag is longer than {LONGEST} characters")
    return "".join(made)


def _action(template: str, start: int) -> tuple[str, tuple[bool, bool], int]:
    """Return an action's inside, whether blanks before and after it go, and where it ends."""
    end = template.find("}}", start)
    if end < 0:
        raise _wrong("unclosed action")
    inside = template[start:end]
    before, after = inside[:2] in ("- ", "-\n", "-\t"), inside[-2:] in (" -", "\n-", "\t-")
    inside = inside[1:] if before else inside
    return (inside[:-1] if after else inside), (before, after), end + 2


def _is_comment(action: str) -> bool:
    text = action.strip()
    return text.startswith("/*") and text.endswith("*/") and len(text) >= 4


def _wrong(words: str) -> InternalError:
    return InternalError(f"template: log-tag:1: {words}")


def _pipeline(action: str, place: int, values: Mapping[str, Value]) -> Value:
    commands: list[list[re.Match[str]]] = [[]]
    for token in _TOKEN.finditer(action):
        if token[0] == "|":
            commands.append([])
        else:
            _check(token[0])
            commands[-1].append(token)
        if sum(map(len, commands)) > WORDS:
            raise _wrong(f"an action of more than {WORDS} words")
    if not all(commands):
        raise _wrong("missing value for command")
    result: Value | None = None
    for command in commands:
        arguments = [_literal_or_field(token, place, values) for token in command[1:]]
        if result is not None:
            arguments.append(result)
        result = _call(command[0], arguments, place, values)
    assert result is not None
    return result


def _check(token: str) -> None:
    """Refuse what Go would not parse, and what is not done here."""
    if token[0] in '."`' or token.isdigit() or token in _FUNCTIONS:
        return
    if token in _NOT_HERE or token[0] in "($":
        raise _wrong(f'"{token[:20]}" is not supported in a tag')
    if token[0] in "-+0123456789":
        raise _wrong(f'bad number syntax: "{token[:3]}"')
    raise _wrong(f'function "{token}" not defined')


def _call(
    token: re.Match[str], arguments: list[Value], place: int, values: Mapping[str, Value]
) -> Value:
    function = _FUNCTIONS.get(token[0])
    if function is None:
        if arguments:
            raise _failed(token, place, f"can't give argument to non-function {token[0]}")
        return _literal_or_field(token, place, values)
    try:
        return function(*arguments)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise _failed(token, place, f"wrong arguments for {token[0]}") from error


def _literal_or_field(token: re.Match[str], place: int, values: Mapping[str, Value]) -> Value:
    text = token[0]
    if text.isdigit():
        return int(text[:18])
    if text[0] == "`":
        return text[1:-1]
    if text[0] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            raise _wrong(f"invalid syntax: {text}") from None
    if text == ".":
        return {key: _shown(value) for key, value in values.items()}
    return _field(token, place, values)


def _field(token: re.Match[str], place: int, values: Mapping[str, Value]) -> Value:
    value: Value | Mapping[str, Value] = values
    kind = "*logger.Info"
    offset = 0
    for name in token[0][1:].split("."):
        if not isinstance(value, Mapping) or (value is values and name not in values):
            words = f"can't evaluate field {name} in type {kind}"
            raise _failed(token, place + offset, words)
        offset += len(name) + 1
        value = value.get(name, "<no value>")
        kind = "string" if isinstance(value, str) else "[]string"
    return value  # type: ignore[return-value]  # a field of values is a Value


def _failed(token: re.Match[str], place: int, words: str) -> InternalError:
    at = place + token.start()
    return InternalError(f'template: log-tag:1:{at}: executing "log-tag" at <{token[0]}>: {words}')


def _shown(value: Value) -> str:
    """Return a value as Go prints it."""
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{value[key]}' for key in sorted(value))}]"
    if isinstance(value, str | int):
        return str(value)
    return f"[{' '.join(value)}]"


def _json(value: Value) -> str:
    shown = list(value) if isinstance(value, tuple) else value
    return json.dumps(shown, separators=(",", ":"), ensure_ascii=False)


def _index(value: Value, key: Value) -> Value:
    if isinstance(value, Mapping):
        return value.get(str(key), "")
    if isinstance(value, int) or not isinstance(key, int):
        raise TypeError
    return str(ord(value[key])) if isinstance(value, str) else value[key]


def _truncate(text: Value, length: Value) -> Value:
    if not isinstance(text, str) or not isinstance(length, int):
        raise TypeError
    return text[:length]


def _method(name: str) -> Callable[..., Value]:
    def call(text: Value, *more: Value) -> Value:
        if not isinstance(text, str):
            raise TypeError
        return getattr(text, name)(*more)  # type: ignore[no-any-return]  # methods of str

    return call


def _join(values: Value, between: Value) -> Value:
    if isinstance(values, str | int | Mapping) or not isinstance(between, str):
        raise TypeError
    return between.join(values)


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "index": _index,
    "join": _join,
    "json": _json,
    "len": len,
    "lower": _method("lower"),
    "print": lambda *values: "".join(map(_shown, values)),
    "split": _method("split"),
    "title": _method("title"),
    "truncate": _truncate,
    "upper": _method("upper"),
}
