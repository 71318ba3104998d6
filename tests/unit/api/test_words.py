"""Filters, queries, detach keys, frames, times: the small languages of the API."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.api.docker import detach, filters, gotime, progress, stdcopy
from hyperstack.api.docker.query import Query
from hyperstack.api.docker.router import TooOld, check_version, cleaned, split_version
from hyperstack.api.docker.routes.container_files import go_mode
from hyperstack.errors import InvalidParameter
from hyperstack.image.progress import Progress
from hyperstack.model import StreamKind


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("null", {}),
        ('{"label":{"a=b":true,"c":false}}', {"label": ["a=b", "c"]}),
        ('{"label":["a=b","a=b"]}', {"label": ["a=b"]}),
        ('{"a":null}', {"a": []}),
        ('{"a":{"b":null},"c":[null]}', {"a": ["b"], "c": [""]}),
    ],
)
def test_filters_are_read_in_both_spellings(text: str, value: dict[str, list[str]]) -> None:
    assert filters.parse(text) == value


@pytest.mark.parametrize("text", ["{", "[]", '{"a":1}', '{"a":[1]}', '{"a":{"b":1}}', "x"])
def test_malformed_filters_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter"):
        filters.parse(text)


def test_a_filter_that_nobody_knows_is_named() -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'zz'"):
        filters.check({"zz": []}, ("label",))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", False),
        ("a=", False),
        ("a=0", False),
        ("a=no", False),
        ("a=FALSE", False),
        ("a=none", False),
        ("a=1", True),
        ("a=yes", True),
        ("a=anything", True),
        ("a=+false+", False),
    ],
)
def test_a_flag_is_everything_but_these_words(text: str, value: bool) -> None:
    assert Query(text).flag("a") is value


def test_numbers_are_refused_in_gos_words() -> None:
    assert Query("n=-3").integer("n") == -3
    assert Query("").optional_integer("n") is None
    with pytest.raises(InvalidParameter, match=r'strconv\.Atoi: parsing "x": invalid syntax'):
        Query("n=x").integer("n")
    with pytest.raises(InvalidParameter, match=r'parsing "\\"\\x00": invalid syntax'):
        Query("n=%22%00").integer("n")


def test_a_query_has_a_bound() -> None:
    with pytest.raises(InvalidParameter):
        Query("&".join("a=b" for _ in range(2000))).text("a")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a=%zz&b=1", 'invalid URL escape "%zz"'),
        ("b=1&a%2", 'invalid URL escape "%2"'),
        ("b=1;a=2", "invalid semicolon separator in query"),
    ],
)
def test_a_malformed_query_is_refused_where_it_is_read(text: str, sentence: str) -> None:
    query = Query(text)
    with pytest.raises(InvalidParameter) as refused:
        query.text("c")
    assert refused.value.message == sentence


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-a", b"\x01"),
        ("a,ctrl-@,ctrl-[,ctrl-_", b"a\x00\x1b\x1f"),
    ],
)
def test_detach_keys_are_read(text: str, keys: bytes) -> None:
    assert detach.parse(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-A", "ab", "ctrl-1", "é", ","])
def test_bad_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        detach.parse(text)


@given(
    before=st.binary(max_size=30),
    after=st.binary(max_size=5),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_input_before_the_keys_passes_and_nothing_after(
    before: bytes, after: bytes, cuts: list[int]
) -> None:
    before = before.replace(b"\x10", b"p")
    data = before + b"\x10\x11" + after
    detacher, passed, start = detach.Detacher(b"\x10\x11"), b"", 0
    for cut in [*sorted(c % (len(data) + 1) for c in cuts), len(data)]:
        if not detacher.detached:
            passed += detacher.feed(data[start:cut])
        start = cut
    assert detacher.detached
    assert passed == before


def test_half_a_sequence_is_passed_on_when_it_goes_no_further() -> None:
    detacher = detach.Detacher(b"\x10\x11")
    assert detacher.feed(b"a\x10") == b"a"
    assert detacher.feed(b"b") == b"\x10b"
    assert detacher.feed(b"\x10\x10") == b"\x10"
    assert not detacher.detached


def test_frames_have_dockers_header() -> None:
    assert stdcopy.header(StreamKind.STDERR, 258) == b"\x02\0\0\0\0\0\x01\x02"
    assert stdcopy.media_type(framed=True, versioned=False) == stdcopy.RAW


def test_times_are_gos() -> None:
    assert gotime.rfc3339nano(0) == "0001-01-01T00:00:00Z"
    assert gotime.rfc3339nano(1_500_000_000) == "1970-01-01T00:00:01.5Z"
    assert gotime.rfc3339nano(2_000_000_000) == "1970-01-01T00:00:02Z"
    assert gotime.rfc3339fixed(1_500_000_000) == "1970-01-01T00:00:01.500000000Z"
    assert gotime.http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_spans_are_worded_as_docker_words_them(seconds: float, words: str) -> None:
    assert gotime.human_duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.235MB")]
)
def test_sizes_are_decimal(size: int, words: str) -> None:
    assert gotime.human_size(size) == words


def test_progress_has_dockers_bar() -> None:
    line = progress.line(Progress(status="Downloading", id="abc", current=50, total=100))
    assert line == (
        b'{"status":"Downloading","progressDetail":{"current":50,"total":100},"progress":"['
        + b"=" * 25
        + b">"
        + b" " * 25
        + b']      50B/100B","id":"abc"}\r\n'
    )
    assert progress.line(Progress(status="Pulling from a/b", id="latest")) == (
        b'{"status":"Pulling from a/b","id":"latest"}\r\n'
    )
    assert progress.line(Progress(status="Pull complete", id="abc")) == (
        b'{"status":"Pull complete","progressDetail":{},"id":"abc"}\r\n'
    )
    assert progress.line(Progress(stream="Loaded image: x\n")) == (
        b'{"stream":"Loaded image: x\\n"}\r\n'
    )


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.41/info", "1.41", "/info"),
        ("/info", None, "/info"),
        ("/v1.51.0/info", "1.51.0", "/info"),
        ("/v./info", ".", "/info"),
        ("/v1.x/info", None, "/v1.x/info"),
        ("/v1.41", None, "/v1.41"),
    ],
)
def test_a_version_is_taken_off_the_path(path: str, version: str | None, rest: str) -> None:
    assert split_version(path) == (version, rest)


def test_versions_out_of_range_are_refused_in_dockers_words() -> None:
    assert check_version("1.24") == (1, 24)
    assert check_version("1.51") == (1, 51)
    assert check_version("01.51.0") == (1, 51)
    for text in ("1", "1.", ".", "1..24", "1.9"):
        with pytest.raises(TooOld):
            check_version(text)
    for text in ("2", "1.51.1", "9" * 5000 + ".1"):
        with pytest.raises(InvalidParameter, match="is too new"):
            check_version(text)
    with pytest.raises(InvalidParameter) as old:
        check_version("1.20")
    assert old.value.message == (
        "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade "
        "your client to a newer version"
    )
    with pytest.raises(InvalidParameter) as new:
        check_version("1.99")
    assert new.value.message == (
        "client version 1.99 is too new. Maximum supported API version is 1.51"
    )


@pytest.mark.parametrize(
    ("path", "clean"),
    [("//a//b", "/a/b"), ("/a/../b", "/b"), ("/a/./b", "/a/b"), ("/a/", "/a/"), ("/", "/")],
)
def test_paths_are_cleaned_as_by_gos_mux(path: str, clean: str) -> None:
    assert cleaned(path) == clean


def test_modes_are_gos() -> None:
    assert go_mode(0o100644) == 0o644
    assert go_mode(0o040755) == 1 << 31 | 0o755
    assert go_mode(0o041777) == 1 << 31 | 1 << 20 | 0o777
    assert go_mode(0o120777) == 1 << 27 | 0o777
