"""libnftables ends a process whose socket has a number of 1024 or more (it calls select(2))."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperstack.network import nftables
from hyperstack.platform import netns
from hyperstack.platform.descriptors import with_low_descriptors

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PLAIN = (
    "import os, resource\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
    "held = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]\n"
    "from hyperstack.network import nftables\n"
    "nftables._run(nftables._library(), 'add table inet crowd')\n"
)


@pytest.fixture
def crowded() -> Iterator[None]:
    """Hold more than a thousand open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(4096, before[0]), before[1]))
    held = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(1100)]
    yield
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_without_care_the_process_would_end() -> None:
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", PLAIN], capture_output=True)
    assert done.returncode == -6, done.stderr


@pytest.mark.usefixtures("crowded")
def test_rules_are_set_in_the_callers_namespace_with_a_thousand_files_open(tmp_path: Path) -> None:
    path = tmp_path / "ns"
    netns.create(path)
    try:
        netns.in_netns(path, lambda: nftables.run("add table inet crowd"))
        assert "table inet crowd" in netns.in_netns(path, lambda: nftables.run("list tables"))
        assert "table inet crowd" not in nftables.run("list tables")
    finally:
        netns.delete(path)


@pytest.mark.usefixtures("crowded")
def test_what_is_closed_to_make_room_stays_open_for_everybody_else() -> None:
    before = _open_files()
    opened = with_low_descriptors(lambda: os.open(os.devnull, os.O_RDONLY))
    assert opened < 2
    assert _open_files() == before


@pytest.mark.usefixtures("crowded")
def test_a_refused_transaction_is_told_from_a_crowd_too() -> None:
    with pytest.raises(nftables.NftablesError, match="syntax error"):
        nftables.run("no such words")
