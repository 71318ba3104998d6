from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt, tarscan
from hyperstack.image.tarscan import TarScanner

Build = Callable[[tarfile.TarFile], None]


def entry(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    data: bytes = b"",
    link: str = "",
    pax: dict[str, str] | None = None,
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.pax_headers = pax or {}
    tar.addfile(info, io.BytesIO(data))


def sparse_entry(tar: tarfile.TarFile, parts: str, real: int, size: int) -> None:
    pax = {"GNU.sparse.map": parts, "GNU.sparse.size": str(real), "GNU.sparse.name": "f"}
    entry(tar, "GNUSparseFile.1/f", data=b"x" * size, pax=pax)


def front_entry(tar: tarfile.TarFile, parts: bytes) -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "20"}
    entry(tar, "GNUSparseFile.1/f", data=parts.ljust(512, b"\0"), pax=pax)


def made(build: Build, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        build(tar)
    return buffer.getvalue()


def scan(data: bytes, step: int = 1 << 20, scanner: TarScanner | None = None) -> bytes:
    scanner = scanner or TarScanner()
    out = bytearray()
    for start in range(0, len(data), step):
        for piece in scanner.feed(data[start : start + step]):
            out += piece
    for piece in scanner.finish():
        out += piece
    return bytes(out)


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [member.name for member in tar]


def several(tar: tarfile.TarFile) -> None:
    entry(tar, "a", tarfile.DIRTYPE)
    entry(tar, "a/file", data=b"x" * 1000)
    entry(tar, "a/" + "long" * 60, data=b"y" * 513, pax={"SCHILY.xattr.user.k": "v"})
    entry(tar, "b/c/d", data=b"z")
    entry(tar, "a/.wh.gone")
    entry(tar, "link", tarfile.SYMTYPE, link="a/file")


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_layer_passes_with_its_root_and_missing_parents_added(format: int) -> None:
    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "a", tarfile.DIRTYPE)
        entry(tar, "a/file", data=b"x" * 1000)
        entry(tar, "b/c/d", data=b"z")
        entry(tar, "./b/e", data=b"z")

    out = scan(made(build, format))
    assert names(out) == [".", "a", "a/file", "b", "b/c", "b/c/d", "./b/e"]
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        for name in ("b", "b/c"):
            member = tar.getmember(name)
            assert (member.isdir(), member.mode, member.uid, member.gid) == (True, 0o755, 0, 0)
        read = tar.extractfile("a/file")
        assert read is not None
        assert read.read() == b"x" * 1000


@settings(deadline=None)
@given(step=st.integers(min_value=1, max_value=3000))
def test_it_does_not_matter_how_the_bytes_are_cut(step: int) -> None:
    data = made(several)
    assert scan(data, step) == scan(data)


def test_entries_and_sizes_of_files_are_counted() -> None:
    scanner = TarScanner()
    scan(made(several), scanner=scanner)
    assert scanner.entries == 6
    assert scanner.content_size == 1000 + 513 + 1 + 6  # of a link its target


def test_an_attribute_cannot_speak_to_the_overlay() -> None:
    pax = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.keep": "1"}
    out = scan(made(lambda tar: entry(tar, "d", tarfile.DIRTYPE, pax=pax)))
    assert b"trusted.overlay." not in out
    assert b"SCHILY.xattr.user.keep=1" in out


def test_metadata_of_aufs_is_left_out_but_the_opaque_mark_stays() -> None:
    def build(tar: tarfile.TarFile) -> None:
        entry(tar, ".wh..wh.plnk", tarfile.DIRTYPE)
        entry(tar, ".wh..wh.plnk/1.2", data=b"q" * 600)
        entry(tar, "d", tarfile.DIRTYPE)
        entry(tar, "d/.wh..wh..opq")

    assert names(scan(made(build))) == [".", "d", "d/.wh..wh..opq"]


def test_global_pax_headers_are_ignored() -> None:
    head = tarfile.TarInfo.create_pax_global_header({"comment": "x", "path": "evil"})
    assert names(scan(head + made(lambda tar: entry(tar, "f")))) == [".", "f"]


def test_what_follows_the_end_is_not_handed_on() -> None:
    data = made(lambda tar: entry(tar, "f"))
    assert scan(data + b"garbage" * 1000) == scan(data)


def test_an_archive_without_an_end_mark_is_complete_at_an_entry() -> None:
    data = made(lambda tar: entry(tar, "f", data=b"1" * 512))
    assert names(scan(data[:1024])) == [".", "f"]


@pytest.mark.parametrize("cut", [100, 512 + 100, 1024 + 511])
def test_a_tar_that_was_cut_off_is_refused(cut: int) -> None:
    data = made(lambda tar: entry(tar, "f", data=b"1" * 1000))
    with pytest.raises(InvalidParameter, match="unexpected EOF"):
        scan(data[:cut])


