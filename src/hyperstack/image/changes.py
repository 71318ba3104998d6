"""Dockerfile instructions that change a configuration: ``--change`` of commit and import.

Dockerfile reference: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
VOLUME, WORKDIR. The words of errors are Docker's.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from hyperstack.errors import InvalidParameter
from hyperstack.image import words
from hyperstack.model import ContainerConfig, Healthcheck
from hyperstack.until import parse_duration

MAX_CHANGES = 1 << 20
"""Characters of all changes."""
DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/([a-zA-Z]+))?\Z")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+|\Z)")
_DURATIONS = {
    "interval": "interval",
    "timeout": "timeout",
    "start-period": "start_period",
    "start-interval": "start_interval",
}


def apply_changes(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """Return *config* after the instructions. Raises InvalidParameter in Docker's words."""
    if sum(map(len, changes)) > MAX_CHANGES:
        raise InvalidParameter("the changes are too long")
    cmd_set = False
    instructions = words.instructions(list(changes))
    if changes and not instructions:
        raise InvalidParameter("file with no instructions")
    for written, rest in instructions:
        keyword = written.lower()
        change = _CHANGES.get(keyword)
        if change is None:
            raise InvalidParameter(f"{written} is not a valid change command")
        config = change(config, rest)
        if keyword == "entrypoint" and not cmd_set:
            # An entrypoint makes the base's command meaningless unless one is given beside it.
            config = replace(config, cmd=None)
        cmd_set |= keyword == "cmd"
    return config


def _command(config: ContainerConfig, rest: str) -> tuple[str, ...] | None:
    if (listed := words.json_words(rest)) is not None:
        return tuple(listed) or None
    return (*(config.shell or DEFAULT_SHELL), rest) if rest else None


def _cmd(config: ContainerConfig, rest: str) -> ContainerConfig:
    shell = config.shell or DEFAULT_SHELL
    return replace(config, cmd=_command(config, rest) if rest else shell)


def _entrypoint(config: ContainerConfig, rest: str) -> ContainerConfig:
    return replace(config, entrypoint=_command(config, rest))


def _variables(config: ContainerConfig) -> dict[str, str]:
    return {name: value for name, _, value in (entry.partition("=") for entry in config.env)}


def _expand(config: ContainerConfig, text: str) -> str:
    return words.expand(text, _variables(config))


def _pairs(config: ContainerConfig, keyword: str, rest: str) -> list[tuple[str, str]]:
    """Read ``name=value name="a b"`` or the old ``name value``."""
    parts = words.split(rest)
    if not parts:
        raise InvalidParameter(f"{keyword} requires at least one argument")
    if "=" not in parts[0]:
        name, _, value = rest.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{keyword} must have two arguments")
        return [(_expand(config, name), _expand(config, value.strip()))]
    pairs = []
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidParameter(
                f'Syntax error - can\'t find = in "{part}". Must be of the form: name=value'
            )
        if not (name := _expand(config, name)):
            raise InvalidParameter(f"{keyword} names can not be blank")
        pairs.append((name, _expand(config, value)))
    return pairs


def _env(config: ContainerConfig, rest: str) -> ContainerConfig:
    env = list(config.env)
    for name, value in _pairs(config, "ENV", rest):
        names = [entry.partition("=")[0] for entry in env]
        if name in names:
            env[names.index(name)] = f"{name}={value}"
        else:
            env.append(f"{name}={value}")
    return replace(config, env=tuple(env))


def _label(config: ContainerConfig, rest: str) -> ContainerConfig:
    return replace(config, labels={**config.labels, **dict(_pairs(config, "LABEL", rest))})


def _expose(config: ContainerConfig, rest: str) -> ContainerConfig:
    ports = [_expand(config, word) for word in rest.split()]
    if not ports:
        raise InvalidParameter("EXPOSE requires at least one argument")
    found = [port for text in ports for port in port_range(text)]
    return replace(config, exposed_ports=tuple(dict.fromkeys((*config.exposed_ports, *found))))


