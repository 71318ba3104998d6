"""What long image operations say while they run: what clients' progress bars are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of progress in Docker's terms. ``id`` is a layer's short id or a tag.

    ``current`` and ``total`` are bytes (``total`` 0: not known, and no bar is shown if both are 0).
    ``stream`` is a line that is shown as it is (``docker load``); ``aux`` a value for programs.
    """

    status: str = ""
    id: str = ""
    current: int = 0
    total: int = 0
    stream: str = ""
    aux: Mapping[str, object] | None = None
