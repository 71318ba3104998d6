"""Contexts: trees of tars, checksums as Docker's, what COPY picks and writes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.build import context, copying, scan, tarwrite
from hyperstack.build.tarwrite import Entry
from hyperstack.build.tree import NotThere, Unreachable
from hyperstack.errors import HyperError, InvalidParameter

from tests.unit.build.tars import TIME, context as tar_of, tree_of  # isort: skip

FILES = {
    "a": "hi\n",
    "b": "yo\n",
    "d": None,
    "d/s": None,
    "d/s/c": "z",
    "d/f": "f",
    "l": ("a",),
    "dl": ("/d/s/..",),
    "up": ("../../../a",),
    "loop": ("loop",),
}


def test_links_are_followed_within_the_context(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "t", tar_of(FILES))
    for path, real in (("l", "a"), ("dl/f", "d/f"), ("up", "a"), ("../x/../a", "")):
        if real:
            assert tree.find(path)[0] == real
        else:
            with pytest.raises(NotThere):
                tree.find(path)
    for path in ("loop", "a/x"):
        with pytest.raises(Unreachable):
            tree.find(path)


def test_sources_hash_as_they_do_with_docker(tmp_path: Path) -> None:
    """The figures were read from a real engine's history of the same context."""
    tree = tree_of(tmp_path / "t", tar_of(FILES))

    def digest(*sources: str) -> str:
        found = [p for one in sources for p in copying.pick(tree, one, "COPY", image=False)]
        return copying.digest(found)

    file = "file:3fe3cedb10952b626a6d59d23fa934731aa533e2769623feeeed546c83cdf9f6"
    assert digest("a") == digest("l") == digest("./up") == file
    assert digest("d") == DIRECTORY
    assert digest("a", "b", "d/f") == SEVERAL


DIRECTORY = "dir:3cd3bb6a8c177bab2c6bd53b418e8bbc11158f0336b0bea0315ee3ded5da03e6"
SEVERAL = "multi:6d71b9689ee513e7886344d3e3b1c335201699c842c02390a2031615270ef190"


def test_a_link_that_leads_to_nothing_hashes_as_its_path(tmp_path: Path) -> None:
    """The figure was read from a real engine's history of the same context."""
    tree = tree_of(tmp_path / "t", tar_of({"e": None, "e/d": ("nowhere",)}))
    (picked,) = copying.pick(tree, "e", "COPY", image=False)
    assert picked.digest == DANGLING


DANGLING = "dir:e0b5ca390fd17d28f03b44e8bf8d8aeb16a17e81055649862032056d807c5a85"


def test_the_last_header_of_a_hard_link_says_how_the_file_is(tmp_path: Path) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, mode, link in (("a", 0o600, ""), ("b", 0o755, "a")):
            member = tarfile.TarInfo(name)
            member.mode, member.linkname = mode, link
            member.type = tarfile.LNKTYPE if link else tarfile.REGTYPE
            tar.addfile(member)
    tree = tree_of(tmp_path / "t", body.getvalue())
    assert [tree.find(name)[1].mode for name in ("a", "b")] == [0o755, 0o755]


def test_patterns_pick_in_order(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "t", tar_of(FILES))
    assert [p.path for p in copying.pick(tree, "?", "COPY", image=False)] == ["a", "b", "d", "l"]
    assert [p.path for p in copying.pick(tree, "d/*", "ADD", image=False)] == ["d/f", "d/s"]
    assert copying.pick(tree, "z*", "COPY", image=False) == []
    missing = "file not found in build context or excluded by .dockerignore: stat zz: file does not"
    for name, words in (
        ("/zz", f"{missing} exist"),
        ("../a", "forbidden path outside the build context: ../a ()"),
        ("a/b", "forbidden path outside the build context: a/b ()"),
    ):
        with pytest.raises(InvalidParameter) as caught:
            copying.pick(tree, name, "COPY", image=False)
        assert caught.value.message == f"COPY failed: {words}"


@pytest.mark.parametrize(
    ("working", "asked", "place"),
    [
        ("/w", "x", "/w/x"),
        ("/w", ".", "/w"),
        ("", "x/", "/x/"),
        ("/w", "./", "/w/"),
        ("/w", "/abs/../y/", "/abs/../y/"),
        ("", ".", "/"),
    ],
)
def test_destinations_keep_their_slash(working: str, asked: str, place: str) -> None:
    assert copying.destination(working, asked) == place


