from __future__ import annotations

import asyncio
import gzip
import os
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image import layer as layer_module
from hyperstack.image.layer import LayerStore
from hyperstack.image.service import ImageService
from tests.integration.image.tars import CHR, DIR, LINK, SYM, digest, entry, files, made, mounted


@pytest.fixture
def layers(images: ImageService) -> LayerStore:
    return images.registry.layers


async def apply(layers: LayerStore, blob: bytes, diff_id: str | None, step: int = 50_000) -> str:
    async with layers.apply_stream(diff_id) as layer:
        for start in range(0, len(blob), step):
            await layer.write(blob[start : start + step])
        return (await layer.commit()).diff_id


def rich(tar: tarfile.TarFile) -> None:
    entry(tar, "bin", DIR, mode=0o755)
    capability = "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    entry(tar, "bin/ping", data=b"p" * 9000, mode=0o4755, owner=(1000, 70_000),
          pax={"SCHILY.xattr.security.capability": capability})  # fmt: skip
    entry(tar, "bin/ping2", LINK, link="bin/ping")
    entry(tar, "sh", SYM, link="/bin/busybox")
    entry(tar, "null", CHR, device=(1, 3), mode=0o666)
    entry(tar, "fifo", tarfile.FIFOTYPE)
    entry(tar, "own/er/file", data=b"deep")
    entry(tar, "big", data=b"1", owner=(3_000_000_000, 3_000_000_000))
    entry(tar, "twice", data=b"first")
    entry(tar, "twice", data=b"second")
    entry(tar, "ünï", data=b"u")


async def test_a_layer_keeps_all_that_a_tar_says(layers: LayerStore, tmp_path: Path) -> None:
    tar = made(rich)
    assert await apply(layers, tar, digest(tar)) == digest(tar)
    with mounted([layers.path(digest(tar))], tmp_path / "m") as root:
        ping = (root / "bin/ping").stat()
        assert (ping.st_mode & 0o7777, ping.st_uid, ping.st_gid) == (0o4755, 1000, 70_000)
        assert ping.st_ino == (root / "bin/ping2").stat().st_ino
        assert ping.st_mtime == 1_600_000_000
        assert (root / "bin/ping").read_bytes() == b"p" * 9000
        assert len(os.getxattr(root / "bin/ping", "security.capability")) == 20
        assert str((root / "sh").readlink()) == "/bin/busybox"
        assert (root / "null").stat().st_rdev == os.makedev(1, 3)
        assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
        assert (root / "big").stat().st_uid == 3_000_000_000
        assert (root / "twice").read_bytes() == b"second"
        assert (root / "ünï").read_bytes() == b"u"
        for path in (root, root / "own", root / "own/er"):
            status = path.stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)


async def test_sparse_files_and_what_lies_behind_a_link_become_plain_files(
    layers: LayerStore, tmp_path: Path
) -> None:
    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "usr/lib", DIR)
        entry(tar, "lib", SYM, link="usr/lib")
        entry(tar, "lib/so", data=b"so", owner=(7, 8), mode=0o711)
        entry(tar, "again", LINK, link="lib/so")
        pax = {"GNU.sparse.map": "4096,3,9000,2", "GNU.sparse.size": "20000"}
        entry(tar, "GNUSparseFile/holes", data=b"abcde",
              pax={**pax, "GNU.sparse.name": "lib/holes"})  # fmt: skip

    data = made(build)
    await apply(layers, data, digest(data))
    with mounted([layers.path(digest(data))], tmp_path / "m") as root:
        so = (root / "usr/lib/so").stat()
        assert (so.st_mode & 0o7777, so.st_uid, so.st_gid) == (0o711, 7, 8)
        assert so.st_ino == (root / "again").stat().st_ino
        assert str((root / "lib").readlink()) == "usr/lib"
        holes = (root / "usr/lib/holes").read_bytes()
        assert holes == (bytes(4096) + b"abc").ljust(9000, b"\0") + b"de" + bytes(10_998)
        assert not (root / "GNUSparseFile").exists()


async def test_whiteouts_and_opaque_folders_hide_what_is_below(
    layers: LayerStore, tmp_path: Path
) -> None:
    def below(tar: tarfile.TarFile) -> None:
        for name in ("gone", "kept", "d/gone", "o/gone"):
            entry(tar, name, data=b"below")

    def above(tar: tarfile.TarFile) -> None:
        entry(tar, ".wh.gone")
        entry(tar, "d", DIR, mode=0o755)
        entry(tar, "d/.wh.gone")
        entry(tar, "o", DIR, mode=0o755)
        entry(tar, "o/.wh..wh..opq")
        entry(tar, "o/new", data=b"above")

    ids = [await apply(layers, made(build), None) for build in (below, above)]
    with mounted([layers.path(d) for d in reversed(ids)], tmp_path / "m") as root:
        assert sorted(p.name for p in root.iterdir()) == ["d", "kept", "o"]
        assert not list((root / "d").iterdir())
        assert [p.name for p in (root / "o").iterdir()] == ["new"]


async def test_127_layers_stack(layers: LayerStore, tmp_path: Path) -> None:
    ids = []
    for number in range(127):
        ids.append(await apply(layers, files(**{f"f{number}": b"x", "same": b"%d" % number}), None))
    with mounted([layers.path(d) for d in reversed(ids)], tmp_path / "m") as root:
        assert len(list(root.iterdir())) == 128
        assert (root / "same").read_bytes() == b"126"


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "two members"])
async def test_a_blob_is_decompressed_however_it_is_packed(layers: LayerStore, how: str) -> None:
    tar = files(a=os.urandom(300_000), b=bytes(3_000_000))
    half = len(tar) // 2
    blob = {
        "plain": tar,
        "gzip": gzip.compress(tar),
        "zstd": zstandard.compress(tar),
        "two members": gzip.compress(tar[:half]) + gzip.compress(tar[half:]),
    }[how]
    assert await apply(layers, blob, digest(tar)) == digest(tar)
    info = layers.info(digest(tar))
    assert (info.tar_size, info.content_size) == (len(tar), 3_300_000)


