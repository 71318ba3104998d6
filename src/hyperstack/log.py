"""Logging: the standard library's, one line a record, with the object's id from the context.

Levels: error = the operator must act, warning = degraded or isolation weakened, info = life cycle,
debug = wire.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_subject: ContextVar[str] = ContextVar("subject", default="")


@contextmanager
def about(subject: str) -> Iterator[None]:
    """Name the container, sandbox or image that log lines inside the block are about."""
    token = _subject.set(subject)
    try:
        yield
    finally:
        _subject.reset(token)


def one_line(text: str) -> str:
    """Return *text* with every character escaped that could act on a terminal or forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        subject = _subject.get()
        record.subject = f" [{subject[:12]}]" if subject else ""
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        # Guests, images and clients are quoted in messages; a traceback comes after this.
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        # Indented, so that no line of a quoted text looks like a record.
        lines = super().formatException(ei).splitlines()
        return "\n".join(f"    {one_line(line)}" for line in lines)


def setup(level: str) -> None:
    """Send all records of *level* (debug, info, warn, error, fatal) and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Formatter(
            "%(asctime)s.%(msecs)03d %(levelname)s%(subject)s %(name)s: %(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )
    )
    names = {
        "debug": logging.DEBUG,
        "info": logging.INFO,
        "warn": logging.WARNING,
        "warning": logging.WARNING,
        "error": logging.ERROR,
        "fatal": logging.CRITICAL,
    }
    logging.basicConfig(level=names[level], handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.INFO)
