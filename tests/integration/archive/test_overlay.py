"""``diff`` and ``commit`` against what a real overlay makes of changes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.archive.tool import CAPABILITY, Tool, members, names


@dataclass(frozen=True)
class Overlay:
    root: Path
    upper: Path
    lowers: tuple[Path, ...]

    def changes(self, tool: Tool) -> list[str]:
        return tool.changes(self.upper, *self.lowers)

    def layer(self, tool: Tool, since: int = 0) -> bytes:
        return tool.run("diff", self.upper, *self.lowers, SINCE=str(since))


@pytest.fixture
def overlay(folder: Path, tool: Tool) -> Iterator[Overlay]:
    """Three layers; the middle one hides things of the lowest."""
    top, middle, bottom = (folder / name for name in ("top", "middle", "bottom"))
    for path in ("etc/conf.d", "var/lib/db", "home/user", "bin"):
        (bottom / path).mkdir(parents=True)
    for path in ("etc/passwd", "etc/conf.d/a", "var/lib/db/x", "home/user/f", "bin/sh"):
        (bottom / path).write_text(path)
    (middle / "etc").mkdir(parents=True)
    os.mknod(middle / "etc" / "gone", 0o020000, 0)
    (bottom / "etc" / "gone").write_text("hidden")
    (middle / "home").mkdir()
    os.setxattr(middle / "home", "trusted.overlay.opaque", b"y")
    (middle / "home" / "other").write_text("y")
    (top / "var").mkdir(parents=True)
    (top / "var" / "new").write_text("z")
    for name in ("upper", "work", "root"):
        (folder / name).mkdir()
    lowers = (top, middle, bottom)
    options = ":".join(map(str, lowers))
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o",
         f"lowerdir={options},upperdir={folder}/upper,workdir={folder}/work", folder / "root"],
        check=True,
    )  # fmt: skip
    yield Overlay(folder / "root", folder / "upper", lowers)
    subprocess.run(["umount", folder / "root"], check=True)


def test_nothing_changed_is_nothing_told(tool: Tool, overlay: Overlay) -> None:
    assert overlay.changes(tool) == []
    assert members(overlay.layer(tool)) == []


def test_changes_are_told_with_their_parents(tool: Tool, overlay: Overlay) -> None:
    root = overlay.root
    (root / "etc" / "passwd").write_text("longer than before")
    (root / "etc" / "new").write_text("x")
    (root / "etc" / "conf.d" / "a").unlink()
    (root / "deep" / "er").mkdir(parents=True)
    shutil.rmtree(root / "var" / "lib")
    assert overlay.changes(tool) == [
        "A /deep",
        "A /deep/er",
        "C /etc",
        "C /etc/conf.d",
        "D /etc/conf.d/a",
        "A /etc/new",
        "C /etc/passwd",
        "C /var",
        "D /var/lib",
    ]


def test_a_folder_that_is_made_again_tells_what_it_lost(tool: Tool, overlay: Overlay) -> None:
    shutil.rmtree(overlay.root / "etc")
    (overlay.root / "etc").mkdir(mode=0o755)
    (overlay.root / "etc" / "passwd").write_text("x")
    assert overlay.changes(tool) == ["C /etc", "D /etc/conf.d", "C /etc/passwd"]


def test_what_a_layer_hides_was_not_there(tool: Tool, overlay: Overlay) -> None:
    (overlay.root / "etc" / "gone").write_text("back")
    (overlay.root / "home" / "user").mkdir()
    (overlay.root / "home" / "other").unlink()
    assert overlay.changes(tool) == [
        "C /etc", "A /etc/gone", "C /home", "D /home/other", "A /home/user",
    ]  # fmt: skip


def test_kinds_that_change_are_modified_once(tool: Tool, overlay: Overlay) -> None:
    shutil.rmtree(overlay.root / "var" / "lib")
    (overlay.root / "var" / "lib").write_text("a file now")
    (overlay.root / "bin" / "sh").unlink()
    (overlay.root / "bin" / "sh").mkdir()
    (overlay.root / "bin" / "sh" / "x").write_text("")
    assert overlay.changes(tool) == [
        "C /bin", "C /bin/sh", "A /bin/sh/x", "C /var", "C /var/lib",
    ]  # fmt: skip


def test_owner_mode_and_capability_count_and_a_mere_copy_does_not(
    tool: Tool, overlay: Overlay
) -> None:
    times = (overlay.root / "etc" / "passwd").stat()
    (overlay.root / "etc" / "passwd").chmod(0o600)
    (overlay.root / "etc" / "passwd").chmod(0o644)
    assert overlay.changes(tool) == []
    os.chown(overlay.root / "bin" / "sh", 5, 5)
    os.setxattr(overlay.root / "etc" / "passwd", "security.capability", CAPABILITY)
    os.utime(overlay.root / "etc" / "passwd", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert overlay.changes(tool) == ["C /bin", "C /bin/sh", "C /etc", "C /etc/passwd"]


def test_mount_points_that_every_container_has_are_nobodys_change(
    tool: Tool, overlay: Overlay
) -> None:
    root = overlay.root
    for path in ("dev/pts", "dev/shm", "dev/mqueue", "proc", "sys"):
        (root / path).mkdir(parents=True)
    for path in ("dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv"):
        (root / path).touch()
    (root / "etc" / "mtab").symlink_to("/proc/mounts")
    assert overlay.changes(tool) == []
    assert names(overlay.layer(tool)) == []
    (root / "dev" / "mine").write_text("x")
    (root / "etc" / "hosts").write_text("not empty")
    assert overlay.changes(tool) == ["A /dev", "A /dev/mine", "C /etc", "A /etc/hosts"]


def test_a_layer_has_what_changed_and_whiteouts(tool: Tool, overlay: Overlay) -> None:
    (overlay.root / "etc" / "passwd").unlink()
    shutil.rmtree(overlay.root / "var" / "lib")
    (overlay.root / "var" / "lib").mkdir()
    (overlay.root / "var" / "lib" / "kept").write_text("x")
    (overlay.root / "bin" / "sh").chmod(0o600)
    (overlay.root / "bin" / "sh").chmod((overlay.lowers[2] / "bin" / "sh").stat().st_mode & 0o7777)
    layer = members(overlay.layer(tool))
    assert [m.name for m in layer] == [
        "etc", "etc/.wh.passwd", "var", "var/lib", "var/lib/.wh.db", "var/lib/kept",
    ]  # fmt: skip
    assert not any(member.mode & ~0o7777 for member in layer)
    for member in layer:
        if ".wh." in member.name:
            assert member.isreg()
            assert member.size == 0
        assert not any("overlay" in key for key in member.pax_headers)


def test_a_layer_of_127_parts_is_compared(tool: Tool, folder: Path) -> None:
    lowers = []
    for number in range(127):
        lower = folder / f"l{number}"
        (lower / "d" / "e").mkdir(parents=True)
        (lower / "d" / "e" / f"f{number}").write_text("x")
        lowers.append(lower)
    upper = folder / "u"
    shutil.copytree(lowers[0], upper)
    os.mknod(upper / "d" / "e" / "f126", 0o020000, 0)
    os.mknod(upper / "d" / "e" / "never", 0o020000, 0)
    assert tool.changes(upper, *lowers) == ["C /d", "C /d/e", "D /d/e/f126"]


def test_a_layer_can_have_only_what_changed_after_a_time(tool: Tool, overlay: Overlay) -> None:
    (overlay.root / "etc" / "first").write_text("1")
    (overlay.root / "bin" / "sh").unlink()
    (overlay.root / "old").mkdir()
    (overlay.root / "old" / "kept").write_text("1")
    os.utime(overlay.root / "old" / "kept", (2e9, 2e9))
    since = max(
        path.stat(follow_symlinks=False).st_ctime_ns
        for path in (overlay.upper, *overlay.upper.rglob("*"))
    )
    while True:  # until the clock by which files are stamped goes on
        (overlay.root / "tick").write_text("")
        if (overlay.upper / "tick").stat().st_ctime_ns > since:
            break
    (overlay.root / "old" / "kept").write_text("2")
    os.utime(overlay.root / "old" / "kept", (2e9, 2e9))
    (overlay.root / "var" / "new").unlink()
    later = [name for name in names(overlay.layer(tool, since)) if not name.startswith("bin")]
    # Whiteouts are one file with many names, so an older one may come again, which does no harm.
    assert later == ["old", "old/kept", "tick", "var", "var/.wh.new"]
    assert "bin/.wh.sh" in names(overlay.layer(tool))
