"""Publishing a kit: whole or not at all, the same from the same."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hyperstack.errors import Conflict, InternalError, Unavailable
from hyperstack.guest import ext4, initramfs, kitbuild
from hyperstack.guest.kit import Kit, sparse_sha256
from hyperstack.guest.kitapt import Archive


def _tree(root: Path, content: str = "hello") -> Path:
    (root / "guest" / "proc").mkdir(parents=True)
    (root / "guest" / "agent").write_text(content)
    (root / "guest" / "agent").chmod(0o755)
    (root / "guest" / "link").symlink_to("agent")
    return root


def _publish(kit_dir: Path, content: str = "hello") -> Kit:
    work = kit_dir / ".partial-test"
    root = _tree(work / "kit", content)
    manifest = kitbuild._manifest(root, Archive(work / "apt", "http://x/debian"), "7.2", "7.2")
    kitbuild._publish(kit_dir, root, manifest)
    shutil.rmtree(work)
    return Kit.load(kit_dir / "current")


def test_the_same_content_gives_the_same_version(tmp_path: Path) -> None:
    one = _publish(tmp_path / "a")
    two = _publish(tmp_path / "b")
    assert one.version == two.version
    assert _publish(tmp_path / "c", "other").version != one.version
    one.verify()


def test_publishing_again_keeps_the_kit_that_is_there(tmp_path: Path) -> None:
    inode = _publish(tmp_path).path.stat().st_ino
    assert _publish(tmp_path).path.stat().st_ino == inode


def test_publishing_over_a_damaged_kit_mends_it(tmp_path: Path) -> None:
    kit = _publish(tmp_path)
    (kit.path / "guest" / "agent").write_text("HELLO")
    with pytest.raises(InternalError, match="damaged"):
        kit.verify()
    _publish(tmp_path).verify()


def test_current_is_replaced_and_the_old_kit_stays_whole(tmp_path: Path) -> None:
    old = _publish(tmp_path)
    new = _publish(tmp_path, "other")
    assert (tmp_path / "current").resolve() == new.path
    old.verify()


async def test_a_second_build_at_the_same_time_is_refused(tmp_path: Path) -> None:
    said: list[str] = []
    with kitbuild._lock(tmp_path), pytest.raises(Conflict, match="another build"):
        await kitbuild.build(tmp_path, say=said.append, mirror="http://x/debian")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
async def test_a_build_that_fails_leaves_the_kits_as_they_were_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = _publish(tmp_path)
    (tmp_path / ".partial-killed" / "kit").mkdir(parents=True)
    (tmp_path / ".partial-killed" / "kit" / "x").write_text("left by a killed build")
    native = tmp_path.parent / "native"
    native.mkdir()
    for name in ("agent", "jail"):
        (native / name).write_text(name)
    monkeypatch.setenv("HYPER_NATIVE_DIR", str(native))
    said: list[str] = []
    with pytest.raises(Unavailable, match="user-mode-linux"):
        await kitbuild.build(tmp_path, say=said.append, mirror=f"file:{tmp_path}/none/debian")
    assert said
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == sorted([".lock", "current", kept.version])
    kept.verify()


def test_folders_are_readable_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        root = _tree(tmp_path / "kit")
    finally:
        os.umask(before)
    kitbuild._settle_modes(root)
    assert (root / "guest" / "proc").stat().st_mode & 0o777 == 0o755


async def test_the_ext4_template_is_the_same_twice_clean_and_nearly_empty(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        await ext4.make(path, 10 << 30)
    assert sparse_sha256(one) == sparse_sha256(two)
    assert one.stat().st_size == 10 << 30
    assert one.stat().st_blocks * 512 < 512 << 10
    subprocess.run(["e2fsck", "-fn", one], check=True, capture_output=True)
    groups = subprocess.run(["dumpe2fs", one], check=True, capture_output=True, text=True).stdout
    assert groups.count("ITABLE_ZEROED") >= groups.count("INODE_UNINIT") > 0


@pytest.mark.parametrize("mib", [16, 20, 63, 64, 100, 1024, 1 << 20])
async def test_an_ext4_image_of_any_size_is_clean(tmp_path: Path, mib: int) -> None:
    await ext4.make(tmp_path / "image", mib << 20)
    subprocess.run(["e2fsck", "-fn", tmp_path / "image"], check=True, capture_output=True)


def test_an_initramfs_holds_the_folder_and_depends_on_nothing_else(tmp_path: Path) -> None:
    one, two = _tree(tmp_path / "one"), _tree(tmp_path / "two")
    os.utime(two / "guest" / "agent", (1, 1))
    packed = initramfs.pack(one)
    assert packed == initramfs.pack(two)
    assert len(packed) % 512 == 0
    assert _members(packed) == {
        "guest": (0o040755, b""),
        "guest/agent": (0o100755, b"hello"),
        "guest/link": (0o120777, b"agent"),
        "guest/proc": (0o040755, b""),
    }


def test_an_initramfs_refuses_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InternalError, match="fifo can't be part"):
        initramfs.pack(tmp_path)


def _members(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a newc archive by its description."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        (name,) = struct.unpack_from(f"{name_size - 1}s", data, at + 110)
        start = at + (110 + name_size + 3) // 4 * 4
        if name == b"TRAILER!!!":
            return found
        found[name.decode()] = (mode, data[start : start + size])
        at = start + (size + 3) // 4 * 4
