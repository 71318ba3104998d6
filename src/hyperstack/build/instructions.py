"""Instructions of a Dockerfile, checked: what each takes, and the stages that they make.

Dockerfile reference; the words of errors are the classic builder's. Variables are expanded when an
instruction is carried out, since they depend on those before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hyperstack.build import dockerfile, flags, shell
from hyperstack.build.dockerfile import Line
from hyperstack.errors import InvalidParameter
from hyperstack.model import Healthcheck
from hyperstack.until import parse_duration

Pair = tuple[str, str | None]
_STAGE = re.compile(r"[a-z][a-z0-9-_.]*\Z")
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)
_MILLISECOND = 1_000_000
NEEDS_BUILDKIT = (
    "the --{} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how "
    "to build images with BuildKit enabled"
)


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction. Which fields mean something depends on the keyword."""

    keyword: str
    code: str
    """As written: what the step's line shows."""
    line: int = 1
    args: tuple[str, ...] = ()
    json: bool = False
    """``args`` came in the exec form."""
    pairs: tuple[Pair, ...] = ()
    """ENV, LABEL, ARG; an ARG may have no value."""
    flags: Mapping[str, str] = field(default_factory=dict)
    health: Healthcheck | None = None
    literal: bool = False
    """Variables are not expanded."""


@dataclass(kw_only=True)
class Stage:
    """FROM and what follows it. ``name`` is lower case or empty."""

    base: str
    name: str
    platform: str
    code: str
    steps: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """A whole Dockerfile: ARGs in front, then stages."""

    meta: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    escape: str
    warnings: tuple[str, ...]


def parse(text: str, name: str = "Dockerfile") -> Dockerfile:
    """Read a Dockerfile. Raises InvalidParameter, with the line that is wrong."""
    try:
        whole = dockerfile.read(text)
        args = [_Args(line, whole.escape) for line in whole.lines]
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to parse {name}: {error.message}") from None
    meta: list[Instruction] = []
    stages: list[Stage] = []
    for one in args:
        try:
            found = _instruction(one)
        except InvalidParameter as error:
            where = f"dockerfile parse error on line {one.line.number}: "
            raise InvalidParameter(where + error.message) from None
        if isinstance(found, Stage):
            stages.append(found)
        elif stages:
            stages[-1].steps.append(found)
        elif found.keyword == "arg":
            meta.append(found)
        else:
            raise InvalidParameter("no build stage in current context")
    return Dockerfile(
        meta=tuple(meta), stages=tuple(stages), escape=whole.escape, warnings=whole.warnings
    )


def with_stages(file: Dockerfile, stages: Sequence[Stage]) -> Dockerfile:
    """Return a Dockerfile with only these stages."""
    return replace(file, stages=tuple(stages))


def word_of(line: Line) -> str:
    """Return an instruction's keyword as it was written."""
    return (line.original.split(maxsplit=1) or [""])[0]


def parse_trigger(text: str, escape: str) -> Instruction:
    """Read what ONBUILD kept. Raises InvalidParameter."""
    return parse_line(dockerfile.split_line(text), escape)


def parse_line(line: Line, escape: str) -> Instruction:
    """Read one instruction that is not FROM. Raises InvalidParameter."""
    found = _instruction(_Args(line, escape))
    if isinstance(found, Stage):
        raise InvalidParameter("FROM isn't allowed as an ONBUILD trigger")
    return found


def label_option(key: str, value: str) -> Instruction:
    """Return the instruction that ``--label`` adds to the last stage."""
    code = f"LABEL {key}={value}"
    return Instruction(keyword="label", code=code, pairs=((key, value),), literal=True)


