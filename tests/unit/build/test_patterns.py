"""Patterns of the shell in substitutions."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.build import shell
from hyperstack.build.patterns import ShellPattern
from hyperstack.errors import InvalidParameter

VARIABLES = {"A": "foobarbaz.tar.gz", "P": "/usr/local/bin", "S": "a*b?c"}


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("${A#*a}", "rbaz.tar.gz"),
        ("${A##*a}", "r.gz"),
        ("${A%.*}", "foobarbaz.tar"),
        ("${A%%.*}", "foobarbaz"),
        ("${A/a/X}", "foobXrbaz.tar.gz"),
        ("${A//a/X}", "foobXrbXz.tXr.gz"),
        ("${A/foo*r/Q}", "Q.gz"),
        ("${A#x}", "foobarbaz.tar.gz"),
        ("${A#???}", "barbaz.tar.gz"),
        ("${P//\\//_}", "_usr_local_bin"),
        ("${S#a\\*}", "b?c"),
        ("${S//\\?/}", "a*bc"),
        ("${U#a}", ""),
    ],
)
def test_patterns_cut_and_replace_as_docker_does(word: str, made: str) -> None:
    assert shell.expand(word, VARIABLES) == made


def test_a_pattern_that_would_take_long_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="too long"):
        shell.expand("${A//" + "*a" * 2000 + "/x}", {"A": "a" * 10_000})


@given(st.text(alphabet="ab*?", max_size=6), st.text(alphabet="abc", max_size=12))
def test_matching_is_that_of_a_regular_expression(pattern: str, text: str) -> None:
    body = "".join({"*": ".*", "?": "."}.get(c, c) for c in pattern)
    lazy = body.replace(".*", ".*?")
    found = ShellPattern(pattern)
    assert found.without_prefix(text, longest=True) == re.sub(f"\\A(?:{body})", "", text, count=1)
    assert found.without_prefix(text, longest=False) == re.sub(f"\\A(?:{lazy})", "", text, count=1)
    match = re.search(body, text)
    once = text if match is None else text[: match.start()] + "_" + text[match.end() :]
    assert found.replaced(text, "_", every=False) == once


@given(st.text(alphabet="${}#%/*?\\'\"AP-", max_size=30))
def test_any_pattern_is_expanded_or_refused(word: str) -> None:
    with contextlib.suppress(InvalidParameter):
        shell.expand(word, VARIABLES)
