"""Messages of the agent protocol as bytes and back (the encoding is told in ``messages``).

Each message class is compiled once to a plan: what its fields are, by tag. Decoding treats every
byte as hostile: lengths are checked before memory is taken, repeated fields are counted, anything
that the contract does not say raises ``ProtocolError`` and nothing else does. Text may hold any
bytes but NUL: what is no UTF-8 travels as surrogate escapes. Frames are left to ``protocol``.
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from hyperstack.errors import GuestError, InvalidParameter
from hyperstack.guest import messages
from hyperstack.guest.fields import numbered

T = TypeVar("T")

MAX_ITEMS = 200_000
"""Fields in one message with all that nests in it, so that small bytes can't become much memory."""

_FIELD = struct.Struct("<HHI")
_INTEGER = struct.Struct("<HHIq")
_LOW, _HIGH = -(1 << 63), (1 << 63) - 1


class ProtocolError(GuestError):
    """The agent broke the protocol; the connection is over."""


class _Kind(Enum):
    INTEGER = 1
    FLAG = 2
    TEXT = 3
    BYTES = 4
    MESSAGE = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    name: str
    tag: int
    kind: _Kind
    repeated: bool
    cls: type[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    fields: tuple[_Field, ...]
    by_tag: dict[int, _Field]
    defaults: dict[str, Any]


_SCALARS: dict[Any, _Kind] = {
    int: _Kind.INTEGER,
    bool: _Kind.FLAG,
    str: _Kind.TEXT,
    bytes: _Kind.BYTES,
}


def _field(name: str, tag: int, hint: Any) -> _Field:
    repeated = typing.get_origin(hint) is tuple
    if repeated:
        hint = typing.get_args(hint)[0]
    elif isinstance(hint, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    kind = _SCALARS.get(hint, _Kind.MESSAGE)
    if kind is _Kind.MESSAGE and not dataclasses.is_dataclass(hint):
        raise TypeError(f"field {name} has a type that can't travel: {hint}")
    return _Field(name=name, tag=tag, kind=kind, repeated=repeated, cls=hint)


_plans: dict[type[Any], _Plan] = {}


def _plan(cls: type[Any]) -> _Plan:
    plan = _plans.get(cls)
    if plan is None:
        plan = _plans[cls] = _compile(cls)
    return plan


def _compile(cls: type[Any]) -> _Plan:
    hints = messages.field_types(cls)
    declared = numbered(cls)
    fields = tuple(_field(f.name, number, hints[f.name]) for number, f in declared)
    return _Plan(
        fields=fields,
        by_tag={field.tag: field for field in fields},
        defaults={f.name: f.default for _, f in declared},
    )


def encode(message: Any) -> bytes:
    """Return the bytes of a message.

    Raises InvalidParameter for what can't travel: NUL in text, a number of more than 64 bits, more
    than ``MAX_MESSAGE`` bytes.
    """
    out = bytearray()
    _encode(message, out, 1)
    if len(out) > messages.MAX_MESSAGE:
        raise InvalidParameter(
            f"the request to the guest is too large: {len(out)} bytes, at most"
            f" {messages.MAX_MESSAGE} are possible"
        )
    return bytes(out)


def _encode(message: Any, out: bytearray, depth: int) -> None:
    if depth > messages.MAX_DEPTH:
        raise TypeError(f"{type(message).__name__} nests too deep")
    for field in _plan(type(message)).fields:
        value = getattr(message, field.name)
        if field.repeated:
            for item in value:
                _encode_value(field, item, out, depth)
        elif value or (field.kind is _Kind.MESSAGE and value is not None):
            _encode_value(field, value, out, depth)


def _encode_value(field: _Field, value: Any, out: bytearray, depth: int) -> None:
    if field.kind in (_Kind.INTEGER, _Kind.FLAG):
        if not _LOW <= value <= _HIGH:
            raise InvalidParameter(f"{field.name}: {value} is out of range")
        out += _INTEGER.pack(field.tag, 0, 8, value)
        return
    if field.kind is _Kind.MESSAGE:
        start = len(out)
        out += bytes(_FIELD.size)
        _encode(value, out, depth + 1)
        _FIELD.pack_into(out, start, field.tag, 0, len(out) - start - _FIELD.size)
        return
    data = value if field.kind is _Kind.BYTES else _encode_text(field.name, value)
    out += _FIELD.pack(field.tag, 0, len(data))
    out += data


def _encode_text(name: str, value: str) -> bytes:
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidParameter(f"{name}: {value!r} is not valid text") from None
    if b"\0" in data:
        raise InvalidParameter(f"{name}: {value!r} contains a NUL character")
    return data


def decode(cls: type[T], data: bytes | bytearray | memoryview) -> T:
    """Return the message in *data*, which must be one of *cls* and nothing else.

    Raises ProtocolError.
    """
    if len(data) > messages.MAX_MESSAGE:
        raise ProtocolError(f"the guest's agent sent a message of {len(data)} bytes")
    return typing.cast(T, _Decoder().message(cls, bytes(data), 1))


class _Decoder:
    """One decoding: counts the fields of all nested messages."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items = 0

    def message(self, cls: type[Any], data: bytes, depth: int) -> Any:
        if depth > messages.MAX_DEPTH:
            raise ProtocolError("the guest's agent sent a message that nests too deep")
        plan = _plan(cls)
        values: dict[str, Any] = {}
        position, end = 0, len(data)
        while position < end:
            if end - position < _FIELD.size:
                raise ProtocolError(f"the guest's agent sent a cut {cls.__name__}")
            tag, zero, length = _FIELD.unpack_from(data, position)
            position += _FIELD.size
            field = plan.by_tag.get(tag)
            if field is None or zero or length > end - position:
                raise ProtocolError(f"the guest's agent sent a bad {cls.__name__} (field {tag})")
            self._items += 1
            if self._items > MAX_ITEMS:
                raise ProtocolError(f"the guest's agent sent a {cls.__name__} of too many fields")
            value = self._value(field, data[position : position + length], depth)
            position += length
            if field.repeated:
                values.setdefault(field.name, []).append(value)
            elif field.name in values:
                raise ProtocolError(f"the guest's agent sent {cls.__name__}.{field.name} twice")
            else:
                values[field.name] = value
        return _build(cls, plan, values)

    def _value(self, field: _Field, data: bytes, depth: int) -> Any:
        if field.kind is _Kind.TEXT:
            if b"\0" in data:
                raise ProtocolError(f"the guest's agent sent a NUL in {field.name}")
            return data.decode("utf-8", "surrogateescape")
        if field.kind is _Kind.BYTES:
            return data
        if field.kind is _Kind.MESSAGE:
            return self.message(field.cls, data, depth + 1)
        if len(data) != 8:
            raise ProtocolError(f"the guest's agent sent a bad number in {field.name}")
        number = int.from_bytes(data, "little", signed=True)
        return number if field.kind is _Kind.INTEGER else number != 0


def _build(cls: type[Any], plan: _Plan, values: dict[str, Any]) -> Any:
    # Frozen dataclasses set each field through object.__setattr__; a reply may hold 100,000 of
    # them, so their dictionary is filled at once.
    built = object.__new__(cls)
    content = built.__dict__
    content.update(plan.defaults)
    for name, value in values.items():
        content[name] = tuple(value) if isinstance(value, list) else value
    return built