async def test_a_layer_is_root_s_and_read_only(layers: LayerStore) -> None:
    tar = files(a=b"1")
    await apply(layers, tar, None)
    status = layers.path(digest(tar)).stat()
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert (status.st_uid, status.st_gid, status.st_nlink) == (0, 0, 1)


async def test_the_same_layer_always_becomes_the_same_file(layers: LayerStore) -> None:
    tar = made(rich)
    await apply(layers, tar, None)
    first = layers.path(digest(tar)).read_bytes()
    layers.discard([digest(tar)])[0].unlink()
    await apply(layers, gzip.compress(tar), None)
    assert layers.path(digest(tar)).read_bytes() == first


def _cut(tar: bytes) -> bytes:
    return tar[: len(tar) // 2 - 100]


def _behind_a_link(tar: tarfile.TarFile) -> None:
    entry(tar, "l", SYM, link="../x")
    entry(tar, "l/f")


TAR = files(a=b"x" * 200_000)


@pytest.mark.parametrize(
    ("blob", "sentence"),
    [
        (_cut(TAR), "unexpected EOF"),
        (gzip.compress(_cut(TAR)), "unexpected EOF"),
        (gzip.compress(TAR)[:-20], "unexpected EOF"),
        (b"\x1f\x8b\x08" + b"\xff" * 2000, "invalid gzip data"),
        (os.urandom(100_000), "invalid tar header"),
        (made(lambda tar: entry(tar, "h", LINK, link="nowhere")), "not a valid file system"),
        (made(_behind_a_link), "statat l: path escapes from parent"),
        (made(lambda tar: entry(tar, "../../etc/passwd", data=b"x")), "invalid entry name"),
        (TAR, "layer verification failed"),
    ],
)
async def test_a_bad_layer_is_one_sentence_and_leaves_nothing(
    layers: LayerStore, blob: bytes, sentence: str
) -> None:
    wanted = "sha256:" + "0" * 64
    with pytest.raises(InvalidParameter, match=sentence) as caught:
        await apply(layers, blob, wanted)
    assert "\n" not in caught.value.message
    assert not layers.has(wanted)
    assert not list(layers.diff_ids())


async def test_a_bomb_is_stopped_at_the_bound(
    layers: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_module, "MAX_TAR", 100 << 20)
    tar = made(lambda t: entry(t, "zeros", data=bytes(120 << 20)))
    bomb = zstandard.compress(tar)
    assert len(bomb) < 100_000
    with pytest.raises(InvalidParameter, match="larger than"):
        await apply(layers, bomb, None)


async def test_a_full_disk_is_said_so(layers: LayerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_module, "RESERVE", 1 << 60)
    with pytest.raises(InternalError, match="no space left on device"):
        await apply(layers, TAR, None)


async def test_leaving_without_commit_leaves_nothing(layers: LayerStore) -> None:
    async with layers.apply_stream(None) as layer:
        await layer.write(TAR)
    assert not list(layers.diff_ids())


async def test_cancelling_ends_the_jail_even_if_its_pipe_is_full(layers: LayerStore) -> None:
    begun = asyncio.Event()
    big = files(a=bytes(50 << 20))

    async def stuck() -> None:
        async with layers.apply_stream(None) as layer:
            for start in range(0, len(big), 1 << 20):
                await layer.write(big[start : start + (1 << 20)])
                begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(stuck())
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not list(layers.jobs.iterdir())


async def test_two_who_want_one_layer_take_turns_and_the_second_has_nothing_to_do(
    layers: LayerStore,
) -> None:
    seen: list[bool] = []

    async def one() -> None:
        async with layers.apply_stream(digest(TAR), proven=True) as layer:
            seen.append(layer.complete)
            await layer.write(TAR)
            await layer.commit()

    await asyncio.gather(one(), one(), one())
    assert seen == [False, True, True]


async def test_a_blob_for_a_layer_that_is_here_is_verified_all_the_same(
    layers: LayerStore, tmp_path: Path
) -> None:
    await apply(layers, TAR, digest(TAR))
    file = layers.path(digest(TAR)).stat()
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(gzip.compress(TAR))
    bad.write_bytes(gzip.compress(files(other=b"x")))
    await layers.apply(digest(TAR), good)
    with pytest.raises(InvalidParameter, match="layer verification failed"):
        await layers.apply(digest(TAR), bad)
    assert layers.path(digest(TAR)).stat() == file


async def test_many_layers_at_once_all_arrive(layers: LayerStore) -> None:
    tars = [files(a=os.urandom(100_000)) for _ in range(12)]
    await asyncio.gather(*(apply(layers, tar, digest(tar)) for tar in tars))
    assert all(layers.has(digest(tar)) for tar in tars)


async def test_a_blob_that_is_here_is_applied_with_reports(
    layers: LayerStore, tmp_path: Path
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(gzip.compress(files(a=os.urandom(3 << 20))))
    said: list[int] = []
    info = await layers.apply(
        None, blob, "application/vnd.oci.image.layer.v1.tar+gzip", said.append
    )
    assert layers.has(info.diff_id)
    assert said == sorted(said)
    assert said[-1] == blob.stat().st_size


async def test_what_is_no_layer_by_its_media_type_is_refused(layers: LayerStore) -> None:
    with pytest.raises(InvalidParameter, match="unsupported layer media type"):
        async with layers.apply_stream(None, "application/json"):
            pass
