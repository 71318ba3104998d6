"""Options of ps(1) as ``top`` takes them: which processes, which columns, in which order.

dockerd runs its host's ps and shows what it says of a container's processes. Here procps-ng's
options in all three of its styles are read (ps(1), "COMMAND-LINE OPTIONS"), and its sentences are
given for what is wrong. A guest tells of processes and not of their threads, signals and memory
segments: options for these are refused.
"""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hyperstack.engine.psformat import COLUMNS, Column, Value, share, user
from hyperstack.errors import InternalError
from hyperstack.guest.messages import Task

MOST = 256
"""Words, and columns, of one request."""
_SYSV = frozenset("AFMNZacdefjlwyHCGOUgopqstu")
_SYSV_VALUES = frozenset("CGOUgopqstu")
_BSD = frozenset("AHLNOSTUVXZacefghjklmnopqrstuvwx")
_BSD_VALUES = frozenset("NOUkopqt")
_BSD_FORMATS = {
    "u": "user pid %cpu %mem vsz rss tname stat start bsdtime args",
    "l": "f uid pid ppid priority ni vsz rss wchan stat tname bsdtime args",
    "j": "ppid pid pgid sid tname tpgid stat uid bsdtime args",
    "": "pid tname stat bsdtime args",
}
_LONG = {
    "format": "o", "pid": "p", "quick-pid": "q", "ppid": "P", "user": "u", "User": "U",
    "group": "g", "Group": "G", "sid": "s", "tty": "t", "sort": "k",
}  # fmt: skip
_BARE = {"forest": "f", "no-headers": "h", "no-heading": "h", "headers": "", "cumulative": "",
         "deselect": "N", "info": "h", "version": "h", "help": "h"}  # fmt: skip
_NO_PID = "Couldn't find PID field in ps output"


class _BadSyntax(Exception):
    """The words make no sense in this style."""


