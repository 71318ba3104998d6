"""Points in time as Docker's filters write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InvalidParameter
from hyperstack.until import parse_duration, parse_time, parse_until

S = 10**9
NOW = 1_700_000_000 * S


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1h30m", 5400 * S), ("1.5s", 1_500_000_000), ("-2m", -120 * S), ("100ms", 10**8),
        ("3us", 3000), ("3µs", 3000), (".5h", 1800 * S), ("1h", 3600 * S), ("7ns", 7),
    ],
)  # fmt: skip
def test_go_durations_are_read(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1d", "1h ", "one", "1h-2m", "1..5s", "9" * 400 + "h"]
)
def test_what_is_no_duration_is_none(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000", NOW),
        ("1700000000.5", NOW + 500_000_000),
        ("1700000000.000000001", NOW + 1),
        ("10m", NOW - 600 * S),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T22:13:20.000000005Z", NOW + 5),
        ("2023-11-14T23:13:20+01:00", NOW),
        ("2023-11-14", NOW - (22 * 3600 + 13 * 60 + 20) * S),
    ],
)
def test_times_are_read(text: str, ns: int) -> None:
    assert parse_time(text, NOW) == ns


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_time(text, NOW), int)
    except InvalidParameter as error:
        assert "failed to parse value as time or duration" in error.message  # noqa: PT017  # both ways out are right


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 400 + "s", "soon", "2023-13-40"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="failed to parse value as time or duration"):
        parse_time(text, NOW)


def test_an_until_filter_has_one_value() -> None:
    assert parse_until([], NOW) is None
    assert parse_until(["1s"], NOW) == NOW - S
    with pytest.raises(InvalidParameter, match="more than one until filter specified"):
        parse_until(["1s", "2s"], NOW)