class _Args:
    """An instruction's rest cut into arguments the way its keyword wants it."""

    def __init__(self, line: Line, escape: str) -> None:
        self.line = line
        self.escape = escape
        self.json = False
        self.pairs: tuple[Pair, ...] = ()
        self.args: tuple[str, ...] = ()
        keyword, rest = line.keyword, line.rest
        if keyword in ("env", "label"):
            self.pairs = _pairs(keyword.upper(), rest, escape)
        elif keyword == "arg":
            self.pairs = _arg_pairs(rest, escape)
        elif keyword == "healthcheck":
            kind, _, command = _BLANKS.sub(" ", rest, count=1).partition(" ")
            self.args = (kind, *self._command(command.strip())) if kind else ()
        elif keyword in ("cmd", "entrypoint", "run", "shell"):
            self.args = self._command(rest)
        elif keyword in ("add", "copy", "volume"):
            self.args = self._command(rest, divided=True)
        elif keyword in ("expose", "from"):
            self.args = tuple(_BLANKS.split(rest)) if rest else ()
        elif keyword == "onbuild":
            self.args = (rest.split()[0].upper(),) if rest else ()
            if rest:
                _Args(dockerfile.split_line(rest), escape)  # refuses what can't be read
        else:
            self.args = (rest,) if rest else ()

    def _command(self, rest: str, *, divided: bool = False) -> tuple[str, ...]:
        if (listed := shell.json_words(rest)) is not None:
            self.json = True
            return tuple(listed)
        if not rest:
            return ()
        return tuple(_BLANKS.split(rest)) if divided else (rest,)

    def flags(self, texts: Sequence[str], switches: Sequence[str] = ()) -> dict[str, str]:
        """Return the flags in front. Raises InvalidParameter, see ``flags.read``."""
        return flags.read(self.line.flags, texts, switches)


def _pairs(keyword: str, rest: str, escape: str) -> tuple[Pair, ...]:
    """Read ``name=value name="a b"`` or the old ``name value``."""
    words = shell.split(rest, escape)
    if not words:
        return ()
    if "=" not in words[0]:
        name, *value = _BLANKS.split(rest, maxsplit=1)
        if not value:
            raise InvalidParameter(f"{keyword} must have two arguments")
        return ((name, value[0]),)
    for word in words:
        if "=" not in word:
            raise InvalidParameter(
                f"Syntax error - can't find = in {shell.go_quote(word)}. Must be of the form: "
                "name=value"
            )
    return tuple((name, value) for name, _, value in (word.partition("=") for word in words))


def _arg_pairs(rest: str, escape: str) -> tuple[Pair, ...]:
    found = [word.partition("=") for word in shell.split(rest, escape)]
    return tuple((name, value if equals else None) for name, equals, value in found)


def _instruction(one: _Args) -> Instruction | Stage:
    maker = _MAKERS.get(one.line.keyword)
    if maker is None:
        word = word_of(one.line)
        raise InvalidParameter(f"unknown instruction: {word}{flags.meant(word, _MAKERS)}")
    return maker(one)


def _make(one: _Args, *texts: str, switches: Sequence[str] = (), **values: object) -> Instruction:
    made = Instruction(
        keyword=one.line.keyword,
        code=one.line.original.strip(),
        line=one.line.number,
        args=one.args,
        json=one.json,
        pairs=one.pairs,
        flags=one.flags(texts, switches),
    )
    return replace(made, **values) if values else made  # type: ignore[arg-type]  # fields of it


def _named(one: _Args) -> Instruction:
    keyword = one.line.keyword.upper()
    if not one.pairs:
        raise InvalidParameter(f"{keyword} requires at least one argument")
    if any(not name for name, _ in one.pairs):
        raise InvalidParameter(f"{keyword} names can not be blank")
    return _make(one)


def _exactly_one(one: _Args) -> Instruction:
    if len(one.args) != 1:
        raise InvalidParameter(f"{one.line.keyword.upper()} requires exactly one argument")
    return _make(one)


def _copy(one: _Args) -> Instruction:
    keyword = one.line.keyword.upper()
    if len(one.args) < 2:
        raise InvalidParameter(
            f"{keyword} requires at least two arguments, but only one was provided. Destination "
            "could not be determined"
        )
    texts, switches = _COPY_FLAGS[keyword]
    made = _make(one, *texts, switches=switches)
    if not one.line.heredocs:
        return made
    names = tuple(name for name in one.args[:-1] if dockerfile.heredoc(name) is None)
    return replace(made, args=(*names, one.args[-1]))


_COPY_FLAGS = {
    "COPY": (("chmod", "chown", "exclude", "from"), ("link",)),
    "ADD": (("checksum", "chmod", "chown", "exclude"), ("keep-git-dir", "link", "unpack")),
}
"""Those with and without a value. Only ``chown`` and ``from`` mean something here, ``chmod`` is
refused, and the rest is passed over, as by Docker."""