def port_range(text: str) -> list[str]:
    """Return the ports of ``80``, ``80/udp`` or ``8000-8010``. Raises InvalidParameter."""
    match = _PORT.match(text)
    if match is None:
        raise InvalidParameter(f"Invalid containerPort: {text}")
    first, last = int(match[1]), int(match[2] or match[1])
    protocol = (match[3] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidParameter(f"Invalid proto: {protocol}")
    if not first <= last < 1 << 16:
        raise InvalidParameter(f"Invalid containerPort: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _user(config: ContainerConfig, rest: str) -> ContainerConfig:
    return replace(config, user=_one(config, "USER", rest))


def _one(config: ContainerConfig, keyword: str, rest: str) -> str:
    if not rest:
        raise InvalidParameter(f"{keyword} requires exactly one argument")
    return _expand(config, rest)


def _volume(config: ContainerConfig, rest: str) -> ContainerConfig:
    listed = words.json_words(rest)
    paths = rest.split() if listed is None else listed
    if not paths:
        raise InvalidParameter("VOLUME requires at least one argument")
    expanded = [_expand(config, path).strip() for path in paths]
    if "" in expanded:
        raise InvalidParameter("VOLUME specified can not be an empty string")
    return replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *expanded))))


def _workdir(config: ContainerConfig, rest: str) -> ContainerConfig:
    path = _one(config, "WORKDIR", rest)
    if not path:
        raise InvalidParameter("cannot normalize nothing")
    if not path.startswith("/"):
        path = posixpath.normpath(posixpath.join("/", config.working_dir, path))
        path = "/" + path.lstrip("/")
    return replace(config, working_dir=path)


def _stopsignal(config: ContainerConfig, rest: str) -> ContainerConfig:
    text = _one(config, "STOPSIGNAL", rest)
    name = "SIG" + text.upper().removeprefix("SIG")
    known = name in signal.Signals.__members__ or name.startswith(("SIGRTMIN", "SIGRTMAX"))
    if not known and not (text.isdigit() and 0 < int(text) <= 64):
        raise InvalidParameter(f"invalid signal: {text}")
    return replace(config, stop_signal=text)


def _onbuild(config: ContainerConfig, rest: str) -> ContainerConfig:
    if not rest:
        raise InvalidParameter("ONBUILD requires at least one argument")
    trigger = rest.split()[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    return replace(config, on_build=(*(config.on_build or ()), rest))


def _healthcheck(config: ContainerConfig, rest: str) -> ContainerConfig:
    flags: dict[str, str] = {}
    while match := _FLAG.match(rest):
        if match[1] not in {*_DURATIONS, "retries"}:
            raise InvalidParameter(f"unknown flag: {match[1]}")
        if match[2] is None:
            raise InvalidParameter(f"missing a value on flag: {match[1]}")
        flags[match[1]], rest = match[2], rest[match.end() :]
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if not kind:
        raise InvalidParameter("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if command:
            raise InvalidParameter("HEALTHCHECK NONE takes no arguments")
        return replace(config, healthcheck=Healthcheck(test=("NONE",)))
    if kind.upper() != "CMD":
        raise InvalidParameter(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    check = Healthcheck(test=_test(command), retries=_retries(flags.pop("retries", "0")))
    times = {_DURATIONS[name]: _duration(name, text) for name, text in flags.items()}
    return replace(config, healthcheck=replace(check, **times))


def _test(command: str) -> tuple[str, ...]:
    listed = words.json_words(command)
    if not command or listed == []:
        raise InvalidParameter("Missing command after HEALTHCHECK CMD")
    return ("CMD", *listed) if listed is not None else ("CMD-SHELL", command)


def _duration(name: str, text: str) -> int:
    if not text:
        return 0
    value = 0 if text == "0" else parse_duration(text)
    if value is None:
        raise InvalidParameter(f'time: invalid duration "{text}"')
    if value < 1_000_000 and value != 0:
        raise InvalidParameter(f'Interval "{name}" cannot be less than 1ms')
    return value


def _retries(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,9}", text or "0"):
        raise InvalidParameter(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    value = int(text or "0")
    if value < 0:
        raise InvalidParameter(f"--retries cannot be negative ({value})")
    return value


_CHANGES: dict[str, Callable[[ContainerConfig, str], ContainerConfig]] = {
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "healthcheck": _healthcheck,
    "label": _label,
    "onbuild": _onbuild,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
