"""The fixture of the network's tests: a world that leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.network.world import World

if os.geteuid() != 0:
    collect_ignore_glob = ["test_*.py"]


def _mounts(root: Path) -> list[str]:
    text = Path("/proc/self/mountinfo").read_text()
    return [line.split()[4] for line in text.splitlines() if str(root) in line]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A host with the default bridge and an outside, in namespaces of their own."""
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()
    assert not _mounts(tmp_path), "network namespaces were left behind"
