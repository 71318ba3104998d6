"""JSON as Go's ``encoding/json`` reads and writes it, between Docker's keys and the model's fields.

A ``Schema`` lists a struct's fields once; reading and writing both follow it. Go's habits that
clients rely on: field names match in any case, unknown ones are ignored, ``null`` leaves the zero
value, a value of the wrong type is an error that names the struct, the path and the Go type
(UnmarshalTypeError), and only then ``omitempty`` and nil maps and slices on the way out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from hyperstack.errors import InvalidParameter

T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

MOST_ITEMS = 100_000
"""Elements of one list or map at most: far above what any client sends."""


@dataclass(frozen=True)
class Where:
    """The place of a value: the innermost struct and the path of keys from the outermost one."""

    struct: str = ""
    path: tuple[str, ...] = ()

    def field(self, struct: str, key: str) -> Where:
        """Return the place of one field of the struct that lies here."""
        return Where(struct, (*self.path, key))

    def mismatch(self, value: object, go_type: str) -> InvalidParameter:
        """Word a value of the wrong type as Go does."""
        got = _describe(value)
        if self.path:
            place = f"Go struct field {self.struct}.{'.'.join(self.path)} of type {go_type}"
        else:
            place = f"Go value of type {go_type}"
        return InvalidParameter(f"invalid JSON: json: cannot unmarshal {got} into {place}")


def _describe(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object"


class Kind:
    """How values of one Go type are read and written."""

    go_type = ""

    def read(self, value: Any, where: Where) -> Any:
        """Return the model's value of a JSON value that is not null. Raises InvalidParameter."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """Return what is encoded for the model's value."""
        return value


class _Plain(Kind):
    def __init__(self, go_type: str, python: type) -> None:
        self.go_type = go_type
        self._python = python

    def read(self, value: Any, where: Where) -> Any:
        if type(value) is not self._python:
            raise where.mismatch(value, self.go_type)
        return value


class Int(Kind):
    """An integer of a Go type with its bounds."""

    def __init__(self, go_type: str, low: int, high: int) -> None:
        self.go_type = go_type
        self._low, self._high = low, high

    def read(self, value: Any, where: Where) -> Any:
        """Accept whole numbers within the bounds; a refused number is shown, as Go does."""
        if type(value) is int and self._low <= value <= self._high:
            return value
        error = where.mismatch(value, self.go_type)
        if type(value) in (int, float):
            error = InvalidParameter(error.message.replace("number", f"number {value}", 1))
        raise error


STRING = _Plain("string", str)
BOOL = _Plain("bool", bool)
INT = Int("int", -(1 << 63), (1 << 63) - 1)
INT64 = Int("int64", -(1 << 63), (1 << 63) - 1)
UINT16 = Int("uint16", 0, (1 << 16) - 1)
UINT32 = Int("uint32", 0, (1 << 32) - 1)
UINT = Int("uint", 0, (1 << 64) - 1)
DURATION = Int("time.Duration", -(1 << 63), (1 << 63) - 1)


class Opaque(Kind):
    """Any JSON value, kept as it is."""

    go_type = "interface {}"

    def read(self, value: Any, where: Where) -> Any:
        """Take the value as it is."""
        return value


ANY = Opaque()


class Nullable(Kind):
    """A pointer: None is written as null. Reading is that of what it points to."""

    def __init__(self, kind: Kind) -> None:
        self.go_type = kind.go_type
        self._kind = kind

    def read(self, value: Any, where: Where) -> Any:
        """Read the value that is pointed to."""
        return self._kind.read(value, where)

    def write(self, value: Any) -> Any:
        """Write null for None."""
        return None if value is None else self._kind.write(value)


class List(Kind):
    """A slice, kept as a tuple. *nil*: an empty one is written as null."""

    def __init__(self, kind: Kind, *, nil: bool = False, go_type: str = "") -> None:
        self.go_type = go_type or f"[]{kind.go_type}"
        self._kind = kind
        self._nil = nil

    def read(self, value: Any, where: Where) -> Any:
        """Read every element; null elements are zero values and dropped where that is possible."""
        if not isinstance(value, list):
            raise where.mismatch(value, self.go_type)
        if len(value) > MOST_ITEMS:
            raise InvalidParameter(f"invalid JSON: more than {MOST_ITEMS} elements in a list")
        zero = "" if isinstance(self._kind, _Plain) else None
        read = (zero if item is None else self._kind.read(item, where) for item in value)
        return tuple(item for item in read if item is not None)

    def write(self, value: Any) -> Any:
        """Write every element."""
        if not value and (self._nil or value is None):
            return None
        return [self._kind.write(item) for item in value]


class Strings(List):
    """A slice of strings."""

    def __init__(self, *, nil: bool = True) -> None:
        super().__init__(STRING, nil=nil)

    def write(self, value: Any) -> Any:
        """Write the strings; None is always null."""
        if not value:
            return None if self._nil or value is None else []
        return list(value)


class StrSlice(Kind):
    """``strslice.StrSlice``: a list of strings, or one string. None is null, () is []."""

    go_type = "string"

    def read(self, value: Any, where: Where) -> Any:
        """Read a list of strings, or a string as a list of one."""
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise where.mismatch(value, self.go_type)
        return tuple(value)

    def write(self, value: Any) -> Any:
        """Write a list."""
        return None if value is None else list(value)


class Pair(Kind):
    """``[2]uint``: a Go array of two; missing elements are zero, more are dropped."""

    go_type = "[2]uint"

    def read(self, value: Any, where: Where) -> Any:
        """Read two numbers."""
        if not isinstance(value, list):
            raise where.mismatch(value, self.go_type)
        numbers = [UINT.read(item, where) for item in value[:2] if item is not None]
        return (*numbers, 0, 0)[:2]

    def write(self, value: Any) -> Any:
        """Write a list of two."""
        return list(value)


class Map(Kind):
    """A map with string keys, kept as a dict. *nil*: an empty one is written as null."""

    def __init__(self, kind: Kind, *, nil: bool = False, go_type: str = "") -> None:
        self.go_type = go_type or f"map[string]{kind.go_type}"
        self._kind = kind
        self._nil = nil

    def read(self, value: Any, where: Where) -> Any:
        """Read every value; a null one is the zero value of strings and lists."""
        if not isinstance(value, dict):
            raise where.mismatch(value, self.go_type)
        if len(value) > MOST_ITEMS:
            raise InvalidParameter(f"invalid JSON: more than {MOST_ITEMS} keys in a map")
        return {key: self._item(item, where) for key, item in value.items()}

    def _item(self, item: Any, where: Where) -> Any:
        if item is not None:
            return self._kind.read(item, where)
        if isinstance(self._kind, Object):
            return self._kind.schema.model()
        return () if isinstance(self._kind, List) else ""

    def write(self, value: Any) -> Any:
        """Write the entries in the order of their keys, as Go does."""
        if not value and self._nil:
            return None
        return {key: self._kind.write(value[key]) for key in sorted(value or ())}


STRING_MAP = Map(STRING)
NIL_STRING_MAP = Map(STRING, nil=True)


class Set(Kind):
    """``map[string]struct{}``, kept as a tuple of its keys; empty is null."""

    def __init__(self, go_type: str = "map[string]struct {}") -> None:
        self.go_type = go_type

    def read(self, value: Any, where: Where) -> Any:
        """Read the keys."""
        if not isinstance(value, dict):
            raise where.mismatch(value, self.go_type)
        for item in value.values():
            if item is not None and not isinstance(item, dict):
                raise where.mismatch(item, "struct {}")
        return tuple(value)

    def write(self, value: Any) -> Any:
        """Write each key with an empty object."""
        return {key: {} for key in sorted(value)} if value else None


@dataclass(frozen=True)
class Field:
    """One field: Docker's key, the model's attribute, how to read and write, ``omitempty``."""

    key: str
    name: str
    kind: Kind
    omit: bool = False


class Schema(Generic[T]):
    """A Go struct and the model's type that holds its values."""

    def __init__(self, go_name: str, model: Callable[..., T], fields: Sequence[Field]) -> None:
        self.go_name = go_name
        self.model = model
        self.fields = tuple(fields)
        self._exact = {field.key: field for field in fields}
        self._folded = {field.key.casefold(): field for field in fields}

    def values(self, raw: Mapping[str, Any], where: Where | None = None) -> dict[str, Any]:
        """Return the model's attributes that *raw* sets. Raises InvalidParameter."""
        place = where or Where()
        found: dict[str, Any] = {}
        for key, value in raw.items():
            field = self._exact.get(key) or self._folded.get(key.casefold())
            if field is not None and value is not None:
                found[field.name] = field.kind.read(value, place.field(self.go_name, field.key))
        return found

    def read(self, raw: Any, where: Where | None = None) -> T:
        """Make a model's value of a JSON object. Raises InvalidParameter."""
        if not isinstance(raw, dict):
            raise (where or Where()).mismatch(raw, self.go_name)
        return self.model(**self.values(raw, where))

    def write(self, value: Any) -> dict[str, Any]:
        """Return what is encoded for a model's value, in the order of the fields."""
        made: dict[str, Any] = {}
        for field in self.fields:
            written = field.kind.write(getattr(value, field.name))
            if field.omit and (not written or written == [0, 0]):
                continue
            made[field.key] = written
        return made


