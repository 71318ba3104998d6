"""Tests marked ``alone`` have the machine to themselves; all others run beside each other.

Workers share a folder with two lock files (flock(2)): a test holds ``machine``, shared or alone.
``gate`` is held while one waits for it, so that a test that is to be alone is not kept waiting by
ever new others. A lock goes with the process that holds it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the machine for one test; blocking."""
    with (folder / "machine").open("a") as machine:
        with (folder / "gate").open("a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