def test_later_entries_replace_earlier_ones_and_hard_links_are_one_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link, data in (
            ("x", tarfile.DIRTYPE, "", b""),
            ("x/y", tarfile.REGTYPE, "", b"one"),
            ("h", tarfile.LNKTYPE, "x/y", b""),
            ("x", tarfile.REGTYPE, "", b"two"),
            ("deep/er/z", tarfile.REGTYPE, "", b"z"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, len(data)
            tar.addfile(entry, io.BytesIO(data))
    tree = tree_of(tmp_path / "t", buffer.getvalue())
    assert tree.find("x")[1].size == 3
    assert tree.find("h")[1].size == 3
    assert tree.find("deep/er")[1].is_dir
    with pytest.raises(Unreachable):
        tree.find("x/y")


@pytest.mark.parametrize("name", ["../x", "a/../../x"])
def test_a_name_that_leaves_the_context_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid entry name"):
        tree_of(tmp_path / "t", tar_of({name: "x"}))


@pytest.mark.parametrize("cut", [100, 600, 700])
def test_a_tar_that_was_cut_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(InvalidParameter):
        tree_of(tmp_path / "t", tar_of({"a": "x" * 1000})[:cut])


@given(st.binary(max_size=2048))
def test_any_bytes_are_a_tree_or_refused(data: bytes) -> None:
    path = Path(f"/tmp/hyper-scan-{os.getpid()}")
    try:
        tree_of(path, data)
    except InvalidParameter:
        pass
    finally:
        path.unlink()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 700):
        yield data[start : start + 700]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
async def test_a_context_may_come_compressed(tmp_path: Path, pack: type[bytes]) -> None:
    async with context.spooled(_pieces(pack(tar_of(FILES))), tmp_path / "tmp") as spool:
        tree = await context.load(spool)
        assert tree.find("d/s/c")[1].size == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_dockerfile_is_found_and_left_out_if_ignored(tmp_path: Path) -> None:
    files = {**FILES, "Dockerfile": "FROM x\n", ".dockerignore": "Docker*\n"}
    tree = tree_of(tmp_path / "t", tar_of(files))
    assert context.take_dockerfile(tree, "") == "FROM x\n"
    assert tree.lookup("Dockerfile") is None
    assert tree.lookup(".dockerignore") is not None
    tree = tree_of(tmp_path / "t", tar_of({"dockerfile": "FROM y\n", "e": ""}))
    assert context.take_dockerfile(tree, "") == "FROM y\n"
    for name, words in (
        ("no", "Cannot locate specified Dockerfile: no"),
        ("../no", "forbidden path outside the build context: ../no ()"),
        ("e", "the Dockerfile (e) cannot be empty"),
    ):
        with pytest.raises(HyperError) as caught:
            context.take_dockerfile(tree, name)
        assert caught.value.message == words


async def test_a_written_tar_is_read_by_others(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "t", tar_of(FILES))
    long = "n" * 90 + "/" + "m" * 90
    fd = os.open(tree.spool, os.O_RDONLY)
    try:
        entries = [
            Entry(name="d", node=tree.find("d")[1], owner=(1, 2)),
            Entry(name=long, node=tree.find("a")[1], owner=(3_000_000, 4), source=fd),
            Entry(name="hard", node=tree.find("a")[1], owner=(3, 4), source=fd, link=long),
            Entry(name="ln", node=tree.root.children["l"], owner=(0, 0)),  # type: ignore[index]
            Entry(name="bytes-\udcff", node=tree.find("b")[1], owner=(0, 0), source=fd),
        ]
        data = b"".join([part async for part in tarwrite.write(iter(entries))])
    finally:
        os.close(fd)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {e.name: e for e in tar.getmembers()}
        assert found["d"].isdir()
        assert (found["d"].uid, found["d"].gid, found["d"].mode) == (1, 2, 0o750)
        assert (found[long].uid, found[long].mtime) == (3_000_000, TIME)
        content = tar.extractfile(long)
        assert content is not None
        assert content.read() == b"hi\n"
        assert found["hard"].linkname == long
        assert found["ln"].linkname == "a"
        assert found["bytes-\udcff"].size == 3
    (tmp_path / "again").write_bytes(data)
    assert scan.read(tmp_path / "again").find(long)[1].uid == 3_000_000
