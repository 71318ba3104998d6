from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.api.docker.mediatype import check_json
from hyperstack.errors import InvalidParameter


@pytest.mark.parametrize(
    "header",
    [
        "application/json",
        "APPLICATION/JSON",
        " application/json ; charset=utf-8",
        'application/json; a="b;c"; d=e',
        "application/json;",
    ],
)
def test_json_may_be_said_in_many_ways(header: str) -> None:
    check_json(header)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "malformed Content-Type header (): mime: no media type"),
        ("text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        ("bad", "unsupported Content-Type header (bad): must be"),
        ("a/b/c", "(a/b/c): mime: unexpected content after media subtype"),
        ("a/", "mime: expected token after slash"),
        ("application/json; charset", "mime: invalid media parameter"),
        ("application/json; a=b; A=c", "mime: duplicate parameter name"),
    ],
)
def test_another_type_is_refused_in_gos_words(header: str, words: str) -> None:
    # Compared with dockerd 28.5.
    with pytest.raises(InvalidParameter, match=re.escape(words)):
        check_json(header)


@given(st.text(max_size=60))
def test_any_header_is_json_or_refused(header: str) -> None:
    try:
        check_json(header)
    except InvalidParameter:
        return
    assert header.strip().lower().startswith("application/json")
