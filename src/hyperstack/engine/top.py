"""``top``: the guest's tasks in the columns that ps(1) would print for the given options."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable

from hyperstack.engine.core import Core
from hyperstack.errors import Conflict, InternalError
from hyperstack.guest import messages
from hyperstack.guest.messages import Task
from hyperstack.model import Container, Status


def _clock(ticks: int) -> str:
    seconds = ticks // 100
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _short_clock(ticks: int) -> str:
    seconds = ticks // 100
    return f"{seconds // 60}:{seconds % 60:02d}"


def _started(task: Task) -> str:
    started = time.localtime(task.start_ns / 1e9)
    now = time.localtime()
    if (started.tm_year, started.tm_yday) == (now.tm_year, now.tm_yday):
        return time.strftime("%H:%M", started)
    return time.strftime("%b%d" if started.tm_year == now.tm_year else "%Y", started)


def _elapsed(task: Task) -> str:
    seconds = max(0, int(time.time() - task.start_ns / 1e9))
    days, rest = divmod(seconds, 86400)
    hours = f"{rest // 3600:02d}:" if seconds >= 3600 else ""
    return (f"{days}-" if days else "") + f"{hours}{rest // 60 % 60:02d}:{rest % 60:02d}"


def _usage(task: Task) -> float:
    life = max(0.01, time.time() - task.start_ns / 1e9)
    return (task.utime + task.stime) / life


def _command(task: Task) -> str:
    return task.cmdline or f"[{task.comm}]"


def _stat(task: Task) -> str:
    """Return ps's long state: niceness, session leader, threads (ps(1), PROCESS STATE CODES)."""
    nice = "N" if task.nice > 0 else "<" if task.nice < 0 else ""
    leads = "s" if task.sid == task.pid else ""
    return f"{task.state}{nice}{leads}{'l' if task.threads > 1 else ''}"


Column = tuple[str, Callable[[Task], str]]

_COLUMNS: dict[str, Column] = {
    "pid": ("PID", lambda t: str(t.pid)),
    "ppid": ("PPID", lambda t: str(t.ppid)),
    "uid": ("UID", lambda t: str(t.uid)),
    "user": ("USER", lambda t: t.user or str(t.uid)),
    "euser": ("EUSER", lambda t: t.user or str(t.uid)),
    "gid": ("GID", lambda t: str(t.gid)),
    "pgid": ("PGID", lambda t: str(t.pgid)),
    "sid": ("SID", lambda t: str(t.sid)),
    "comm": ("COMMAND", lambda t: t.comm),
    "cmd": ("CMD", _command),
    "args": ("COMMAND", _command),
    "command": ("COMMAND", _command),
    "state": ("S", lambda t: t.state),
    "s": ("S", lambda t: t.state),
    "stat": ("STAT", _stat),
    "tty": ("TT", lambda t: t.tty or "?"),
    "tt": ("TT", lambda t: t.tty or "?"),
    "time": ("TIME", lambda t: _clock(t.utime + t.stime)),
    "etime": ("ELAPSED", _elapsed),
    "start": ("START", _started),
    "stime": ("STIME", _started),
    "vsz": ("VSZ", lambda t: str(t.vsz)),
    "rss": ("RSS", lambda t: str(t.rss)),
    "rsz": ("RSZ", lambda t: str(t.rss)),
    "sz": ("SZ", lambda t: str(t.vsz // 4)),
    "ni": ("NI", lambda t: str(t.nice)),
    "nice": ("NI", lambda t: str(t.nice)),
    "pri": ("PRI", lambda t: str(t.priority)),
    "nlwp": ("NLWP", lambda t: str(t.threads)),
    "c": ("C", lambda t: str(int(_usage(t)))),
    "pcpu": ("%CPU", lambda t: f"{_usage(t):.1f}"),
    "%cpu": ("%CPU", lambda t: f"{_usage(t):.1f}"),
    "pmem": ("%MEM", lambda t: "0.0"),
    "%mem": ("%MEM", lambda t: "0.0"),
}


def _named(names: str, **titles: str) -> list[Column]:
    return [
        (titles.get(name.replace("%", "p"), _COLUMNS[name][0]), _COLUMNS[name][1])
        for name in names.split()
    ]


def _full() -> list[Column]:
    uid: Column = ("UID", lambda t: t.user or str(t.uid))
    return [uid, *_named("pid ppid c stime tty time cmd", tty="TTY")]


def _bsd_user() -> list[Column]:
    short: Column = ("TIME", lambda t: _short_clock(t.utime + t.stime))
    return [
        *_named("user pid %cpu %mem vsz rss tty stat start", tty="TTY"),
        short,
        *_named("command"),
    ]


def columns_for(ps_args: str) -> list[Column]:
    """Return the columns for ps options: ``-ef``, ``aux``, ``-o pid,comm`` and their kin.

    Raises InternalError, as dockerd, for what this ps does not know.
    """
    try:
        words = shlex.split(ps_args or "-ef")
    except ValueError as error:
        raise InternalError(f"ps arguments: {error}") from error
    chosen: list[Column] = []
    style = ""
    iterator = iter(words)
    for word in iterator:
        match = re.fullmatch(r"(-?[A-Za-z]*?)(?:o|--format)(?:[= ]?(.*))?", word)
        if (
            word.startswith("--format")
            or (match and word.lstrip("-").endswith("o"))
            or (word.startswith("-o") and len(word) > 2)
        ):
            value = word.partition("=")[2] if word.startswith("--") else ""
            if word.startswith("-o") and len(word) > 2:
                value = word[2:]
            chosen += _custom(value or next(iterator, ""))
        elif re.fullmatch(r"-?[aAefuxwlLHj]+", word):
            style += word
        else:
            raise InternalError(f"ps: unsupported option {word!r}; use -ef, aux or -o LIST")
    if chosen and not any(title.strip() == "PID" for title, _ in chosen):
        raise InternalError("Couldn't find PID field in ps output")
    if chosen:
        return chosen
    if "u" in style and not style.startswith("-"):
        return _bsd_user()
    if "f" in style:
        return _full()
    if style and not style.startswith("-"):
        short: Column = ("TIME", lambda t: _short_clock(t.utime + t.stime))
        return [*_named("pid tty stat", tty="TTY"), short, *_named("command")]
    return _named("pid tty time cmd", tty="TTY")


def _custom(text: str) -> list[Column]:
    made: list[Column] = []
    for item in filter(None, re.split(r"[,\s]+", text)):
        name, equals, title = item.partition("=")
        if name.lower() not in _COLUMNS:
            raise InternalError(f'ps: error: unknown user-defined format specifier "{name}"')
        column = _COLUMNS[name.lower()]
        made.append((title if equals else column[0], column[1]))
    if not made:
        raise InternalError("ps: error: format specification must follow -o")
    return made


async def top(core: Core, container: Container, ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows. Raises Conflict unless the container runs."""
    live = core.live.get(container.id)
    if container.state.status == Status.RESTARTING:
        raise Conflict(
            f"Container {container.id} is restarting, wait until the container is running"
        )
    if live is None or not container.state.status.is_up:
        raise Conflict(f"container {container.id} is not running")
    columns = columns_for(ps_args)
    found: messages.Top = await live.sandbox.call(
        messages.Op.TOP, messages.ContainerRef(id=container.id)
    )
    core.event(container, "top")
    rows = [[value(task) for _, value in columns] for task in found.tasks]
    return [title for title, _ in columns], rows
