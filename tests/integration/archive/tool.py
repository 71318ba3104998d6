"""The agent's archive code, run as a program over folders of the host."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """Every call fails the test unless the program succeeds."""

    path: Path

    def run(self, *arguments: str | Path, stdin: bytes = b"", **environment: str) -> bytes:
        done = subprocess.run(
            [self.path, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def refusal(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        done = subprocess.run(
            [self.path, *arguments], input=stdin, capture_output=True, check=False, timeout=120
        )
        assert done.returncode == 1, (done.returncode, done.stderr)
        return done.stderr.decode().strip()

    def get(self, root: Path, path: str) -> bytes:
        return self.run("get", root, path)

    def put(self, root: Path, path: str, archive: bytes) -> None:
        self.run("put", root, path, "0", stdin=archive)

    def changes(self, upper: Path, *lowers: Path) -> list[str]:
        return self.run("changes", upper, *lowers).decode().splitlines()


def members(archive: bytes) -> list[tarfile.TarInfo]:
    return tarfile.open(fileobj=io.BytesIO(archive)).getmembers()


def names(archive: bytes) -> list[str]:
    return [member.name for member in members(archive)]


def make_tree(root: Path) -> None:
    """Fill a folder with one of everything that a tar can hold."""
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "file").write_bytes(b"content\n" * 1000)
    (root / "zero").write_bytes(b"")
    (root / "suid").write_bytes(b"x")
    os.chown(root / "suid", 12, 34)
    (root / "suid").chmod(0o6755)
    os.link(root / "file", root / "hard")
    (root / "link").symlink_to("file")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "sub" / "dangling").symlink_to("x" * 300)
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 1_000_000))
    (root / "n" / ("d" * 200)).mkdir(parents=True)
    (root / "n" / ("d" * 200) / ("f" * 200)).write_bytes(b"long name")
    (root / "größe ✓").write_bytes(b"unicode")
    Path(os.fsdecode(os.fsencode(root) + b"/raw\xff\xfe")).write_bytes(b"raw bytes")
    (root / "big-owner").write_bytes(b"o")
    os.chown(root / "big-owner", 4_000_000_000, 3_000_000)
    (root / "old").write_bytes(b"1960")
    # Whole seconds: libarchive gets fractions before 1970 wrong, both ways.
    os.utime(root / "old", ns=(0, -315_619_200 * 10**9))
    os.setxattr(root / "file", "user.note", b"a\0=\n\xff")
    os.setxattr(root / "suid", "security.capability", CAPABILITY)
    (root / "empty").chmod(0o1777)
    os.utime(root / "sub", ns=(5, 1_234_567_890_123_456_789))


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep, as the kernel keeps it (version 2)."""


def describe(root: Path, *, nanoseconds: bool = True) -> dict[str, object]:
    """Say everything about a tree that a copy must keep."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in sorted(folders + files):
            path = folder + b"/" + name
            st = os.lstat(path)
            key = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            kind = stat.S_IFMT(st.st_mode)
            linked = st.st_nlink > 1 and kind != stat.S_IFDIR
            content: object = None
            if kind == stat.S_IFREG:
                content = Path(os.fsdecode(path)).read_bytes()
            elif kind == stat.S_IFLNK:
                content = Path(os.fsdecode(path)).readlink()
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                content = st.st_rdev
            time = st.st_mtime_ns if nanoseconds else st.st_mtime_ns // 10**9
            found[key] = (
                oct(st.st_mode),
                st.st_uid,
                st.st_gid,
                time,
                content,
                inodes.setdefault(st.st_ino, key) if linked else "",
                {a: os.getxattr(path, a, follow_symlinks=False)
                 for a in os.listxattr(path, follow_symlinks=False)},
            )  # fmt: skip
    return found
