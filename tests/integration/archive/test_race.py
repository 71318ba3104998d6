"""A container that changes its tree while it is read and written gets nothing outside touched."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.archive.tool import Tool

# The other side makes and removes "d" too, so any of these may fail at any time.
SWAPPER = """
import contextlib, os, sys, tempfile
os.chdir(sys.argv[1])
def swap(target):
    with contextlib.suppress(OSError):
        os.unlink("link")
    with contextlib.suppress(OSError):
        os.symlink(target, "link")
        os.rename("d", tempfile.mkdtemp(dir=sys.argv[3]) + "/d") if os.path.isdir("d") else None
    with contextlib.suppress(OSError):
        os.rename("link", "d")
while True:
    swap(sys.argv[2])
    swap("../outside")
    with contextlib.suppress(OSError):
        os.unlink("d")
    with contextlib.suppress(OSError):
        os.mkdir("d")
"""


@pytest.fixture
def swapped(folder: Path, tool: Tool) -> Iterator[Path]:
    """A root whose folder ``d`` is at most moments a link to ``outside``, one way or another."""
    (folder / "root" / "d").mkdir(parents=True)
    (folder / "outside").mkdir()
    (folder / "away").mkdir()
    (folder / "outside" / "secret").write_text("secret")
    folders = [str(folder / name) for name in ("root", "outside", "away")]
    command = [sys.executable, "-c", SWAPPER, *folders]
    with subprocess.Popen(command) as swapper:
        yield folder
        assert swapper.poll() is None
        swapper.kill()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(20):
            for name, kind in (
                (f"d/s{number}/", tarfile.DIRTYPE),
                (f"d/f{number}", tarfile.REGTYPE),
            ):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = kind, 0o777
                tar.addfile(entry)
        link = tarfile.TarInfo("d/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "d/secret"
        tar.addfile(link)
    return buffer.getvalue()


def test_nothing_is_written_outside(swapped: Path, tool: Tool) -> None:
    archive, outside = _tar(), swapped / "outside"
    before = (outside.stat(), (outside / "secret").stat())
    until, done = time.monotonic() + 2, 0
    while done <= 5 or time.monotonic() < until:
        subprocess.run(
            [tool.path, "put", swapped / "root", "/", "0"],
            input=archive, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        done += 1
    assert os.listdir(outside) == ["secret"]  # noqa: PTH208
    after = (outside.stat(), (outside / "secret").stat())
    assert [(s.st_mode, s.st_uid, s.st_nlink, s.st_mtime_ns) for s in before] == [
        (s.st_mode, s.st_uid, s.st_nlink, s.st_mtime_ns) for s in after
    ]


def test_nothing_is_read_from_outside(swapped: Path, tool: Tool) -> None:
    until, seen = time.monotonic() + 2, 0
    while seen <= 10 or time.monotonic() < until:
        for path in ("/d/secret", "/d/.", "/"):
            done = subprocess.run(
                [tool.path, "get", swapped / "root", path],
                capture_output=True, check=False, timeout=60,
            )  # fmt: skip
            assert b"secret\0\0" not in done.stdout
            seen += 1


def test_removal_never_leaves_the_root(swapped: Path, tool: Tool) -> None:
    """A file in the tar replaces whatever ``d`` is: a folder is removed, a link is not followed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("d"))
    for _ in range(15):
        subprocess.run(
            [tool.path, "put", swapped / "root", "/", "0"],
            input=buffer.getvalue(), capture_output=True, check=False, timeout=60,
        )  # fmt: skip
    assert (swapped / "outside" / "secret").read_text() == "secret"
