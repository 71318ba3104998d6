"""Messages as bytes and back, for every message of the contract and for hostile bytes."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InvalidParameter
from hyperstack.guest import messages
from hyperstack.guest.codec import MAX_ITEMS, ProtocolError, decode, encode
from hyperstack.guest.messages import EVENTS, MAX_MESSAGE, OPS

TYPES: tuple[type[Any], ...] = tuple(
    dict.fromkeys(
        (*(cls for pair in OPS.values() for cls in pair), *EVENTS.values(), messages.Failure)
    )
)

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
undecodable = st.binary(max_size=20).map(
    lambda data: data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)
scalars: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(1 << 63), (1 << 63) - 1),
    bool: st.booleans(),
    str: text | undecodable,
    bytes: st.binary(max_size=40),
}


def value_of(hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) is tuple:
        return st.lists(value_of(typing.get_args(hint)[0]), max_size=3).map(tuple)
    if isinstance(hint, types.UnionType):
        return st.none() | value_of(typing.get_args(hint)[0])
    return scalars[hint] if hint in scalars else message_of(hint)


def message_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = messages.field_types(cls)
    fields = {field.name: value_of(hints[field.name]) for field in dataclasses.fields(cls)}
    return st.fixed_dictionaries(fields).map(lambda values: cls(**values))


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
def test_every_message_comes_back_as_it_went(cls: type[Any]) -> None:
    @given(message_of(cls))
    def holds(message: Any) -> None:
        assert decode(cls, encode(message)) == message

    holds()


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
def test_an_empty_message_takes_no_bytes(cls: type[Any]) -> None:
    assert encode(cls()) == b""
    assert decode(cls, b"") == cls()


@given(st.sampled_from(TYPES), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_breach(cls: type[Any], data: bytes) -> None:
    try:
        message = decode(cls, data)
    except ProtocolError:
        return
    assert isinstance(message, cls)


@given(st.data(), st.sampled_from(TYPES))
def test_a_mangled_message_is_a_message_or_a_breach(draw: st.DataObject, cls: type[Any]) -> None:
    data = bytearray(encode(draw.draw(message_of(cls))))
    for _ in range(draw.draw(st.integers(1, 4))):
        if data:
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        decode(cls, data[: draw.draw(st.integers(0, len(data)))])
    except ProtocolError:
        pass


def field(tag: int, data: bytes, zero: int = 0, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return (
        tag.to_bytes(2, "little") + zero.to_bytes(2, "little") + size.to_bytes(4, "little") + data
    )


@pytest.mark.parametrize(
    ("cls", "data"),
    [
        (messages.Failure, field(1, b"1234567")),
        (messages.Failure, field(1, b"123456789")),
        (messages.Failure, field(99, b"")),
        (messages.Failure, field(2, b"a\0b")),
        (messages.Failure, field(2, b"abc", zero=1)),
        (messages.Failure, field(2, b"abc", length=4)),
        (messages.Failure, field(2, b"abc", length=0xFFFFFFFF)),
        (messages.Failure, field(2, b"abc")[:5]),
        (messages.Failure, field(1, bytes(8)) * 2),
        (messages.Exec, field(2, field(20, field(99, b"")))),
        (messages.Top, field(1, b"") * (MAX_ITEMS + 1)),
        (messages.Failure, bytes(MAX_MESSAGE + 1)),
    ],
)
def test_what_the_contract_does_not_say_is_a_breach(cls: type[Any], data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(cls, data)


@pytest.mark.parametrize(
    "message",
    [
        messages.Failure(detail="a\0b"),
        messages.Failure(detail="\ud800"),
        messages.Failure(stage=1 << 63),
        messages.FileWrite(content=bytes(MAX_MESSAGE)),
    ],
)
def test_what_cannot_travel_is_refused(message: Any) -> None:
    with pytest.raises(InvalidParameter):
        encode(message)


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
def test_no_message_nests_deeper_than_the_bound(cls: type[Any]) -> None:
    def depth(hint: Any) -> int:
        for inner in typing.get_args(hint) or (hint,):
            if dataclasses.is_dataclass(inner):
                hints = messages.field_types(typing.cast(type[Any], inner))
                return 1 + max((depth(h) for h in hints.values()), default=0)
        return 0

    assert depth(cls) <= messages.MAX_DEPTH
