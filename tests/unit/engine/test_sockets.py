"""Sockets of the host as binds: what is one, and that no link leads to another."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperstack.engine import sockets
from hyperstack.guest.messages import MountKind


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    """A server at ``real/s`` below a folder whose name is longer than a socket's may be."""
    folder = tmp_path / ("long" * 30) / "real"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as sock:
        at = os.open(folder, os.O_PATH)
        sock.bind(f"/proc/self/fd/{at}/s")
        os.close(at)
        sock.listen(1)
        sock.setblocking(False)
        yield sock


@pytest.fixture
def path(server: socket.socket, tmp_path: Path) -> Path:
    return tmp_path / ("long" * 30) / "real" / "s"


def test_a_socket_is_found_through_links_as_the_kernel_finds_a_binds_source(
    path: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(path)
    path.chmod(0o640)
    found = sockets.find(tmp_path / "link")
    assert found is not None
    assert (found.path, found.mode, found.uid) == (str(path), 0o640, os.geteuid())
    told = sockets.mount(found, "/m3", "/run/s", 1)
    assert (told.kind, told.source, told.flags) == (MountKind.SOCKET, "/m3", 1)


def test_what_is_no_socket_is_mounted_as_ever(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert sockets.find(tmp_path) is None
    assert sockets.find(tmp_path / "file") is None
    assert sockets.find(tmp_path / "missing") is None


async def test_a_long_path_is_connected_to(server: socket.socket, path: Path) -> None:
    with await sockets.connect(str(path)) as sock:
        other, _ = await asyncio.get_running_loop().sock_accept(server)
        with other:
            sock.send(b"x")
            assert await asyncio.get_running_loop().sock_recv(other, 9) == b"x"


async def test_a_full_queue_is_waited_for(server: socket.socket, path: Path) -> None:
    first = [await sockets.connect(str(path)) for _ in range(2)]
    waiting = asyncio.create_task(sockets.connect(str(path)))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    loop = asyncio.get_running_loop()
    accepted = [(await loop.sock_accept(server))[0]]
    async with asyncio.timeout(10):
        first.append(await waiting)
    for sock in (*first, *accepted):
        sock.close()


async def test_no_link_is_followed_where_a_guest_may_have_put_one(
    path: Path, tmp_path: Path
) -> None:
    """A folder on the way, or the socket itself, may lie in a folder that a guest has mounted."""
    for link, place in (
        (tmp_path / "last", tmp_path / "last"),
        (tmp_path / "folder", tmp_path / "folder" / "s"),
    ):
        link.symlink_to(path if place == link else path.parent)
        with pytest.raises(OSError, match=r"links|directory|socket") as refused:
            await sockets.connect(str(place))
        assert refused.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOTSOCK)


async def test_what_is_not_there_or_nobody_serves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await sockets.connect(str(tmp_path / "missing"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="non-socket"):
        await sockets.connect(str(tmp_path / "file"))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "dead"))
    with pytest.raises(ConnectionRefusedError):
        await sockets.connect(str(tmp_path / "dead"))
