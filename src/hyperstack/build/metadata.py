"""Instructions that only set something: what becomes of the configuration, and the history's words.

The words are the classic builder's (moby, ``builder/dockerfile/dispatchers.go``), since caches of
other engines are found by them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec

from hyperstack.build import ports, shell
from hyperstack.build.instructions import Instruction
from hyperstack.build.state import State
from hyperstack.errors import InvalidParameter
from hyperstack.model import Healthcheck

MOST_PORTS = 65_536 * 3
_SIGNALS = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT "
    "STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ"
).split()
_REALTIME = re.compile(r"RTM(?:IN(?:\+([0-9]|1[0-5]))?|AX(?:-([0-9]|1[0-4]))?)\Z")


def expanded(state: State, step: Instruction, escape: str) -> Instruction:
    """Return an instruction with its variables replaced, where its kind has any."""
    if step.literal or step.keyword not in _EXPANDED:
        return step
    variables = state.variables()

    def one(text: str) -> str:
        return shell.expand(text, variables, escape)

    pairs = tuple((one(k), None if v is None else one(v)) for k, v in step.pairs)
    flags = {k: one(v) if k == "chown" else v for k, v in step.flags.items()}
    return replace(step, args=tuple(map(one, step.args)), pairs=pairs, flags=flags)


_EXPANDED = frozenset("add arg copy env label stopsignal user volume workdir".split())


def apply(state: State, step: Instruction, escape: str) -> str:
    """Carry one out on the state; return the history's words. Raises InvalidParameter."""
    return _STEPS[step.keyword](state, step, escape)


def handles(keyword: str) -> bool:
    """Tell whether an instruction only sets something."""
    return keyword in _STEPS


def working_dir(state: State, asked: str) -> str:
    """Return what WORKDIR makes the working directory. Raises InvalidParameter."""
    if not asked:
        raise InvalidParameter("cannot normalize nothing")
    path = posixpath.normpath(posixpath.join("/", state.config.working_dir, asked))
    return "/" + path.lstrip("/")


def _written(pairs: Sequence[tuple[str, str | None]]) -> str:
    return " ".join(k if v is None else f"{k}={v}" for k, v in pairs)


def _env(state: State, step: Instruction, escape: str) -> str:
    env = list(state.config.env)
    for name, value in step.pairs:
        names = [entry.partition("=")[0] for entry in env]
        if name in names:
            env[names.index(name)] = f"{name}={value}"
        else:
            env.append(f"{name}={value}")
    state.set(env=tuple(env))
    return f"ENV {_written(step.pairs)}"


def _label(state: State, step: Instruction, escape: str) -> str:
    new = {name: value or "" for name, value in step.pairs}
    state.set(labels={**state.config.labels, **new})
    return f"LABEL {_written(step.pairs)}"


def _arg(state: State, step: Instruction, escape: str) -> str:
    for name, default in step.pairs:
        state.args.add(name, default)
    return f"ARG {_written(step.pairs)}"


def _maintainer(state: State, step: Instruction, escape: str) -> str:
    state.author = step.args[0]
    return f"MAINTAINER {step.args[0]}"


def _user(state: State, step: Instruction, escape: str) -> str:
    state.set(user=step.args[0])
    return f"USER {step.args[0]}"


def _volume(state: State, step: Instruction, escape: str) -> str:
    if "" in step.args:
        raise InvalidParameter("VOLUME specified can not be an empty string")
    volumes = tuple(dict.fromkeys((*state.config.volumes, *step.args)))
    state.set(volumes=volumes)
    return f"VOLUME [{' '.join(step.args)}]"


def _expose(state: State, step: Instruction, escape: str) -> str:
    variables = state.variables()
    texts = [w for text in step.args for w in shell.expand_words(text, variables, escape)]
    found = [port for text in texts for port in ports.exposed(text)]
    exposed = tuple(dict.fromkeys((*state.config.exposed_ports, *found)))
    if len(exposed) > MOST_PORTS:
        raise InvalidParameter("too many ports exposed")
    state.set(exposed_ports=exposed)
    return f"EXPOSE {' '.join(texts)}"


def _stopsignal(state: State, step: Instruction, escape: str) -> str:
    text = step.args[0]
    name = text.upper().removeprefix("SIG")
    number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else 0
    if not (number or name in _SIGNALS or _REALTIME.match(name)):
        raise InvalidParameter(f"invalid signal: {text}")
    state.set(stop_signal=text)
    return f"STOPSIGNAL {text}"


def _quoted(words: Sequence[str]) -> str:
    return f"[{' '.join(map(shell.go_quote, words))}]"


def _cmd(state: State, step: Instruction, escape: str) -> str:
    command = state.command(step.args, listed=step.json)
    state.set(cmd=command or None)
    state.cmd_set = state.cmd_set or bool(step.args)
    return f"CMD {_quoted(command)}"


def _entrypoint(state: State, step: Instruction, escape: str) -> str:
    command = state.command(step.args, listed=step.json) if step.args else ()
    state.set(entrypoint=command or None)
    if not state.cmd_set:
        state.set(cmd=None)
    return f"ENTRYPOINT {_quoted(command)}"


def _healthcheck(state: State, step: Instruction, escape: str) -> str:
    new, old = step.health, state.config.healthcheck or Healthcheck()
    assert new is not None
    # What is left open is the parent's, as when a container's configuration is merged.
    merged = msgspec.structs.replace(
        new, **{name: getattr(new, name) or getattr(old, name) for name in _INHERITED}
    )
    state.set(healthcheck=merged)
    times = " ".join(
        go_duration(ns) for ns in (new.interval, new.timeout, new.start_period, new.start_interval)
    )
    return f"HEALTHCHECK &{{[{' '.join(new.test)}] {times} {new.retries}}}"


_INHERITED = ("interval", "timeout", "start_period", "start_interval", "retries")


def go_duration(ns: int) -> str:
    """Return a duration as Go prints it: ``1m30s``, ``1.5ms``, ``0s``."""
    if ns < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("\u00b5s", 1_000)):
            if ns >= size:
                return _decimal(ns, size) + unit
        return f"{ns}ns" if ns else "0s"
    minutes, rest = divmod(ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    digits = str(part).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _onbuild(state: State, step: Instruction, escape: str) -> str:
    state.set(on_build=(*(state.config.on_build or ()), step.args[0]))
    return f"ONBUILD {step.args[0]}"


def _shell(state: State, step: Instruction, escape: str) -> str:
    state.set(shell=step.args)
    return f"SHELL [{' '.join(step.args)}]"


_STEPS: Mapping[str, Callable[[State, Instruction, str], str]] = {
    "arg": _arg,
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "shell": _shell,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
}
