from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import AsyncIterator

import pytest
import zstandard

from hyperstack.errors import InvalidParameter
from hyperstack.image import compression
from hyperstack.image.compression import (
    Compression,
    GzipEncoder,
    SniffingDecoder,
    inflate,
    sniff,
)

PLAIN = os.urandom(300_000) + bytes(2_000_000) + b"tail"
PACKED = {
    Compression.NONE: b"plain" + PLAIN,
    Compression.GZIP: gzip.compress(PLAIN, 1),
    Compression.ZSTD: zstandard.ZstdCompressor(level=1, write_checksum=True).compress(PLAIN),
    Compression.BZIP2: bz2.compress(PLAIN, 1),
    Compression.XZ: lzma.compress(PLAIN, preset=0),
}


def unpack(data: bytes, step: int) -> tuple[bytes, Compression | None, int]:
    pieces: list[bytes] = []
    one = SniffingDecoder(pieces.append)
    for start in range(0, len(data), step):
        one.write(data[start : start + step])
    one.finish()
    return b"".join(pieces), one.kind, max(map(len, pieces), default=0)


@pytest.mark.parametrize("kind", list(Compression))
@pytest.mark.parametrize("step", [97, 65_536, 1 << 22])
def test_every_format_is_recognised_and_comes_out_in_bounded_pieces(
    kind: Compression, step: int
) -> None:
    plain, found, longest = unpack(PACKED[kind], step)
    assert found is kind
    assert plain == (b"plain" + PLAIN if kind is Compression.NONE else PLAIN)
    assert longest <= (step if kind is Compression.NONE else compression.PIECE) or step == 97


@pytest.mark.parametrize(
    "kind", [Compression.GZIP, Compression.ZSTD, Compression.BZIP2, Compression.XZ]
)
def test_members_one_after_another_are_one_stream(kind: Compression) -> None:
    assert unpack(PACKED[kind] * 2, 5000)[0] == PLAIN * 2


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.BZIP2, Compression.XZ])
def test_a_stream_that_was_cut_off_is_refused(kind: Compression) -> None:
    with pytest.raises(InvalidParameter, match="EOF"):
        unpack(PACKED[kind][:-5], 5000)


@pytest.mark.parametrize(
    "kind", [Compression.GZIP, Compression.ZSTD, Compression.BZIP2, Compression.XZ]
)
def test_damaged_streams_are_refused(kind: Compression) -> None:
    data = bytearray(PACKED[kind])
    data[len(data) // 3 : len(data) // 3 + 50] = b"\xff" * 50
    with pytest.raises(InvalidParameter, match=rf"invalid {kind} data|EOF"):
        unpack(bytes(data), 5000)


def test_garbage_behind_a_gzip_member_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        unpack(PACKED[Compression.GZIP] + b"garbage", 5000)


def test_what_the_receiver_raises_is_not_taken_for_damage() -> None:
    def full(data: bytes) -> None:
        raise BrokenPipeError

    for kind in (Compression.GZIP, Compression.ZSTD, Compression.XZ):
        one = SniffingDecoder(full)
        with pytest.raises(BrokenPipeError):
            one.write(PACKED[kind])


def test_a_tar_whose_first_name_is_a_magic_is_a_tar() -> None:
    block = b"BZh9".ljust(257, b"\0") + b"ustar\0"
    assert sniff(block.ljust(512, b"\0")) is Compression.NONE


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


@pytest.mark.parametrize("kind", list(Compression))
async def test_a_stream_is_inflated_without_ever_being_in_memory(kind: Compression) -> None:
    data = PACKED[kind]
    out = [piece async for piece in inflate(chunks(data))]
    assert b"".join(out) == (data if kind is Compression.NONE else PLAIN)


@pytest.mark.parametrize("data", [b"", b"short"])
async def test_a_short_stream_is_a_plain_one(data: bytes) -> None:
    assert b"".join([piece async for piece in inflate(chunks(data))]) == data


def test_what_is_compressed_here_is_gzip_and_always_the_same() -> None:
    def packed() -> bytes:
        encoder = GzipEncoder()
        return encoder.write(PLAIN) + encoder.finish()

    assert gzip.decompress(packed()) == PLAIN
    assert packed() == packed()
