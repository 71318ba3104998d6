from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine.pattern import found

TEXTS = ("", "web", "/web_1", "a.b-c", "WEB", "aaaaaaaaab", "proj-web-1", "x\ny")


@pytest.mark.parametrize(
    "pattern",
    [
        "web", "^web$", "^/?web", "w.b", "we+b", "a*b", "a{3}", "a{2,4}b", "a{9,}b", "a{10,}b",
        "(?i)web", "(?:we|x)b", "(w)(e)(b)", "[a-c]", "[^a-z]", "[]a]", r"\d$", r"\bweb\b", r"\.",
        "^$", "$", "a|web|", "(a|b)*c", "(?P<n>a)b", "(?s)x.y", "x.y", "[[:digit:]]", r"\Aweb\z",
        "(a|aa)+b", "a??b", "(a{2}){3}", "proj-.*-1", "(?i:w)eb", r"[\w.]+-c", "a{0}b",
    ],
)  # fmt: skip
def test_an_expression_is_found_where_python_finds_it(pattern: str) -> None:
    own = pattern.replace(r"\z", r"\Z").replace("[[:digit:]]", "[0-9]")
    for text in TEXTS:
        assert found(pattern, text) is (re.search(own, text) is not None), text


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[a", "*a", "a**", "a{2,1}", "a{1001}", "\\", r"\q", "(?!a)", "(?<=a)b",
     "(((a{100}){100}){100})", "(" * 60 + ")" * 60, "[z-a]"],
)  # fmt: skip
def test_what_is_no_expression_of_docker_s_is_none(pattern: str) -> None:
    assert found(pattern, "a") is None


def test_an_expression_made_to_take_for_ever_takes_no_time() -> None:
    for pattern in ("(a+)+$", "(a|a)*$", "(a*)*c", "(.*)*x", "a?" * 30 + "a" * 30 + "$"):
        assert found(f"^{pattern}", "a" * 200 + "!") is False


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the test's own use of re
@given(st.text("ab|()*+?[]^$.{1,2}\\", max_size=12), st.text("ab.(\n", max_size=8))
def test_whatever_is_an_expression_to_both_is_found_by_both(pattern: str, text: str) -> None:
    verdict = found(pattern, text)
    if verdict is None:
        return
    try:
        # Python's $ also means the place before a last newline; Go's does not.
        wanted = re.search(
            pattern.replace("$", r"(?!\n)$") if "\\" not in pattern else pattern, text
        )
    except (re.error, RuntimeError):
        return
    if "\\" not in pattern and "[" not in pattern:
        assert verdict is (wanted is not None)
