"""What strangers say never acts on the terminal of whoever reads the log, and forges no line."""

from __future__ import annotations

import io
import logging

import pytest

from hyperstack.guest.client import MAX_DETAIL, AgentFailure
from hyperstack.log import _Formatter, one_line

HOSTILE = (
    "a\x1b[2Jb\n2026-01-01T00:00:00.000 INFO hyperd: all is well\r\x00\x9b31m\udcff\u202e\u2028"
)


def logged(message: str, *arguments: object, error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter("%(levelname)s%(subject)s: %(message)s"))
    record = logging.LogRecord(
        "x", 20, "x", 1, message, arguments, (type(error), error, None) if error else None
    )
    handler.handle(record)
    return stream.getvalue()


def test_a_hostile_text_is_one_printable_line() -> None:
    text = logged("guest said %s", HOSTILE)
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert text.startswith("INFO: guest said a\\x1b[2Jb\\n2026-01-01")
    text.encode()  # no lone surrogate is left


def test_an_exceptions_words_cannot_begin_a_record() -> None:
    lines = logged("failed", error=ValueError(HOSTILE)).splitlines()
    assert lines[0] == "INFO: failed"
    assert len(lines) > 1
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:])


@pytest.mark.parametrize("text", ["", "plain", "größer 漢字", "tab\\t"])
def test_what_is_printable_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text


def test_an_agents_refusal_is_cut_and_escaped() -> None:
    failure = AgentFailure(5, 0, HOSTILE * 1000)
    assert failure.message.isprintable()
    assert len(failure.message) <= (MAX_DETAIL + 30) * len("\\U00010ffff")
    assert failure.message.endswith("...: Input/output error")
    assert AgentFailure(2).message == "No such file or directory"
    assert AgentFailure(65535).message
