from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import ps
from hyperstack.errors import InternalError
from hyperstack.guest.messages import Task

MEMORY = 1 << 20
TASK = Task(
    pid=7, ppid=1, uid=1000, gid=100, user="me", state="S", cmdline="sleep 600", comm="sleep",
    utime=12_345, stime=55, vsz=4096, rss=512, priority=20, sid=7, pgid=7, threads=1,
    tty="pts/0",
)  # fmt: skip
INIT = dataclasses.replace(TASK, pid=1, ppid=0, uid=0, user="root", comm="sh", cmdline="sh -c  x")


def titles(arguments: str) -> list[str]:
    return [title for title, _ in ps.view(arguments, MEMORY).columns]


def rows(arguments: str, *tasks: Task) -> list[list[str]]:
    return list(ps.view(arguments, MEMORY).rows(tasks or (TASK,)))


def pids(arguments: str) -> list[str]:
    return [row[0] for row in rows(arguments, INIT, TASK)]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", "UID PID PPID C STIME TTY TIME CMD"),
        ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
        ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("-aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("-o pid,comm", "PID COMMAND"),
        ("-eo pid,args", "PID COMMAND"),
        ("-o pid -o rss", "PID RSS"),
        ("-opid", "PID"),
        ("o pid:10", "PID"),
        ("--format=pid,user", "PID USER"),
        ("--format pid,", "PID"),
        ("-o pid=PID,comm=WHAT,rss", "PID WHAT RSS"),
        ("-e", "PID TTY TIME CMD"),
        ("ax", "PID TTY STAT TIME COMMAND"),
        ("-x", "PID TTY STAT TIME COMMAND"),
        ("p 1", "PID TTY STAT TIME COMMAND"),
        ("-el", "F S UID PID PPID C PRI NI ADDR SZ WCHAN TTY TIME CMD"),
        ("-ely", "S UID PID PPID C PRI NI RSS SZ WCHAN TTY TIME CMD"),
        ("-F", "UID PID PPID C SZ RSS PSR STIME TTY TIME CMD"),
        ("-Fl", "F S UID PID PPID C PRI NI ADDR SZ WCHAN RSS PSR STIME TTY TIME CMD"),
        ("-ejH", "PID PGID SID TTY TIME CMD"),
        ("-c", "PID CLS PRI TTY TIME CMD"),
        ("axl", "F UID PID PPID PRI NI VSZ RSS WCHAN STAT TTY TIME COMMAND"),
        ("axjf", "PPID PID PGID SID TTY TPGID STAT UID TIME COMMAND"),
        ("Z", "LABEL PID TTY STAT TIME COMMAND"),
        ("-O rss", "PID RSS S TTY TIME COMMAND"),
    ],
)
def test_options_choose_columns(arguments: str, wanted: str) -> None:
    assert titles(arguments) == wanted.split()


def test_values_are_written_as_ps_writes_them() -> None:
    task = dataclasses.replace(TASK, start_ns=time.time_ns() - 90_061 * 10**9)
    arguments = (
        "-o pid,user,uid,comm,time,vsz,rss,tty,etime,etimes,pri,opri,priority,%mem,stat,args"
    )
    assert rows(arguments, task) == [
        ["7", "me", "1000", "sleep", "00:02:04", "4096", "512", "pts/0", "1-01:01:01", "90061",
         "19", "80", "20", "50.0", "Ss", "sleep 600"],
    ]  # fmt: skip


def test_a_kernel_thread_is_in_brackets_and_a_nameless_user_a_number() -> None:
    thread = Task(pid=2, uid=5, comm="kworker")
    assert rows("-o pid,user,args", thread) == [["2", "5", "[kworker]"]]


def test_lines_are_split_at_blanks_whatever_is_in_them() -> None:
    assert rows("-o pid,args", INIT) == [["1", "sh -c x"]]
    assert rows("axfo pid,args", INIT) == [["1", "\\_ sh -c x"]]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("-o pid", "1 7"),
        ("-o pid --sort=-pid", "7 1"),
        ("-o pid --sort comm", "1 7"),
        ("-o pid -p 7", "7"),
        ("-o pid --pid 7,1", "1 7"),
        ("-o pid 7", "7"),
        ("-o pid -C sh", "1"),
        ("-o pid -u root", "1"),
        ("-o pid -u 1000", "7"),
        ("-o pid --ppid 1", "7"),
        ("-eo pid -C sh", "1 7"),
        ("-o pid -N -C sh", "7"),
        ("-N -o pid", ""),
        ("-o pid -G users", "1 7"),
        ("-o pid -G 5", ""),
    ],
)
def test_processes_are_chosen_and_ordered(arguments: str, wanted: str) -> None:
    assert pids(arguments) == wanted.split()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-o wings", 'ps: error: unknown user-defined format specifier "wings"'),
        ("-o comm", "Couldn't find PID field in ps output"),
        ("-ef --no-headers", "Couldn't find PID field in ps output"),
        ("-o", "ps: error: format specification must follow -o"),
        ("--format", "ps: error: format specification must follow --format"),
        ("-ef -o pid", "ps: exit status 1"),
        ("bogus", "ps: error: unsupported option (BSD syntax)"),
        ("-bogus", "ps: error: unsupported SysV option"),
        ("--bogus", "ps: error: unknown gnu long option"),
        ("; reboot", "ps: error: garbage option"),
        ("-y", "ps: error: modifier -y without format -l makes no sense"),
        ("-u nosuchuser", "ps: error: user name does not exist"),
        ("-o ,pid", "ps: error: improper format list"),
        ("-C", "ps: error: list of command names must follow -C"),
    ],
)
def test_what_ps_does_not_know_is_refused_in_its_words(arguments: str, words: str) -> None:
    with pytest.raises(InternalError) as refused:
        ps.view(arguments, MEMORY)
    assert refused.value.message == words


@pytest.mark.parametrize("arguments", ["-eL", "-T", "axm", "s", "axv", "X", "--" + "x" * 300])
def test_what_no_guest_tells_is_refused(arguments: str) -> None:
    with pytest.raises(InternalError):
        ps.view(arguments, MEMORY)


@given(st.text(max_size=20) | st.text("-aefuxo pid,=:1CN", max_size=20))
def test_any_option_gives_columns_or_a_refusal(arguments: str) -> None:
    try:
        view = ps.view(arguments, MEMORY)
    except InternalError:
        return
    for row in view.rows((INIT, TASK)):
        assert all(isinstance(value, str) for value in row)
