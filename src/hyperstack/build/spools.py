"""Spool files: what contexts and downloads are written to, bounded by what the disk has left."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hyperstack.image.content import mapped
from hyperstack.image.layer import RESERVE, check_space

PREFIX = "build-"
"""Of the names of spool files."""
_EVERY = 64 << 20


@contextlib.contextmanager
def empty(folder: Path) -> Iterator[Path]:
    """Make an empty file in *folder*, which is gone after the block. Raises InternalError."""
    with mapped("make a spool file"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd, name = tempfile.mkstemp(dir=folder, prefix=PREFIX)
    os.close(fd)
    path = Path(name)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def check(folder: Path, before: int, after: int) -> None:
    """Look at the free space now and then while a file grows. Raises InternalError if it is low."""
    if not before or before // _EVERY != after // _EVERY:
        check_space(folder, RESERVE)