class Object(Kind):
    """A struct within a struct."""

    def __init__(self, schema: Schema[Any]) -> None:
        self.schema = schema
        self.go_type = schema.go_name

    def read(self, value: Any, where: Where) -> Any:
        """Read the struct."""
        return self.schema.read(value, where)

    def write(self, value: Any) -> Any:
        """Write the struct."""
        return self.schema.write(value)


def encode(value: Any) -> bytes:
    """Return *value* as one line of JSON (Docker turns Go's escaping of HTML off)."""
    try:
        return _encode(value) + b"\n"
    except UnicodeEncodeError:
        return _encode(_valid(value)) + b"\n"


def _valid(value: Any) -> Any:
    """Return *value* with U+FFFD for each byte that is no UTF-8 (file names), as Go writes it."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_valid(key): _valid(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_valid(item) for item in value]
    return value


def decode(data: bytes) -> Any:
    """Parse a whole request body. Raises InvalidParameter in Go's words."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidParameter(_syntax_error(data)) from None


_LOOKING = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": (
        "looking for beginning of object key string"
    ),
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Invalid control character at": "in string literal",
}


def _syntax_error(data: bytes) -> str:
    """Say what is wrong with JSON that did not parse, as Go's decoder would."""
    text = data.decode("utf-8", "replace")
    if not text.strip():
        return "invalid JSON: got EOF while reading request body"
    try:
        json.loads(text)
    except RecursionError:
        return "invalid JSON: exceeded max depth"
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return "unexpected content after JSON"
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return "invalid JSON: unexpected EOF"
        looking = _LOOKING.get(error.msg, "in literal")
        return f"invalid JSON: invalid character {text[error.pos]!r} {looking}"
    except ValueError:
        pass  # a number with more digits than Python parses
    return "invalid JSON: invalid character in string literal or number"
