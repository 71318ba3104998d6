"""``native/agent/messages.h``: the numbers of the agent protocol for C, made from ``messages``."""

from __future__ import annotations

import dataclasses
import itertools
from enum import IntEnum
from typing import Any

from hyperstack.guest import messages
from hyperstack.guest.fields import numbered
from hyperstack.guest.messages import EventKind, Frame, MountKind, Op, SourceKind, Stage


def message_types() -> list[type[Any]]:
    """Return every message of the contract, in its order."""
    return [
        value
        for value in vars(messages).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    ]


def _upper(name: str) -> str:
    out = [name[0]]
    for previous, char in itertools.pairwise(name):
        out.append("_" + char if char.isupper() and previous.islower() else char)
    return "".join(out).upper()


def header() -> str:
    """Return the text of ``native/agent/messages.h``."""
    lines = [
        "/* Numbers of the agent protocol. "
        "Made by python -m hyperstack.guest.header: don't edit. */",
        "#ifndef HYPER_MESSAGES_H",
        "#define HYPER_MESSAGES_H",
    ]
    for name in (
        "VERSION",
        "HEADER",
        "MAX_MESSAGE",
        "MAX_DATA",
        "MAX_DEPTH",
        "PORT",
        "PREFIX",
        "WINDOW",
    ):
        lines.append(f"#define HYPER_{name} {getattr(messages, name)}u")
    for name in ("GUEST_ADDRESS", "HOST_ADDRESS", "READY"):
        lines.append(f'#define HYPER_{name} "{getattr(messages, name)}"')
    enums: tuple[type[IntEnum], ...] = (Frame, Op, EventKind, Stage, SourceKind, MountKind)
    for enum in enums:
        lines.append(f"enum hyper_{_upper(enum.__name__).lower()} {{")
        lines += [f"    {_upper(enum.__name__)}_{m.name} = {m.value}," for m in enum]
        lines.append("};")
    for cls in message_types():
        fields = numbered(cls)
        if fields:
            lines.append(f"enum hyper_field_{_upper(cls.__name__).lower()} {{")
            lines += [
                f"    F_{_upper(cls.__name__)}_{f.name.upper()} = {number}," for number, f in fields
            ]
            lines.append("};")
    return "\n".join([*lines, "#endif", ""])


if __name__ == "__main__":
    print(header(), end="")
