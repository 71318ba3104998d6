"""Identifiers: 64 lower-case hex digits for objects, as Docker makes them."""

from __future__ import annotations

import re
import secrets
from typing import NewType

ContainerId = NewType("ContainerId", str)
ExecId = NewType("ExecId", str)
SandboxId = NewType("SandboxId", str)
NetworkId = NewType("NetworkId", str)
EndpointId = NewType("EndpointId", str)
Digest = NewType("Digest", str)
"""``sha256:`` and 64 hex digits."""

_HEX64 = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


def new_id() -> str:
    """Return a fresh random id that does not look like a number in its short form.

    A short id that is all digits would be taken for a number by tools that use it as a host name,
    so such an id is drawn again, as Docker does.
    """
    while True:
        value = secrets.token_hex(32)
        if not value[:12].isdigit():
            return value


def is_id(text: str) -> bool:
    """Tell whether *text* is a full 64-digit id."""
    return bool(_HEX64.match(text))


def is_container_name(text: str) -> bool:
    """Tell whether *text* (without leading slash) is a name that Docker accepts."""
    return bool(_NAME.match(text))


def short(identifier: str) -> str:
    """Return the 12 digits that Docker shows of an id or digest."""
    return identifier.removeprefix("sha256:")[:12]
