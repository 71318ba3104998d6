"""Patterns of COPY and of .dockerignore."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack import globs
from hyperstack.build import ignore
from hyperstack.errors import InvalidParameter


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.c", "a.c", True),
        ("*.c", "d/a.c", False),
        ("d/*", "d/a", True),
        ("d/*", "d/e/a", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("**", "a", True),
        ("*", "", True),
    ],
)
def test_copy_patterns_are_gos(pattern: str, path: str, fits: bool) -> None:
    assert globs.Glob(pattern).matches(path) is fits


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**", "a/b", True),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "ax", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/c/d/b", True),
        ("a/**/b", "a/cb", False),
        ("a/**", "a/b/c", True),
        ("a**", "ab/c", True),
    ],
)
def test_two_stars_stand_for_directories(pattern: str, path: str, fits: bool) -> None:
    assert globs.Glob(pattern, double=True).matches(path) is fits


def test_a_dockerignore_is_cleaned() -> None:
    text = "\ufeff# c\n\n a/ \n/b/../c\n! d/\n!\n"
    assert ignore.read_ignore(text) == ["a", "c", "!d", "!"]


@pytest.mark.parametrize(
    ("patterns", "left_out"),
    [
        (["Dockerfile"], True),
        (["*"], True),
        (["*", "!Dockerfile"], False),
        (["*", "!Docker*", "Dockerfile"], True),
        (["docker"], False),
        (["**"], True),
    ],
)
def test_the_last_fitting_pattern_decides(patterns: list[str], left_out: bool) -> None:
    assert ignore.ignored("Dockerfile", patterns) is left_out


def test_a_directory_leaves_out_what_is_below() -> None:
    assert ignore.ignored("build/sub/Dockerfile", ["build"])
    with pytest.raises(InvalidParameter, match="illegal exclusion pattern"):
        ignore.ignored("a", ["*", "!"])


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]", "a\\", "[a-]"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match="syntax error in pattern"):
        globs.Glob(pattern)


def test_a_hostile_pattern_takes_little_time() -> None:
    begun = time.process_time()
    assert not globs.Glob("**/a" * 40 + "z", double=True).matches("a/" * 400)
    assert time.process_time() - begun < 2.0


@given(st.text(alphabet="a/*?[]-^\\", max_size=12), st.text(alphabet="a/b", max_size=12))
def test_any_pattern_is_matched_or_refused(pattern: str, path: str) -> None:
    try:
        globs.Glob(pattern, double=True).matches(path)
    except InvalidParameter:
        return
