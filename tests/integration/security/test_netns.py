from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperstack.errors import InternalError
from hyperstack.platform import netns


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("namespaces are made by root")
    made = tmp_path / "net" / "x"
    yield made
    netns.delete(made)
    assert not made.exists()


def test_a_namespace_lives_as_a_file_and_holds_its_own_interfaces(path: Path) -> None:
    netns.create(path)
    names = netns.in_netns(path, lambda: [name for _, name in socket.if_nameindex()])
    assert names == ["lo"]
    assert path.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
    assert str(path) in Path("/proc/self/mountinfo").read_text()


def test_the_caller_and_its_threads_stay_where_they_were(path: Path) -> None:
    netns.create(path)
    before = Path("/proc/thread-self/ns/net").stat().st_ino
    with netns.socket_in(path, socket.AF_INET, socket.SOCK_DGRAM) as inside:
        assert not os.get_inheritable(inside.fileno())
    assert Path("/proc/thread-self/ns/net").stat().st_ino == before
    assert not [thread for thread in threading.enumerate() if thread.name == "netns"]


def test_what_fails_inside_fails_outside(path: Path) -> None:
    netns.create(path)

    def bad() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        netns.in_netns(path, bad)


def test_a_namespace_is_made_once_and_deleted_as_often_as_one_likes(path: Path) -> None:
    netns.create(path)
    with pytest.raises(InternalError, match="a network namespace can't be made: File exists"):
        netns.create(path)
    netns.delete(path)
    netns.delete(path)
    with pytest.raises(InternalError, match=r"network namespace x is gone: No such file"):
        netns.in_netns(path, lambda: None)
    assert str(path) not in Path("/proc/self/mountinfo").read_text()
