"""What makes a class a message: a dataclass whose fields travel by their numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

EMPTY = (0, "", b"", (), None)
"""What an absent field is: the default of every field is one of these."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(cls: type[T]) -> type[T]:
    """Make a class a message: frozen, by keywords alone.

    A field's number is its place, counted from 1: a new field comes last, and none is ever taken
    out, since sandboxes outlive the daemon that started them. Raises TypeError for a field whose
    default is not empty.
    """
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    for _, field in numbered(made):
        if not any(field.default is empty or field.default == empty for empty in EMPTY):
            raise TypeError(f"{cls.__name__}.{field.name} is not empty when it is absent")
    return made


def numbered(cls: type[Any]) -> list[tuple[int, dataclasses.Field[Any]]]:
    """Return the fields of a message with their numbers."""
    return list(enumerate(dataclasses.fields(cls), start=1))
