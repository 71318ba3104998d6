"""Building a kit for real, from the archive that the host's sources name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperstack.errors import HyperError
from hyperstack.guest.kit import Kit, versions
from hyperstack.guest.kitapt import host_mirror
from tests.framework.host import KIT_DIR

BOUND = 600
BUILD = (
    "import asyncio, sys; from pathlib import Path; from hyperstack.guest import kitbuild;"
    "asyncio.run(kitbuild.build(Path(sys.argv[1]), say=print))"
)


@pytest.fixture(autouse=True)
def _needs_an_archive() -> None:
    try:
        host_mirror()
    except HyperError as error:
        pytest.skip(error.message)


def _start(kit_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(kit_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _kill(build: subprocess.Popen[bytes]) -> None:
    os.killpg(build.pid, signal.SIGKILL)
    build.wait()
    # What it had started in sessions of their own ends by itself, or works on in a folder that the
    # next build removes.


def test_a_build_may_be_killed_at_any_instant_and_gives_the_same_kit_every_time(
    tmp_path: Path,
) -> None:
    for pause in (0.3, 2.0, 6.0):
        build = _start(tmp_path)
        time.sleep(pause)
        _kill(build)
        assert not (tmp_path / "current").exists()
        assert versions(tmp_path) == []
    assert _start(tmp_path).wait(BOUND) == 0
    kit = Kit.load(tmp_path / "current")
    kit.verify()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
        [".lock", "current", kit.version]
    )
    _looks_whole(kit)
    # From the same packages and sources comes the same kit, wherever it is built.
    installed = Kit.load(KIT_DIR / "current")
    same = installed.manifest.packages == kit.manifest.packages and _agent(kit) == _agent(installed)
    assert not same or installed.version == kit.version


def _agent(kit: Kit) -> bytes:
    return (kit.guest_root / "agent").read_bytes() + kit.jail.read_bytes()


def _looks_whole(kit: Kit) -> None:
    for root, program in (
        (kit.mkfs_root, kit.mkfs_argv0),
        (kit.virtiofsd_root, kit.virtiofsd_argv0),
    ):
        done = subprocess.run(
            ["chroot", root, program, "--version"], check=True, capture_output=True, timeout=30
        )
        assert done.stdout
    for guest in (kit.guest_root, kit.qemu_guest_root):
        modules = guest / "modules"
        for name in ("boot.list", "share.list", "tun.list", "fuse.list", "loop.list"):
            for line in (modules / name).read_text().splitlines():
                assert (modules / line).read_bytes()[:4] == b"\x7fELF"
    assert kit.initramfs.read_bytes()[:6] == b"070701"
    assert kit.qemu_kernel.read_bytes()[:4] == b"\x7fELF"
    assert all(package.sha256 and package.suite for package in kit.manifest.packages)
