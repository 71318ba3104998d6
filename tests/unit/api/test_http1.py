from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.api.docker.errors import STATUS
from hyperstack.api.docker.http1 import (
    MAX_CHUNK_LINE,
    REASONS,
    BodyReader,
    ProtocolError,
    head_end,
    parse_head,
    response_head,
)

GOOD = b"GET / HTTP/1.1\r\nHost: d"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b"GET  / HTTP/1.1\r\nHost: d", 400),
        (b"GET / HTTP/2.0\r\nHost: d", 505),
        (b"GET / HTTP/1.1\r\nHost: d\r\nHost: e", 400),
        (b"G\x01T / HTTP/1.1\r\nHost: d", 400),
        (b"GET /\x80 HTTP/1.1\r\nHost: d", 400),
        (GOOD + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (GOOD + b"\r\nContent-Length: 1\r\nContent-Length: 1", 400),
        (GOOD + b"\r\nContent-Length: +1", 400),
        (GOOD + b"\r\nContent-Length: 1, 1", 400),
        (GOOD + b"\r\nContent-Length: ", 400),
        (GOOD + b"\r\nTransfer-Encoding: gzip, chunked", 501),
        (GOOD + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked", 400),
        (GOOD + b"\r\nA : b", 400),
        (GOOD + b"\r\n folded", 400),
        (GOOD + b"\r\nA: b\rC: d", 400),
        (b"GET x HTTP/1.1\r\nHost: d", 400),
        (b"GET * HTTP/1.1\r\nHost: d", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: d", 400),
        (b"GET / HTTX/1.1\r\nHost: d", 400),
        (b"GET / HTTP/1.1\r\nHost: a b", 400),
        (GOOD + b"\r\nExpect: miracles", 417),
        (GOOD + b"\r\nA: b\x00c", 400),
        (GOOD + b"\r\nno colon", 400),
        (GOOD + b"\r\na: b" * 300, 431),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_head(head)
    assert caught.value.status == status


def test_a_head_is_taken_apart() -> None:
    head = parse_head(
        b"POST /v1.41/x?a=b HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"X-A: 1\r\nX-A:  2 \r\nContent-Length: 5\r\nExpect: 100-continue"
    )
    assert (head.method, head.target, head.minor) == ("POST", "/v1.41/x?a=b", 1)
    assert (head.upgrade, head.length, head.keep_alive) == ("tcp", 5, True)
    assert head.headers["x-a"] == "1, 2"
    assert head.expects_continue


@pytest.mark.parametrize(
    ("line", "headers", "kept"),
    [
        (b"GET / HTTP/1.1", b"Host: d", True),
        (b"GET / HTTP/1.1", b"Host: d\r\nConnection: close", False),
        (b"GET / HTTP/1.0", b"Host: d", False),
        (b"GET / HTTP/1.0", b"Connection: Keep-Alive", True),
    ],
)
def test_connections_are_kept_as_the_version_says(line: bytes, headers: bytes, kept: bool) -> None:
    assert parse_head(line + b"\r\n" + headers).keep_alive is kept


@pytest.mark.parametrize(
    ("line", "target", "host"),
    [
        (b"GET http://h:1/a?b=c HTTP/1.1", "/a?b=c", "h:1"),
        (b"GET HTTPS://h HTTP/1.1", "", "h"),
        (b"OPTIONS * HTTP/1.1", "*", "d"),
        (b"GET /a%2fb HTTP/1.9", "/a%2fb", "d"),
    ],
)
def test_targets_have_several_forms(line: bytes, target: str, host: str) -> None:
    head = parse_head(line + b"\r\nHost: d")
    assert (head.target, head.headers["host"]) == (target, host)


def test_lines_of_a_head_may_end_with_a_line_feed_alone() -> None:
    data = b"GET / HTTP/1.1\nHost: d\r\nA: b\n\nrest"
    end, after = head_end(data, 0)
    assert data[after:] == b"rest"
    assert parse_head(data[:end]).headers == {"host": "d", "a": "b"}


def test_an_upgrade_needs_the_connection_header() -> None:
    assert parse_head(GOOD + b"\r\nUpgrade: tcp").upgrade == ""


def _read(reader: BodyReader, data: bytes, cuts: list[int]) -> bytes:
    body, start = b"", 0
    for cut in [*sorted(c % (len(data) + 1) for c in cuts), len(data)]:
        if reader.done:
            reader.rest += data[start:cut]
        elif cut > start:
            body += b"".join(reader.feed(data[start:cut]))
        start = cut
    return body


@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    cuts=st.lists(st.integers(0, 500), max_size=12),
    rest=st.binary(max_size=8),
)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    parts: list[bytes], cuts: list[int], rest: bytes
) -> None:
    wire = b"".join(b"%x;x=y\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\nT: v\r\n\r\n"
    reader = BodyReader(None)
    assert _read(reader, wire + rest, cuts) == b"".join(parts)
    assert reader.done
    assert reader.rest == rest


@given(
    body=st.binary(min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 100), max_size=8),
    rest=st.binary(max_size=8),
)
def test_a_counted_body_ends_where_it_says(body: bytes, cuts: list[int], rest: bytes) -> None:
    reader = BodyReader(len(body))
    assert _read(reader, body + rest, cuts) == body
    assert reader.rest == rest


def _feed(wire: bytes) -> None:
    reader = BodyReader(None)
    for start in range(0, len(wire), 1000):
        reader.feed(wire[start : start + 1000])


@pytest.mark.parametrize(
    "wire",
    [
        b"x\r\n",
        b"-1\r\n",
        b"1 2\r\n",
        b"1\r\nab\r\n",
        b"1\nab",
        b"1234567890123456\r\n",
        b"1;" + b"x" * MAX_CHUNK_LINE + b"\r\n",
        b"0\r\n" + b"a: b\r\n" * 3000,
    ],
)
def test_malformed_chunks_end_the_connection(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        _feed(wire + b"x" * (MAX_CHUNK_LINE + 2))


@given(st.binary(max_size=100))
def test_any_head_is_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        parse_head(data)


def test_a_header_value_cannot_end_its_line() -> None:
    head = response_head(200, [("Location", "/a\r\nSet-Cookie: x")])
    assert b"\r\nSet-Cookie" not in head


def test_every_status_of_an_error_has_its_words() -> None:
    assert set(STATUS.values()) <= set(REASONS)
    assert response_head(429, ()).startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