@pytest.mark.parametrize("data", [b"", bytes(1024), bytes(10240)])
def test_an_empty_tar_is_a_layer_without_entries(data: bytes) -> None:
    scanner = TarScanner()
    assert names(scan(data, scanner=scanner)) == ["."]
    assert scanner.entries == 0


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda t: entry(t, "../out"), "invalid entry name"),
        (lambda t: entry(t, "a/../../out"), "invalid entry name"),
        (lambda t: entry(t, "n" * 256), "name too long"),
        (lambda t: entry(t, "/".join(["d"] * 300)), "name too long"),
        (lambda t: entry(t, "/".join(["d" * 100] * 41)), "name too long"),
        (lambda t: entry(t, "l", tarfile.SYMTYPE, link="x" * 4096), "name too long"),
        (lambda t: entry(t, "f", b"Z"), "unhandled tar header type 90"),
        (lambda t: entry(t, "f", tarfile.GNUTYPE_SPARSE, b"x"), "invalid tar header"),
        (lambda t: entry(t, "a/.wh."), "invalid whiteout"),
        (lambda t: entry(t, ".wh..."), "invalid whiteout"),
        (lambda t: entry(t, "f", pax={"GNU.sparse.map": "0,1"}), "invalid tar header"),
        (lambda t: sparse_entry(t, "5,5,0,5", 20, 10), "invalid tar header"),
        (lambda t: sparse_entry(t, "0,5,16,5", 20, 10), "invalid tar header"),
        (lambda t: sparse_entry(t, "0,5,10", 20, 10), "invalid tar header"),
        (lambda t: sparse_entry(t, "0,5", 20, 10), "invalid tar header"),
        (lambda t: sparse_entry(t, "0,10", 1 << 38, 10), "invalid tar header"),
        (lambda t: front_entry(t, b"99999999\n"), "more than 50000 pieces"),
        (lambda t: front_entry(t, b"x\n"), "invalid tar header"),
        (lambda t: front_entry(t, b"2\n0\n1\n"), "invalid tar header|unexpected EOF"),
        (lambda t: entry(t, "./", tarfile.SYMTYPE, link="x"), "must be a directory"),
    ],
)
def test_what_could_mean_harm_is_refused_in_one_sentence(build: Build, sentence: str) -> None:
    with pytest.raises(InvalidParameter, match=sentence):
        scan(made(build))


def test_holes_are_bounded_over_all_files() -> None:
    scanner = TarScanner()

    def build(tar: tarfile.TarFile) -> None:
        for _ in range(2):
            sparse_entry(tar, "0,1", 100 << 30, 1)

    data = made(build)
    with pytest.raises(InvalidParameter, match="the layer's holes are over 128 GiB"):
        scanner.feed(data)


def test_too_many_entries_are_refused() -> None:
    def build(tar: tarfile.TarFile) -> None:
        for number in range(11):
            entry(tar, f"f{number}")

    with pytest.raises(InvalidParameter, match="more than 10 entries"):
        scan(made(build), scanner=TarScanner(max_entries=10))


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.REGTYPE])
def test_the_names_that_are_remembered_are_bounded(
    monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr(tarscan, "MAX_KEPT", 1 << 20)

    with pytest.raises(InvalidParameter, match="the names of the layer's folders and links"):
        scan(made(lambda tar: many(tar, kind)))


def many(tar: tarfile.TarFile, kind: bytes) -> None:
    for number in range(2000):
        name = f"{'a' * 200}/{'b' * 200}/{number:0200}"
        link = "c" * 2000 if kind == tarfile.SYMTYPE else ""
        entry(tar, f"{name}/f" if kind == tarfile.REGTYPE else name, kind, link=link)


def test_noise_is_no_tar() -> None:
    with pytest.raises(InvalidParameter, match="invalid tar header"):
        scan(b"\x01" * 2048)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=4096), st.integers(0, 3000))
def test_damaged_tars_are_refused_or_pass_but_nothing_else(noise: bytes, at: int) -> None:
    data = bytearray(made(several))
    data[at : at + len(noise)] = noise
    try:
        scan(bytes(data))
    except InvalidParameter:
        pass


def test_a_header_made_here_is_read_back_by_others() -> None:
    name = b"x" * 150 + b"/"
    data = tarfmt.make(name, kind=tarfmt.DIRECTORY, mode=0o755) + tarfmt.ZERO * 2
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (member,) = tar.getmembers()
    assert member.name == name.decode().rstrip("/")
    assert member.isdir()


@pytest.mark.parametrize(
    ("field", "value"),
    [(b"0000644\0", 0o644), (b"    644 ", 0o644), (b"\0" * 8, 0), (b"\x80\0\0\0\0\0\1\0", 256)],
)
def test_numbers_are_octal_or_base_256(field: bytes, value: int) -> None:
    assert tarfmt.number(field) == value


@pytest.mark.parametrize("field", [b"12x\0\0\0\0\0", b"\xff" * 8, b"\x80" + b"\xff" * 11])
def test_other_numbers_are_refused(field: bytes) -> None:
    with pytest.raises(InvalidParameter):
        tarfmt.number(field)


@pytest.mark.parametrize(
    "data", [b"5 a=b", b"x a=b\n", b"6 a=b\n\n", b"99 a=b\n", b"4 a\n", b"5 =b\n"]
)
def test_broken_pax_records_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        tarfmt.parse_pax(data)


def test_pax_records_may_hold_any_bytes() -> None:
    assert tarfmt.parse_pax(b"9 k=\n=\0x\n6 a=b\n") == {b"k": b"\n=\0x", b"a": b"b"}
