"""Fields of messages: a dataclass field with its number on the wire and its empty default."""

from __future__ import annotations

import dataclasses
from typing import Any


def tag(number: int) -> Any:
    """Give a field of a nested message its number; absent it is None."""
    return dataclasses.field(default=None, metadata={"tag": number})


def number(n: int) -> Any:
    """Make an integer field; absent it is 0."""
    return dataclasses.field(default=0, metadata={"tag": n})


def text(n: int) -> Any:
    """Make a text field; absent it is empty."""
    return dataclasses.field(default="", metadata={"tag": n})


def raw(n: int) -> Any:
    """Make a field of bytes; absent it is empty."""
    return dataclasses.field(default=b"", metadata={"tag": n})


def flag(n: int) -> Any:
    """Make a field of truth; absent it is False."""
    return dataclasses.field(default=False, metadata={"tag": n})


def many(n: int) -> Any:
    """Make a repeated field; absent it is empty."""
    return dataclasses.field(default=(), metadata={"tag": n})
