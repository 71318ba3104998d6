"""What the agent writes, others read, and what others write, the agent reads."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.integration.archive.tool import Tool, describe, make_tree, members, names

GNU = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
BSD = ["bsdtar", "--numeric-owner"]


def shell(*argv: str | Path, cwd: Path, stdin: bytes = b"") -> bytes:
    return subprocess.run(
        argv, cwd=cwd, input=stdin, capture_output=True, check=True, timeout=60
    ).stdout


@pytest.fixture
def tree(folder: Path) -> Path:
    made = folder / "tree"
    made.mkdir()
    make_tree(made)
    return made


@pytest.fixture
def out(folder: Path) -> Path:
    made = folder / "out"
    made.mkdir()
    return made


def test_our_own_copy_keeps_everything_but_parts_of_seconds(
    tool: Tool, tree: Path, out: Path
) -> None:
    tool.put(out, "/", tool.get(tree.parent, "/tree/."))
    assert describe(out, nanoseconds=False) == describe(tree, nanoseconds=False)


def test_gnu_tar_unpacks_what_we_write(tool: Tool, tree: Path, out: Path) -> None:
    shell(*GNU, "-xpf", "-", cwd=out, stdin=tool.get(tree.parent, "/tree/."))
    assert describe(out, nanoseconds=False) == describe(tree, nanoseconds=False)


@pytest.mark.skipif(not shutil.which("bsdtar"), reason="libarchive-tools is not installed")
def test_bsdtar_unpacks_what_we_write(tool: Tool, tree: Path, out: Path) -> None:
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    archive = tool.get(tree.parent, "/tree/.")
    subprocess.run(
        [*BSD, "-xpf", "-"], cwd=out, input=archive, check=True, timeout=60, env=environment
    )
    assert describe(out, nanoseconds=False) == describe(tree, nanoseconds=False)


def test_python_reads_what_we_write(tool: Tool, tree: Path) -> None:
    archive = tool.get(tree.parent, "/tree")
    by_name = {member.name: member for member in members(archive)}
    assert by_name["tree/hard"].islnk()
    assert by_name["tree/hard"].linkname == "tree/file"
    assert by_name["tree/suid"].mode == 0o6755
    assert by_name["tree/big-owner"].uid == 4_000_000_000
    assert by_name["tree/old"].mtime == pytest.approx(-315_619_200, abs=0.1)
    assert by_name["tree/disk"].devminor == 1_000_000
    assert by_name["tree/sub/dangling"].linkname == "x" * 300
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        held = tar.extractfile("tree/file")
        assert held is not None
        assert held.read() == b"content\n" * 1000


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "oldgnu", "v7"])
def test_we_unpack_what_gnu_tar_writes(tool: Tool, tree: Path, out: Path, form: str) -> None:
    """Formats that can't hold a thing don't get it."""
    if form in ("ustar", "v7"):
        shutil.rmtree(tree / "n")
        for name in ("sub/dangling", "big-owner", "old", "disk"):
            (tree / name).unlink()
    if form == "v7":
        for name in ("fifo", "null"):
            (tree / name).unlink()
    options = ["--xattrs", "--xattrs-include=*"] if form == "posix" else []
    if form != "posix":
        for name, attribute in (("file", "user.note"), ("suid", "security.capability")):
            os.removexattr(tree / name, attribute)
    command = [
        "tar",
        f"--format={form}",
        "--numeric-owner",
        "--sort=name",
        *options,
        "-cf",
        "-",
        ".",
    ]
    tool.put(out, "/", shell(*command, cwd=tree))
    exact = form == "posix"
    assert describe(out, nanoseconds=exact) == describe(tree, nanoseconds=exact)


@pytest.mark.skipif(not shutil.which("bsdtar"), reason="libarchive-tools is not installed")
@pytest.mark.parametrize("form", ["pax", "ustar", "gnutar"])
def test_we_unpack_what_bsdtar_writes(tool: Tool, tree: Path, out: Path, form: str) -> None:
    if form == "ustar":
        shutil.rmtree(tree / "n")
        for name in ("sub/dangling", "big-owner"):
            (tree / name).unlink()
    if form != "pax":
        for name in ("old", "disk"):
            (tree / name).unlink()
        for name, attribute in (("file", "user.note"), ("suid", "security.capability")):
            os.removexattr(tree / name, attribute)
    command = ["env", "LC_ALL=C.UTF-8", *BSD, f"--format={form}", "-cf", "-", "."]
    tool.put(out, "/", shell(*command, cwd=tree))
    exact = form == "pax"
    assert describe(out, nanoseconds=exact) == describe(tree, nanoseconds=exact)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_we_unpack_what_python_writes(tool: Tool, tree: Path, out: Path, form: int) -> None:
    for name, attribute in (("file", "user.note"), ("suid", "security.capability")):
        os.removexattr(tree / name, attribute)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        tar.add(tree, arcname=".")
    tool.put(out, "/", buffer.getvalue())
    assert describe(out, nanoseconds=False) == describe(tree, nanoseconds=False)


def test_a_sparse_tar_is_refused_in_words(tool: Tool, folder: Path, out: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    for form in ("gnu", "posix"):
        archive = shell("tar", f"--format={form}", "-cSf", "-", "sparse", cwd=folder)
        words = tool.refusal("put", out, "/", "0", stdin=archive)
        assert "sparse files are not supported" in words
    assert not list(out.iterdir())


def test_a_file_over_8_gib_needs_and_gets_an_extended_size(
    tool: Tool, folder: Path, out: Path
) -> None:
    size = (8 << 30) + 5
    with (folder / "big").open("wb") as file:
        file.truncate(size)
    with subprocess.Popen([tool.path, "get", folder, "/big"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        head = process.stdout.read(4096)
        process.kill()
    assert f" size={size}\n".encode() in head


def test_names_are_those_of_dockerd(tool: Tool, folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "f").write_text("x")
    (folder / "l").symlink_to("etc")
    raw = {
        "/etc": [b"etc/", b"etc/f"],
        "/etc/": [b"etc/", b"etc/f"],
        "/etc/.": [b"./", b"./f"],
        "/": [b"/", b"/etc/", b"/etc/f", b"/l"],
        ".": [b"./", b"./etc/", b"./etc/f", b"./l"],
        "l": [b"l"],
        "/l/": [b"l/", b"l/f"],
        "/l/.": [b"./", b"./f"],
        "/l/f": [b"f"],
        "/etc/../l": [b"l"],
    }
    for path, expected in raw.items():
        archive = tool.get(folder, path)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            found = [archive[m.offset : m.offset + 100].rstrip(b"\0") for m in tar]
        # A member's offset is that of its extended header, where it has one.
        plain = [m.name for m in members(archive)]
        assert len(found) == len(expected)
        assert [n.encode() for n in plain] == [e.rstrip(b"/") for e in expected], path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/none", "errno 2: "),
        ("/f/", "errno 20: lstat /f: not a directory"),
        ("/f/.", "errno 20: lstat /f: not a directory"),
        ("/dangling/", "errno 2: "),
        ("/loop/", "errno 40: lstat /loop: too many levels of symbolic links"),
        ("/" + "x/" * 3000, "errno 36: "),
    ],
)
def test_paths_that_lead_nowhere_are_told(tool: Tool, folder: Path, path: str, words: str) -> None:
    (folder / "f").write_text("x")
    (folder / "dangling").symlink_to("none")
    (folder / "loop").symlink_to("loop")
    assert tool.refusal("get", folder, path).startswith(words)
    assert tool.refusal("stat", folder, path).startswith(words)


def test_random_bytes_and_cut_archives_end_in_words(tool: Tool, tree: Path, out: Path) -> None:
    chance = random.Random(7)
    whole = tool.get(tree.parent, "/tree/.")
    for _ in range(40):
        cut = whole[: chance.randrange(1, len(whole) - 1024)]
        done = subprocess.run(
            [tool.path, "put", out, "/", "0"], input=cut, capture_output=True, check=False
        )
        if done.returncode:
            assert done.stderr.startswith(b"errno 22: "), done.stderr
    for _ in range(10):
        noise = chance.randbytes(5000)
        assert tool.refusal("put", out, "/", "0", stdin=noise).startswith("errno 22: ")


def test_export_leaves_out_what_is_mounted(tool: Tool, folder: Path) -> None:
    root = folder / "root"
    (root / "mnt").mkdir(parents=True)
    (root / "mnt" / "below").write_text("x")
    (root / "file").write_text("")
    subprocess.run(["mount", "-t", "tmpfs", "none", root / "mnt"], check=True)
    try:
        (root / "mnt" / "above").write_text("x")
        archive = tool.run("export", root)
        assert names(archive) == ["file", "mnt", "mnt/below"]
        # cp of a running container neither descends into a tmpfs.
        assert names(tool.get(root, "/")) == ["", "/file", "/mnt"]
    finally:
        subprocess.run(["umount", root / "mnt"], check=True)
