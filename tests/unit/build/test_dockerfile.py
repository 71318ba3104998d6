"""Lines of a Dockerfile: directives, comments, continuations, flags."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.build import dockerfile, instructions
from hyperstack.errors import InvalidParameter


def keywords_and_rests(text: str) -> list[tuple[str, str]]:
    return [(line.keyword, line.rest) for line in dockerfile.read(text).lines]


def test_lines_go_on_over_comments_and_keep_their_first_number() -> None:
    text = "# hi\nFROM x\n\nRUN a \\\n# why\n  && b   \\  \n && c\n  env A b"
    lines = dockerfile.read(text).lines
    assert [(x.keyword, x.rest, x.number) for x in lines] == [
        ("from", "x", 2),
        ("run", "a   && b    && c", 4),
        ("env", "A b", 8),
    ]


def test_the_escape_directive_changes_what_continues_a_line() -> None:
    text = "# escape=`\nRUN a `\n b\nRUN c \\\n"
    assert keywords_and_rests(text) == [("run", "a  b"), ("run", "c \\")]
    assert dockerfile.read(text).escape == "`"


def test_a_directive_behind_a_comment_is_a_comment() -> None:
    assert dockerfile.read("# c\n# escape=`\nFROM x\n").escape == "\\"
    assert dockerfile.read("# syntax=docker/dockerfile:1\n# escape=`\nFROM x\n").escape == "`"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file with no instructions"),
        ("# only\n\n", "file with no instructions"),
        ("# escape=x\nFROM a", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\n", "only one escape parser directive can be used"),
        ("RUN " + "x" * 70_000, "dockerfile line greater than max allowed size of 65535"),
    ],
)
def test_what_is_no_dockerfile_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        dockerfile.read(text)
    assert caught.value.message == words


def test_an_empty_continuation_line_is_warned_of() -> None:
    warnings = dockerfile.read("RUN a \\\n\n b\n").warnings
    assert warnings[0] == "[WARNING]: Empty continuation line found in: RUN a  b"
    assert len(warnings) == 2


@pytest.mark.parametrize(
    ("text", "rests"),
    [
        ("RUN <<EOF\na\nb\nEOF\nRUN c", ["<<EOF", "c"]),
        ("COPY <<'E F' <<-B /x\n1\nE F\n2\n\tB\nRUN c", ["<<'E F' <<-B /x", "c"]),
        ("ONBUILD RUN <<E\nE\nRUN c", ["RUN <<E", "c"]),
        ("ENV A=<<E\nRUN c", ["A=<<E", "c"]),
        ('RUN ["<<E"]\nRUN c', ['["<<E"]', "c"]),
        ("RUN a <<< b\nRUN c", ["a <<< b", "c"]),
    ],
)
def test_the_lines_of_here_documents_are_passed_over(text: str, rests: list[str]) -> None:
    assert [line.rest for line in dockerfile.read(text).lines] == rests


def test_a_here_document_without_its_end_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="unterminated heredoc"):
        dockerfile.read("RUN <<EOF\n EOF\n")


def test_flags_are_taken_off_with_their_quotes() -> None:
    (line,) = dockerfile.read('COPY --from=a --chown="x y" -- --b c\n').lines
    assert line.flags == ("--from=a", "--chown=x y")
    assert line.rest == "--b c"


def test_carriage_returns_and_a_byte_order_mark_are_left_out() -> None:
    assert keywords_and_rests("\ufeffFROM x\r\nRUN a \\\r\n b\r\n") == [
        ("from", "x"),
        ("run", "a  b"),
    ]


@given(st.text(alphabet="FROM RUNab\\`\"'$#=\n\r[]{}<-: \t", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidParameter):
        assert instructions.parse(text).escape in "\\`"
