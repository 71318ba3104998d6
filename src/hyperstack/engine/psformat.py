"""Columns of ps(1): names of ``-o``, their titles, and what a guest's task has for each.

Titles and values are those of procps-ng 4.0. What no guest tells (a kernel's wait channel, flags,
security labels) is a dash, as where ps itself can't find it out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hyperstack.guest.messages import Task

Value = Callable[[Task], str]
Column = tuple[str, Value]

UNKNOWN = "-"


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


def _long_start(task: Task) -> str:
    return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(task.start_ns / 1e9))


def _age(task: Task) -> int:
    return max(0, int(time.time() - task.start_ns / 1e9))


def _elapsed(task: Task) -> str:
    seconds = _age(task)
    days, rest = divmod(seconds, 86400)
    hours = f"{rest // 3600:02d}:" if seconds >= 3600 else ""
    return (f"{days}-" if days else "") + f"{hours}{rest // 60 % 60:02d}:{rest % 60:02d}"


def _usage(task: Task) -> float:
    life = max(0.01, time.time() - task.start_ns / 1e9)
    return (task.utime + task.stime) / life


def _stat(task: Task) -> str:
    """Return ps's long state: niceness, session leader, threads (ps(1), PROCESS STATE CODES)."""
    nice = "N" if task.nice > 0 else "<" if task.nice < 0 else ""
    leads = "s" if task.sid == task.pid else ""
    return f"{task.state}{nice}{leads}{'l' if task.threads > 1 else ''}"


def command(task: Task) -> str:
    """Return a process's command line; a kernel thread's name in brackets."""
    return task.cmdline or f"[{task.comm}]"


def user(task: Task) -> str:
    """Return the name of a process's user, its number if it has none."""
    return task.user or str(task.uid)


def _group(task: Task) -> str:
    return "root" if task.gid == 0 else str(task.gid)


def _terminal(task: Task) -> str:
    return task.tty or "?"


def _ticks(task: Task) -> int:
    return task.utime + task.stime


# Names of -o, those that mean the same together: title, value.
_KNOWN: dict[str, Column] = {
    "pid tgid lwp spid tid": ("", lambda t: str(t.pid)),
    "ppid": ("PPID", lambda t: str(t.ppid)),
    "uid euid ruid suid fsuid": ("", lambda t: str(t.uid)),
    "user uname euser ruser suser fuser": ("", user),
    "gid egid rgid sgid fsgid": ("", lambda t: str(t.gid)),
    "group egroup rgroup sgroup fgroup": ("", _group),
    "pgid pgrp": ("", lambda t: str(t.pgid)),
    "sid sess session": ("", lambda t: str(t.sid)),
    "tpgid": ("TPGID", lambda t: UNKNOWN if t.tty else "-1"),
    "comm ucomm fname": ("COMMAND", lambda t: t.comm),
    "ucmd": ("CMD", lambda t: t.comm),
    "cmd": ("CMD", command),
    "args command": ("COMMAND", command),
    "state s": ("S", lambda t: t.state),
    "stat": ("STAT", _stat),
    "tty tt": ("TT", _terminal),
    "tname": ("TTY", _terminal),
    "time cputime atime": ("TIME", lambda t: _clock(_ticks(t))),
    "bsdtime": ("TIME", lambda t: _short_clock(_ticks(t))),
    "cputimes times": ("TIME", lambda t: str(_ticks(t) // 100)),
    "etime etimes": ("ELAPSED", _elapsed),
    "start start_time bsdstart": ("START", _started),
    "stime": ("STIME", _started),
    "lstart": ("STARTED", _long_start),
    "vsz vsize": ("VSZ", lambda t: str(t.vsz)),
    "rss rssize rsz": ("RSS", lambda t: str(t.rss)),
    "sz": ("SZ", lambda t: str(t.vsz // 4)),
    "ni nice": ("NI", lambda t: str(t.nice)),
    "pri": ("PRI", lambda t: str(39 - t.priority)),
    "priority": ("PRI", lambda t: str(t.priority)),
    "opri": ("PRI", lambda t: str(60 + t.priority)),
    "nlwp thcount": ("NLWP", lambda t: str(t.threads)),
    "c": ("C", lambda t: str(int(_usage(t)))),
    "pcpu %cpu": ("%CPU", lambda t: f"{_usage(t):.1f}"),
    "cls class policy": ("CLS", lambda t: "TS"),
    "psr": ("PSR", lambda t: "0"),
    "wchan nwchan": ("WCHAN", lambda t: UNKNOWN),
    "f flag flags": ("F", lambda t: UNKNOWN),
    "addr": ("ADDR", lambda t: UNKNOWN),
    "label context": ("LABEL", lambda t: UNKNOWN),
}
_TITLES = {
    "fname": "COMMAND", "rsz": "RSZ", "thcount": "THCNT", "uname": "USER", "user": "USER",
    "context": "CONTEXT", "policy": "POL", "session": "SESS", "pgrp": "PGRP",
}  # fmt: skip


def _all() -> dict[str, Column]:
    made: dict[str, Column] = {}
    for names, (title, value) in _KNOWN.items():
        for name in names.split():
            made[name] = (_TITLES.get(name, title or name.upper()), value)
    made["etimes"] = ("ELAPSED", lambda t: str(_age(t)))
    return made


COLUMNS = _all()


def share(memory: int) -> Column:
    """Return the column of memory in hundredths of the machine's, which has *memory* bytes."""
    kib = max(1, memory // 1024)
    return "%MEM", lambda t: f"{min(99.9, 100 * t.rss / kib):.1f}"
