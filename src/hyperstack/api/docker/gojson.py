"""JSON as Go's ``encoding/json`` reads and writes it, between Docker's keys and the model's fields.

A ``Schema`` lists a struct's fields once; reading and writing both follow it. Go's habits that
clients rely on: field names match in any case, unknown ones are ignored, ``null`` leaves the zero
value, a value of the wrong type is an error that names the struct, the path and the Go type
(UnmarshalTypeError, as Go words it since 1.25), and only then ``omitempty`` and nil maps and slices
on the way out. A model with a field ``given_empty`` remembers which lists and maps a client sent
empty: those are written as such, all others that are empty as null. Text to values and back is
``gotext``'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hyperstack.api.docker.gotext import decode as decode
from hyperstack.api.docker.gotext import encode as encode
from hyperstack.errors import InvalidParameter

T = TypeVar("T")
Blank = type[list[Any]] | type[dict[str, Any]] | None

MOST_ITEMS = 100_000
"""Elements of one list or map at most: far above what any client sends."""


@dataclass(frozen=True)
class Where:
    """The place of a value: the outermost struct's name, and the keys and indexes from there."""

    struct: str = ""
    path: tuple[str, ...] = ()

    def field(self, struct: str, key: str) -> Where:
        """Return the place of one field of the struct that lies here."""
        return Where(self.struct if self.path else struct.rpartition(".")[2], (*self.path, key))

    def item(self, key: str | int) -> Where:
        """Return the place of an element or of a map's value."""
        return Where(self.struct, (*self.path, str(key)))

    def mismatch(self, value: object, go_type: str) -> InvalidParameter:
        """Word a value of the wrong type as Go does."""
        got = _describe(value)
        if self.path:
            steps = ".".join(step.replace("~", "~0").replace("/", "~1") for step in self.path)
            what = "" if self.path[-1].isdigit() else "Go struct field "
            place = f"{what}{self.struct}.{steps} of type {go_type}"
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


class Kind(ABC):
    """How values of one Go type are read and written."""

    go_type = ""
    blank: Blank = None
    """What is written for an empty list or map that a client sent as such."""

    @abstractmethod
    def read(self, value: Any, where: Where) -> Any:
        """Return the model's value of a JSON value that is not null. Raises InvalidParameter."""

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
        if isinstance(value, int | float) and not isinstance(value, bool):
            error = InvalidParameter(error.message.replace("number", f"number {value}", 1))
        raise error


class String(_Plain):
    """A string, or a Go type that is one."""

    def __init__(self, go_type: str = "string") -> None:
        super().__init__(go_type, str)


STRING = String()
BOOL = _Plain("bool", bool)
INT = Int("int", -(1 << 63), (1 << 63) - 1)
INT64 = Int("int64", -(1 << 63), (1 << 63) - 1)
UINT16 = Int("uint16", 0, (1 << 16) - 1)
UINT32 = Int("uint32", 0, (1 << 32) - 1)
UINT = Int("uint", 0, (1 << 64) - 1)
UINT64 = Int("uint64", 0, (1 << 64) - 1)
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
        self.blank = kind.blank
        self._kind = kind

    def read(self, value: Any, where: Where) -> Any:
        """Read the value that is pointed to."""
        return self._kind.read(value, where)

    def write(self, value: Any) -> Any:
        """Write null for None."""
        return None if value is None else self._kind.write(value)


class List(Kind):
    """A slice, kept as a tuple. *nil*: an empty one is written as null."""

    blank: Blank = list

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
        read = (
            zero if item is None else self._kind.read(item, where.item(number))
            for number, item in enumerate(value)
        )
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
        """Read a list of strings, or a string as a list of one.

        What is wrong with it is told without its place: moby's type reads itself.
        """
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(
            item is None or isinstance(item, str) for item in value
        ):
            raise Where().mismatch(value, self.go_type)
        return tuple(item or "" for item in value)

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
        numbers = [
            UINT.read(item, where.item(number))
            for number, item in enumerate(value[:2])
            if item is not None
        ]
        return (*numbers, 0, 0)[:2]

    def write(self, value: Any) -> Any:
        """Write a list of two."""
        return list(value)


class Map(Kind):
    """A map with string keys, kept as a dict. *nil*: an empty one is written as null."""

    blank: Blank = dict

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
        return {key: self._item(item, where.item(key)) for key, item in value.items()}

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

    blank: Blank = dict

    def __init__(self, go_type: str = "map[string]struct {}") -> None:
        self.go_type = go_type

    def read(self, value: Any, where: Where) -> Any:
        """Read the keys."""
        if not isinstance(value, dict):
            raise where.mismatch(value, self.go_type)
        for key, item in value.items():
            if item is not None and not isinstance(item, dict):
                raise where.item(key).mismatch(item, "struct {}")
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
    """A Go struct (``container.HostConfig``) and the model's type that holds its values."""

    def __init__(self, go_name: str, model: Callable[..., T], fields: Sequence[Field]) -> None:
        self.go_name = go_name
        self.model = model
        self.fields = tuple(fields)
        self._exact = {field.key: field for field in fields}
        self._folded = {field.key.casefold(): field for field in fields}
        self._remembers = "given_empty" in getattr(model, "__struct_fields__", ())

    def knows(self, raw: Mapping[str, Any]) -> bool:
        """Tell whether *raw* has a key of this struct, be its value null."""
        return any(key in self._exact or key.casefold() in self._folded for key in raw)

    def values(self, raw: Mapping[str, Any], where: Where | None = None) -> dict[str, Any]:
        """Return the model's attributes that *raw* sets. Raises InvalidParameter."""
        place = where or Where()
        found: dict[str, Any] = {}
        empty: list[str] = []
        for key, value in raw.items():
            field = self._exact.get(key) or self._folded.get(key.casefold())
            if field is not None and value is not None:
                found[field.name] = read = field.kind.read(value, place.field(self.go_name, key))
                if self._remembers and field.kind.blank and not value:
                    empty += [field.name] if field.kind.write(read) is None else []
        if empty:
            found["given_empty"] = tuple(empty)
        return found

    def read(self, raw: Any, where: Where | None = None) -> T:
        """Make a model's value of a JSON object. Raises InvalidParameter."""
        if not isinstance(raw, dict):
            raise (where or Where()).mismatch(raw, self.go_name)
        return self.model(**self.values(raw, where))

    def write(self, value: Any) -> dict[str, Any]:
        """Return what is encoded for a model's value, in the order of the fields."""
        made: dict[str, Any] = {}
        empty = value.given_empty if self._remembers else ()
        for field in self.fields:
            written = field.kind.write(getattr(value, field.name))
            if not written and field.name in empty:
                written = field.kind.blank() if field.kind.blank else None
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
