"""The daemon's end of the protocol, against every split of the bytes and every breach."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.guest import messages
from hyperstack.guest.codec import ProtocolError, encode
from hyperstack.guest.messages import (
    MAX_DATA,
    MAX_MESSAGE,
    OLDEST,
    VERSION,
    WINDOW,
    EventKind,
    Frame,
    Op,
)
from hyperstack.guest.protocol import (
    MAX_DROPPED,
    MAX_EARLY,
    MAX_EVENT,
    Connection,
    Credit,
    Data,
    End,
    Event,
    Happening,
    Hello,
    Reply,
    Reset,
)

HEAD = struct.Struct("<IBBHQ")


def frame(kind: int, payload: bytes = b"", *, code: int = 0, number: int = 1) -> bytes:
    return HEAD.pack(len(payload), kind, 0, code, number) + payload


def data(stream: int, offset: int, content: bytes) -> bytes:
    return frame(Frame.DATA, struct.pack("<Q", offset) + content, number=stream)


def credit(stream: int, taken: int, limit: int) -> bytes:
    return frame(Frame.CREDIT, struct.pack("<QQ", taken, limit), number=stream)


def eof(stream: int, offset: int) -> bytes:
    return frame(Frame.EOF, struct.pack("<Q", offset), number=stream)


HELLO = frame(Frame.HELLO, code=VERSION, number=99)


def greeted() -> Connection:
    connection = Connection()
    assert connection.receive(HELLO) == [Hello(99)]
    return connection


def merged(happenings: list[Happening]) -> list[object]:
    """Join pieces of data: where they were cut is no matter."""
    result: list[object] = []
    for happening in happenings:
        if isinstance(happening, Data):
            content = bytes(happening.data)
            last = result[-1] if result else None
            if isinstance(last, tuple) and last[:2] == ("data", happening.stream):
                assert happening.offset == last[2] + len(last[3])
                result[-1] = (*last[:3], last[3] + content)
                continue
            result.append(("data", happening.stream, happening.offset, content))
        else:
            result.append(happening)
    return result


def conversation(connection: Connection) -> bytes:
    """Open what the agent's part of a conversation needs, and return that part."""
    connection.request(Op.PING, messages.Empty())
    connection.request(Op.RELEASE, messages.ProcessRef(handle=1))
    connection.open_receiver(5)
    connection.open_receiver(6, start=10)
    connection.open_sender(7)
    failure = encode(messages.Failure(stage=3, detail="no"))
    exit_event = encode(messages.ProcessState(handle=4, code=9))
    return b"".join(
        (
            HELLO,
            frame(Frame.REPLY, failure, code=2, number=2),
            data(5, 0, b"hello"),
            frame(Frame.EVENT, exit_event, code=EventKind.EXIT),
            credit(7, 0, 100),
            data(6, 10, b"x" * 300),
            data(5, 5, b" world"),
            eof(5, 11),
            frame(Frame.REPLY, number=1),
            frame(Frame.RESET, code=104, number=6),
        )
    )


@given(st.lists(st.integers(0, 700)))
def test_any_split_of_the_bytes_has_the_same_effect(cuts: list[int]) -> None:
    whole = Connection()
    stream = conversation(whole)
    expected = merged(whole.receive(stream))
    split = Connection()
    conversation(split)
    points = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    happenings = [
        happening
        for begin, end in itertools.pairwise(points)
        for happening in split.receive(stream[begin:end])
    ]
    assert merged(happenings) == expected
    assert expected == [
        Hello(99),
        Reply(2, 2, messages.Failure(stage=3, detail="no")),
        ("data", 5, 0, b"hello"),
        Event(EventKind.EXIT, messages.ProcessState(handle=4, code=9)),
        Credit(7),
        ("data", 6, 10, b"x" * 300),
        ("data", 5, 5, b" world"),
        End(5, 11),
        Reply(1, 0, messages.Empty()),
        Reset(6, 104),
    ]


frames = st.builds(
    lambda kind, payload, code, number: frame(kind, payload, code=code, number=number),
    st.sampled_from([*Frame, 0, 9, 255]),
    st.one_of(
        st.binary(max_size=40),
        st.builds(struct.pack, st.just("<Q"), st.sampled_from([0, 1, 5, 1 << 63])),
        st.builds(struct.pack, st.just("<QQ"), st.integers(0, 9), st.integers(0, 9)),
        st.builds(
            lambda offset, content: struct.pack("<Q", offset) + content,
            st.integers(0, 3),
            st.binary(min_size=1, max_size=9),
        ),
    ),
    st.sampled_from([0, 1, 2, 3]),
    st.integers(0, 8),
)


@given(st.lists(frames, max_size=12), st.booleans())
def test_whatever_the_agent_sends_is_understood_or_a_breach(sent: list[bytes], hello: bool) -> None:
    connection = greeted() if hello else Connection()
    connection.request(Op.LIST, messages.Empty())
    connection.open_receiver(2)
    connection.open_sender(3)
    try:
        for happening in connection.receive(b"".join(sent)):
            assert not isinstance(happening, Data) or happening.stream == 2
    except ProtocolError:
        pass