def _from(one: _Args) -> Stage:
    args = one.args
    name = ""
    if len(args) == 3 and args[1].lower() == "as":
        name = args[2].lower()
        if not _STAGE.match(name):
            raise InvalidParameter(
                f"invalid name for build stage: {shell.go_quote(args[2])}, name can't start with a "
                "number or contain symbols"
            )
    elif len(args) != 1:
        raise InvalidParameter("FROM requires either one or three arguments")
    return Stage(
        base=args[0],
        name=name,
        platform=one.flags(("platform",)).get("platform", ""),
        code=one.line.original.strip(),
    )


def _onbuild(one: _Args) -> Instruction:
    if not one.args:
        raise InvalidParameter("ONBUILD requires at least one argument")
    if one.args[0] == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if one.args[0] in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{one.args[0]} isn't allowed as an ONBUILD trigger")
    return _make(one, args=(_ONBUILD.sub("", one.line.original, count=1),))


def _run(one: _Args) -> Instruction:
    made = _make(one, "device", "mount", "network")  # they are refused when their turn comes
    network = made.flags.get("network", "default") or "default"
    if network not in ("default", "none", "host"):
        raise InvalidParameter(f"invalid network mode {shell.go_quote(network)}")
    return made


def _shell(one: _Args) -> Instruction:
    if not one.args:
        raise InvalidParameter("SHELL requires at least one argument")
    if not one.json:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    return _make(one)


def _some(one: _Args) -> Instruction:
    if not one.args:
        raise InvalidParameter(f"{one.line.keyword.upper()} requires at least one argument")
    if one.line.keyword == "volume":
        stripped = tuple(path.strip() for path in one.args)
        if "" in stripped:
            raise InvalidParameter("VOLUME specified can not be an empty string")
        return _make(one, args=stripped)
    return _make(one, args=tuple(sorted(one.args)))


def _healthcheck(one: _Args) -> Instruction:
    if not one.args:
        raise InvalidParameter("HEALTHCHECK requires at least one argument")
    kind, command = one.args[0].upper(), one.args[1:]
    if kind == "NONE":
        if command:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        return _make(one, health=Healthcheck(test=("NONE",)))
    known = ("interval", "timeout", "start-period", "start-interval", "retries")
    given = one.flags(known)
    if kind != "CMD":
        raise InvalidParameter(f"Unknown type {shell.go_quote(kind)} in HEALTHCHECK (try CMD)")
    if not command:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    health = Healthcheck(
        test=("CMD" if one.json else "CMD-SHELL", *command),
        interval=_duration("interval", given),
        timeout=_duration("timeout", given),
        start_period=_duration("start-period", given),
        start_interval=_duration("start-interval", given),
        retries=_retries(given.get("retries", "")),
    )
    return _make(one, *known, health=health)


def _duration(name: str, given: Mapping[str, str]) -> int:
    text = given.get(name, "")
    if text in ("", "0"):
        return 0
    value = parse_duration(text)
    if value is None:
        raise InvalidParameter(_why_no_duration(text))
    if value and value < _MILLISECOND:
        raise InvalidParameter(f'Interval "{name}" cannot be less than 1ms')
    return value


def _why_no_duration(text: str) -> str:
    """Say what is wrong with a duration, in the words of Go's ``time``."""
    shown = shell.go_quote(text)
    rest = re.sub(r"\A[+-]?(?:[0-9.]+(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))*", "", text)
    number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
    unit = re.split("[0-9.]", rest[len(number) :], maxsplit=1)[0]
    if not number.strip("."):
        return f"time: invalid duration {shown}"
    if not unit:
        return f"time: missing unit in duration {shown}"
    return f"time: unknown unit {shell.go_quote(unit)} in duration {shown}"


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise InvalidParameter(f"strconv.ParseInt: parsing {shell.go_quote(text)}: invalid syntax")
    if int(text) < 0:
        raise InvalidParameter(f"--retries cannot be negative ({int(text)})")
    return int(text)


_MAKERS: dict[str, Callable[[_Args], Instruction | Stage]] = {
    "add": _copy,
    "arg": _named,
    "cmd": _make,
    "copy": _copy,
    "entrypoint": _make,
    "env": _named,
    "expose": _some,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _named,
    "maintainer": _exactly_one,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _exactly_one,
    "user": _exactly_one,
    "volume": _some,
    "workdir": _exactly_one,
}


def labelled(stages: Sequence[Stage], labels: Mapping[str, str]) -> None:
    """Add ``--label`` options to the last stage, sorted."""
    for key in sorted(labels):
        stages[-1].steps.append(label_option(key, labels[key]))
