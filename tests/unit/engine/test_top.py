from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine.top import columns_for
from hyperstack.errors import InternalError
from hyperstack.guest.messages import Task

TASK = Task(
    pid=7, ppid=1, uid=1000, gid=100, user="me", state="S", cmdline="sleep 600", comm="sleep",
    utime=12_345, stime=55, vsz=4096, rss=512,
    tty="pts/0",
)  # fmt: skip


def titles(arguments: str) -> list[str]:
    return [title for title, _ in columns_for(arguments)]


def row(arguments: str) -> list[str]:
    """Return the values of a task that began a day, an hour, a minute and a second ago."""
    task = dataclasses.replace(TASK, start_ns=time.time_ns() - 90_061 * 10**9)
    return [value(task) for _, value in columns_for(arguments)]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", "UID PID PPID C STIME TTY TIME CMD"),
        ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
        ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("-o pid,comm", "PID COMMAND"),
        ("-eo pid,args", "PID COMMAND"),
        ("-o pid -o rss", "PID RSS"),
        ("-opid", "PID"),
        ("--format=pid,user", "PID USER"),
        ("-o pid=PID,comm=WHAT", "PID WHAT"),
        ("-e", "PID TTY TIME CMD"),
        ("ax", "PID TTY STAT TIME COMMAND"),
    ],
)
def test_options_choose_columns(arguments: str, wanted: str) -> None:
    assert titles(arguments) == wanted.split()


def test_values_are_written_as_ps_writes_them() -> None:
    assert row("-o pid,user,uid,args,comm,time,vsz,rss,tty,etime") == [
        "7", "me", "1000", "sleep 600", "sleep", "00:02:04", "4096", "512", "pts/0", "1-01:01:01",
    ]  # fmt: skip


def test_a_kernel_thread_is_in_brackets_and_a_nameless_user_a_number() -> None:
    columns = dict(columns_for("-o pid,user,args"))
    thread = Task(pid=2, uid=5, comm="kworker")
    assert (columns["USER"](thread), columns["COMMAND"](thread)) == ("5", "[kworker]")


@pytest.mark.parametrize(
    "arguments",
    ["-o wings", "-o comm", "-o comm -o rss", "-o", "--forest", "-ef --sort x", '"', "; reboot"],
)
def test_what_this_ps_does_not_know_is_refused(arguments: str) -> None:
    with pytest.raises(InternalError):
        columns_for(arguments)


@given(st.text(max_size=20))
def test_any_option_gives_columns_or_a_refusal(arguments: str) -> None:
    try:
        made = columns_for(arguments)
    except InternalError:
        return
    assert all(isinstance(value(TASK), str) for _, value in made)
