from __future__ import annotations

import io
import tarfile

import pytest

from hyperstack.errors import InvalidParameter
from hyperstack.image.links import Links
from tests.unit.image.test_tarscan import entry, made, names, scan

SYM, LINK, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("in/x", "to/deep/x"),
        ("in/sub/x", "to/deep/sub/x"),
        ("up/x", "to/deep/x"),
        ("abs/x", "to/x"),
        ("chain/x", "to/deep/x"),
        ("gone/x", "nowhere/x"),
        ("root/to/x", "to/x"),
        ("to/x", "to/x"),
        ("in", "in"),
        ("x", "x"),
    ],
)
def test_links_are_followed_as_in_a_root_of_their_own(path: str, real: str) -> None:
    links = Links({b"", b"to", b"to/deep"})
    links.add(b"in", b"to/deep")
    links.add(b"up", b"to/../to/./deep/")
    links.add(b"abs", b"/to")
    links.add(b"chain", b"in")
    links.add(b"gone", b"nowhere")
    links.add(b"root", b"/")
    assert links.followed(path.encode()) == real.encode()


def test_circles_and_links_that_lead_out_are_refused() -> None:
    links = Links({b""})
    links.add(b"a", b"b")
    links.add(b"b", b"a")
    links.add(b"out", b"../x")
    with pytest.raises(InvalidParameter, match="statat a: too many levels of symbolic links"):
        links.followed(b"a/x")
    with pytest.raises(InvalidParameter, match="statat out: path escapes from parent"):
        links.followed(b"out/x")


def test_a_link_in_place_of_a_directory_counts_for_what_follows() -> None:
    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "to", DIR)
        entry(tar, "a", DIR)
        entry(tar, "a/one", data=b"1")
        entry(tar, "a", SYM, link="to")
        entry(tar, "a/two", data=b"2")
        entry(tar, "a", DIR)
        entry(tar, "a/three", data=b"3")

    assert [n for n in names(scan(made(build))) if n[-1] in "eo"] == [
        "to", "a/one", "to/two", "a/three",
    ]  # fmt: skip


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("step", [1 << 20, 100])
def test_entries_behind_a_link_keep_all_but_their_name(format: int, step: int) -> None:
    deep = "d" * 90

    def build(tar: tarfile.TarFile) -> None:
        entry(tar, f"to/{deep}", DIR)
        entry(tar, "in", SYM, link=f"to/{deep}")
        info = tarfile.TarInfo(f"in/{'f' * 60}")
        info.mode, info.uid, info.gid, info.mtime, info.size = 0o4711, 7, 8, 99, 600
        if format == tarfile.PAX_FORMAT:
            info.pax_headers = {"SCHILY.xattr.user.k": "v"}
        tar.addfile(info, io.BytesIO(b"x" * 600))
        entry(tar, "in/.wh.old")
        entry(tar, "hard", LINK, link=f"in/{'f' * 60}")
        entry(tar, "in/sub/dir", DIR)

    out = scan(made(build, format), step)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        file = tar.getmember(f"to/{deep}/{'f' * 60}")
        assert (file.mode, file.uid, file.gid, file.mtime) == (0o4711, 7, 8, 99)
        extracted = tar.extractfile(file)
        assert extracted is not None
        assert extracted.read() == b"x" * 600
        if format == tarfile.PAX_FORMAT:
            assert file.pax_headers["SCHILY.xattr.user.k"] == "v"
        assert tar.getmember("hard").linkname == f"to/{deep}/{'f' * 60}"
        assert {f"to/{deep}/.wh.old", f"to/{deep}/sub", f"to/{deep}/sub/dir"} < set(tar.getnames())