BREACHES: dict[str, Callable[[Connection], bytes]] = {
    "a second hello": lambda _: HELLO,
    "a request": lambda _: frame(Frame.REQUEST, code=Op.PING),
    "an answer that nobody waits for": lambda _: frame(Frame.REPLY, number=9),
    "an unknown event": lambda _: frame(Frame.EVENT, code=77),
    "a reply over the bound": lambda _: HEAD.pack(MAX_MESSAGE + 1, Frame.REPLY, 0, 0, 1),
    "an event over the bound": lambda _: HEAD.pack(MAX_EVENT + 1, Frame.EVENT, 0, 1, 1),
    "data over the bound": lambda _: HEAD.pack(9 + MAX_DATA, Frame.DATA, 0, 0, 1),
    "empty data": lambda _: HEAD.pack(8, Frame.DATA, 0, 0, 1),
    "data of a stream that is not open": lambda _: data(8, 0, b"x"),
    "the end of a stream that is not open": lambda _: eof(8, 0),
    "data at a wrong offset": lambda c: (c.open_receiver(2), data(2, 1, b"x"))[1],
    "data after the end": lambda c: (c.open_receiver(2), eof(2, 0) + data(2, 0, b"x"))[1],
    "an end at a wrong offset": lambda c: (c.open_receiver(2), eof(2, 1))[1],
    "more data than allowed": lambda c: (
        c.open_receiver(2, window=4),
        data(2, 0, b"12345"),
    )[1],
    "credit for what the agent sends": lambda c: (c.open_receiver(2), credit(2, 0, 1))[1],
    "credit that ends before it begins": lambda _: credit(2, 2, 1),
    "credit for bytes that are gone": lambda c: (c.open_sender(2, start=5), credit(2, 4, 9))[1],
    "credit for bytes that were not sent": lambda c: (
        c.open_sender(2),
        credit(2, 0, 9) + credit(2, 1, 9),
    )[1],
}


@pytest.mark.parametrize("what", BREACHES)
def test_a_breach_of_the_protocol_is_told(what: str) -> None:
    connection = greeted()
    sent = BREACHES[what](connection)
    with pytest.raises(ProtocolError):
        connection.receive(sent)


@pytest.mark.parametrize("version", [OLDEST - 1, VERSION + 1])
def test_a_wrong_version_is_a_breach(version: int) -> None:
    with pytest.raises(ProtocolError, match="speaks version"):
        Connection().receive(frame(Frame.HELLO, code=version))


def test_an_agent_of_an_earlier_daemon_is_understood() -> None:
    connection = Connection()
    assert connection.receive(frame(Frame.HELLO, code=OLDEST, number=7)) == [Hello(7)]
    assert connection.version == OLDEST


def test_credit_is_given_by_quarters_of_the_window_and_at_the_end() -> None:
    connection = greeted()
    assert connection.open_receiver(2, start=7) == credit(2, 7, 7 + WINDOW)
    quarter = WINDOW // 4
    connection.receive(data(2, 7, bytes(quarter)))
    assert connection.take(2, 7 + quarter - 1) == b""
    assert connection.take(2, 7 + quarter) == credit(2, 7 + quarter, 7 + quarter + WINDOW)
    connection.receive(data(2, 7 + quarter, b"end") + eof(2, 10 + quarter))
    assert connection.take(2, 10 + quarter) == credit(2, 10 + quarter, 10 + quarter)
    assert connection.take(2, 10 + quarter) == b""


def test_more_than_was_received_is_never_taken() -> None:
    connection = greeted()
    connection.open_receiver(2, window=4)
    connection.receive(data(2, 0, b"abc"))
    assert connection.take(2, 1 << 40) == credit(2, 3, 7)


def test_what_was_under_way_for_a_dropped_stream_is_ignored() -> None:
    connection = greeted()
    connection.open_receiver(2)
    assert connection.drop(2, 125) == frame(Frame.RESET, code=125, number=2)
    assert connection.drop(2, 125) == b""
    assert connection.receive(data(2, 0, b"late") + eof(2, 4)) == []


def test_streams_that_were_left_are_not_remembered_for_ever() -> None:
    connection = greeted()
    for stream in range(1, MAX_DROPPED + 9):
        connection.open_receiver(stream)
        connection.drop(stream, 125)
    assert len(connection._dropped) == MAX_DROPPED
    assert connection.receive(data(MAX_DROPPED, 0, b"late")) == []


def test_an_input_stream_goes_on_where_the_agent_says() -> None:
    connection = greeted()
    connection.receive(credit(3, 100, 150))
    assert not connection.open_sender(3, start=60)
    assert connection.room(3) == 50
    assert connection.send(3, b"ab") == data(3, 100, b"ab")
    assert connection.room(3) == 48
    assert connection.finish(3) == eof(3, 102)
    assert connection.receive(credit(3, 102, 102)) == [Credit(3)]
    assert connection.room(3) == 0
    assert connection.finish(3) == b""


def test_an_input_stream_that_the_agent_gave_up_is_over_at_once() -> None:
    connection = greeted()
    assert connection.receive(frame(Frame.RESET, code=32, number=3)) == []
    assert connection.open_sender(3)


def test_what_is_said_of_unknown_streams_is_bounded() -> None:
    connection = greeted()
    for stream in range(1, 3 * MAX_EARLY):
        assert connection.receive(credit(stream, 0, 1)) == []
    assert len(connection._early) == MAX_EARLY


def test_an_abandoned_request_may_still_be_answered() -> None:
    connection = greeted()
    number, _ = connection.request(Op.PING, messages.Empty())
    connection.abandon(number)
    assert connection.receive(frame(Frame.REPLY, number=number)) == []