@dataclass
class _Asked:
    """What the words said."""

    sysv: set[str] = field(default_factory=set)
    bsd: set[str] = field(default_factory=set)
    columns: list[str] = field(default_factory=list)
    around: list[str] = field(default_factory=list)
    """Columns of -O, beside the usual ones."""
    tests: list[Callable[[Task], bool]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    headless: bool = False
    forest: bool = False
    negated: bool = False

    def value(self, letter: str, text: str) -> None:
        """Take the value of an option."""
        if letter == "o":
            self.columns.append(text)
        elif letter == "O":
            self.around.append(text)
        elif letter == "k":
            self.order += text.split(",")
        else:
            self.tests.append(_test(letter, text))


@dataclass(frozen=True, kw_only=True)
class View:
    """What is to be shown."""

    columns: tuple[Column, ...]
    chosen: Callable[[Task], bool]
    order: tuple[tuple[Value, bool], ...] = ()
    """Keys to sort by, and whether downwards."""
    forest: bool = False

    def rows(self, tasks: tuple[Task, ...]) -> Iterator[list[str]]:
        """Yield the fields of each line, as one finds them who splits ps's lines at blanks."""
        found = [task for task in tasks if self.chosen(task)]
        for value, down in reversed(self.order):
            found.sort(key=lambda task: _sortable(value(task)), reverse=down)
        last = len(self.columns) - 1
        for task in found:
            cells = [value(task) for _, value in self.columns]
            if self.forest:
                cells[-1] = f"\\_ {cells[-1]}"
            words = " ".join(cells).split()
            yield [*words[:last], " ".join(words[last:])]


def _sortable(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def view(ps_args: str, memory: int) -> View:
    """Return what *ps_args* ask for, of a machine with *memory* bytes.

    Raises InternalError in ps's words, as dockerd.
    """
    words = ps_args.split() or ["-ef"]
    if len(words) > MOST:
        raise InternalError(f"ps: more than {MOST} words")
    try:
        return _view(_read(words, force_bsd=False), memory)
    except _BadSyntax as error:
        if not any(re.match(r"-[A-Za-z]", word) for word in words):
            raise InternalError(f"ps: error: {error}") from None
        try:  # as ps: "ps -aux" meant "ps aux" once
            return _view(_read(words, force_bsd=True), memory)
        except (_BadSyntax, InternalError):
            raise InternalError(f"ps: error: {error}") from None


def _view(asked: _Asked, memory: int) -> View:
    columns = tuple(_columns(asked, memory))
    if asked.headless or not any(title == "PID" for title, _ in columns):
        raise InternalError(_NO_PID)
    order = tuple((_named(key.lstrip("+-"), memory)[1], key.startswith("-")) for key in asked.order)
    return View(columns=columns, chosen=_chosen(asked), order=order, forest=asked.forest)


def _read(words: list[str], *, force_bsd: bool) -> _Asked:
    asked = _Asked()
    left = list(reversed(words))
    while left:
        word = left.pop()
        if word.startswith("--"):
            _long(asked, word[2:], left)
        elif word.startswith("-") and len(word) > 1 and not force_bsd:
            _letters(
                asked, word[1:], left, asked.sysv, _SYSV, _SYSV_VALUES, "unsupported SysV option"
            )
        elif re.match(r"-?[A-Za-z]", word):
            text = word.removeprefix("-")
            _letters(
                asked, text, left, asked.bsd, _BSD, _BSD_VALUES, "unsupported option (BSD syntax)"
            )
        elif re.fullmatch(r"[0-9,]+", word):
            asked.tests.append(_test("p", word))
        else:
            raise _BadSyntax("garbage option")
    return asked


def _letters(
    asked: _Asked,
    text: str,
    left: list[str],
    seen: set[str],
    known: frozenset[str],
    valued: frozenset[str],
    unsupported: str,
) -> None:
    for place, letter in enumerate(text):
        if letter in "LTmVX" or (seen is asked.bsd and letter in "HSsv"):
            _refuse(letter, seen is asked.bsd)
        if letter not in known:
            raise _BadSyntax(unsupported)
        seen.add(letter)
        if letter in valued:
            rest = text[place + 1 :]
            if not rest and not left:
                if seen is asked.bsd and letter == "t":
                    continue
                raise _BadSyntax(_MISSING.get(letter, "list of process IDs must follow -p"))
            asked.value(letter, rest or left.pop())
            return
        if seen is asked.bsd and letter == "f":
            asked.forest = True
        elif seen is asked.bsd and letter == "h":
            asked.headless = True
        elif seen is asked.sysv and letter == "N":
            asked.negated = True


_MISSING = {
    "o": "format specification must follow -o",
    "O": "format or sort specification must follow -O",
    "C": "list of command names must follow -C",
    "u": "list of users must follow -u",
    "U": "list of real users must follow -U",
    "G": "list of real groups must follow -G",
    "g": "list of session leaders OR effective group IDs must follow -g",
    "s": "list of session IDs must follow -s",
    "t": "list of terminals (pty, tty...) must follow -t",
    "k": "long sort specification must follow 'k'",
}


def _refuse(letter: str, bsd: bool) -> None:
    if letter == "V":
        raise InternalError(_NO_PID)  # a version has none
    raise InternalError(
        f"ps: a guest tells of processes alone, not of their threads, signals or segments: option "
        f"{'' if bsd else '-'}{letter} is not supported"
    )


def _long(asked: _Asked, text: str, left: list[str]) -> None:
    name, equals, value = text.partition("=")
    if name in _LONG:
        if not equals and not left:
            missing = _MISSING.get(_LONG[name], "list of process IDs must follow -p")
            raise _BadSyntax(f"{missing.rpartition(' ')[0]} --{name}")
        asked.value(_LONG[name], value if equals else left.pop())
    elif name in _BARE and not equals:
        asked.forest |= _BARE[name] == "f"
        asked.headless |= _BARE[name] == "h"
        asked.negated |= _BARE[name] == "N"
    else:
        raise _BadSyntax("unknown gnu long option")


def _test(letter: str, text: str) -> Callable[[Task], bool]:
    """Return the test of a list of processes, users, sessions ..."""
    items = {item for item in re.split(r"[,\s]+", text) if item}
    if letter in "pqP" and not all(map(str.isdecimal, items)):
        raise _BadSyntax("process ID list syntax error")
    if letter in "uU":
        for name in items:
            _check_user(name)
        return lambda t: not items.isdisjoint((user(t), str(t.uid)))
    if letter == "G":
        items = {_group(name) for name in items}
    fields: dict[str, Callable[[Task], str]] = {
        "p": lambda t: str(t.pid),
        "q": lambda t: str(t.pid),
        "P": lambda t: str(t.ppid),
        "C": lambda t: t.comm,
        "g": lambda t: str(t.sid),
        "s": lambda t: str(t.sid),
        "G": lambda t: str(t.gid),
        "t": lambda t: t.tty or "?",
    }
    value = fields.get(letter)
    if value is None:
        raise _BadSyntax("unsupported option (BSD syntax)")
    return lambda t: value(t) in items


def _check_user(name: str) -> None:
    """As ps, which looks its host's users up; "ps -aux" is told by this from "ps aux"."""
    if name.isdecimal():
        return
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise _BadSyntax("user name does not exist") from None


def _group(name: str) -> str:
    try:
        return name if name.isdecimal() else str(grp.getgrnam(name).gr_gid)
    except (KeyError, ValueError):
        raise _BadSyntax("group name does not exist") from None


def _chosen(asked: _Asked) -> Callable[[Task], bool]:
    tests = asked.tests
    everybody = not tests or bool(asked.sysv & set("Ae"))
    if asked.negated:
        return lambda t: not (everybody or any(test(t) for test in tests))
    return lambda t: everybody or any(test(t) for test in tests)


def _named(text: str, memory: int) -> Column:
    """Return a column by its name, ``pid``, ``pid:10`` or ``pid=TITLE``."""
    name, equals, title = text.partition("=")
    bare = re.sub(r":[0-9]{1,4}\Z", "", name)
    column = share(memory) if bare in ("%mem", "pmem") else COLUMNS.get(bare.lower())
    if column is None:
        raise InternalError(f'ps: error: unknown user-defined format specifier "{name[:60]}"')
    return (title, column[1]) if equals else column


def _custom(text: str, memory: int) -> list[Column]:
    items = text.removesuffix(",").split(",")
    if not all(items):
        raise InternalError("ps: error: improper format list")
    return [_named(item, memory) for item in items]


def _columns(asked: _Asked, memory: int) -> Iterator[Column]:
    formats = asked.sysv & set("FfjlcZM") or asked.bsd & set("ujlZ")
    if asked.columns:
        if formats:
            raise InternalError("ps: exit status 1")  # what dockerd has of "conflicting options"
        made = [column for text in asked.columns for column in _custom(text, memory)]
        if len(made) > MOST:
            raise InternalError(f"ps: more than {MOST} columns")
        yield from made
        return
    if asked.around:
        yield COLUMNS["pid"]
        for text in asked.around:
            yield from _custom(text, memory)
        yield from (_named(name, memory) for name in "s tname time args".split())
        return
    if "y" in asked.sysv and "l" not in asked.sysv:
        raise InternalError("ps: error: modifier -y without format -l makes no sense")
    bsd = bool(asked.bsd) and not asked.sysv & set("Ffjlc")
    for name in _bsd(asked.bsd) if bsd else _sysv(asked.sysv):
        title, value = ("UID", user) if name == "uid_hack" else _named(name, memory)
        yield title, value


def _bsd(letters: set[str]) -> list[str]:
    style = next((letter for letter in "ulj" if letter in letters), "")
    names = _BSD_FORMATS[style].split()
    if "c" in letters:
        names[-1] = "ucomm"
    return ["label", *names] if "Z" in letters else names


def _sysv(letters: set[str]) -> Iterator[str]:
    full, long, extra = bool(letters & set("fF")), "l" in letters, "F" in letters
    if letters & set("ZM"):
        yield "label"
    if long:
        yield from () if "y" in letters else ("f",)
        yield from ("s", "uid")
    elif full:
        yield "uid_hack"
    yield "pid"
    if full or long:
        yield "ppid"
    if "j" in letters:
        yield from ("pgid", "sid")
    if "c" in letters:
        yield from ("cls", "pri")
    elif full or long:
        yield "c"
    if long and "c" not in letters:
        yield from ("opri", "ni")
    if long:
        yield "rss" if "y" in letters else "addr"
    if long or extra:
        yield "sz"
    if long:
        yield "wchan"
    if extra:
        yield from ("rss", "psr")
    if full:
        yield "stime"
    yield from ("tname", "time", "cmd" if full else "ucmd")
