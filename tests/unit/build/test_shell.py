"""Variables, quotes and words of instructions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.build import shell
from hyperstack.errors import InvalidParameter

VARIABLES = {"A": "1", "E": "", "S": "x  y", "LONG_name2": "n"}


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("$A", "1"),
        ("${A}b", "1b"),
        ("$Ab", ""),
        ("\\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A\\"\\$\\n"', '1"$\\n'),
        ("a\\ b", "a b"),
        ("$", "$"),
        ("$ ", "$ "),
        ("$LONG_name2-", "n-"),
        ("${U:-d}${E:-d}${E-d}${A:-d}", "dd1"),
        ("${U:+d}${E:+d}${E+d}${A:+d}", "dd"),
        ("${A:?no}", "1"),
        ("${U:-${A}x'}'}", "1x}"),
        ("${U:-$S}", "x  y"),
        ("tail\\", "tail"),
        ("äö$A", "äö1"),
    ],
)
def test_words_are_expanded_as_docker_does(word: str, made: str) -> None:
    assert shell.expand(word, VARIABLES) == made


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("${A", "unsupported modifier (\ufffd) in substitution"),
        ("${A:", "missing '}'"),
        ("${A:}", "missing '}'"),
        ("${A:x}", "unsupported modifier (:x) in substitution"),
        ("${A:#x}", "unsupported modifier (:#) in substitution"),
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("'a", "looking for matching single-quote"),
        ('"a', "looking for matching double-quote"),
        ("${A!x}", "unsupported modifier (!) in substitution"),
        ("${A:=x}", "unsupported modifier (:=) in substitution"),
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${U:?why}", "U: why"),
        ("${U-" * 40, "nested too deep"),
    ],
)
def test_a_bad_word_is_refused(word: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        shell.expand(word, VARIABLES)
    assert caught.value.message.startswith('failed to process "')
    assert words in caught.value.message


def test_the_escape_character_is_the_files_own() -> None:
    assert shell.expand("`$A c:\\d", VARIABLES, "`") == "$A c:\\d"
    assert shell.split("a` b c", "`") == ["a` b", "c"]


def test_words_of_a_value_are_divided_unless_quoted() -> None:
    assert shell.expand_words("$S '$S' \"$S\"z", VARIABLES) == ["x", "y", "$S", "x  yz"]


def test_splitting_keeps_quotes() -> None:
    assert shell.split("a=\"b c\" 'd e'=f g\\ h  ", "\\") == ['a="b c"', "'d e'=f", "g\\ h"]


def test_an_expansion_is_bounded() -> None:
    with pytest.raises(InvalidParameter, match="too long"):
        shell.expand("$B" * 1000, {"B": "x" * 10_000})


def test_go_quotes() -> None:
    assert shell.go_quote('a"\\\n\x01é\u200b') == '"a\\"\\\\\\n\\x01é\\u200b"'


@given(st.text(alphabet="${}:-+?'\"\\A B_", max_size=60))
def test_any_word_is_expanded_or_refused(word: str) -> None:
    try:
        made = shell.expand(word, VARIABLES)
        assert "".join(shell.expand_words(word, VARIABLES)) is not None
    except InvalidParameter:
        return
    assert len(made) <= len(word) * 4
