"""Taking the ELF kernel out of a bzImage."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hyperstack.errors import InternalError
from hyperstack.guest import kitkernel

KERNEL = b"\x7fELF" + b"code" * 500 + struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)


def make_image(payload: bytes, sectors: int = 3) -> bytes:
    """Make what a bzImage is to a reader of its header (boot.rst)."""
    image = bytearray((sectors + 1) * 512)
    image[0x1F1] = sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image) + bytes(100) + payload + b"trailer"


@pytest.mark.parametrize(
    "compress",
    [zstandard.ZstdCompressor().compress, lzma.compress, gzip.compress],
    ids=["zstd", "xz", "gzip"],
)
def test_the_kernel_is_found_however_it_is_compressed(
    compress: Callable[[bytes], bytes],
) -> None:
    payload = compress(KERNEL) + struct.pack("<I", len(KERNEL))
    assert kitkernel.elf_of(make_image(payload)) == KERNEL


def test_a_kernel_without_the_entry_or_in_an_unknown_form_stays_a_bzimage() -> None:
    assert kitkernel.elf_of(make_image(gzip.compress(b"\x7fELF" + bytes(100)))) is None
    assert kitkernel.elf_of(make_image(b"\x02\x21\x4c\x18" + bytes(100))) is None


@pytest.mark.parametrize("image", [b"", b"short", bytes(4096), b"\x7fELF" + bytes(1000)])
def test_what_is_no_bzimage_is_refused(image: bytes) -> None:
    with pytest.raises(InternalError, match="no bzImage"):
        kitkernel.elf_of(image)


def test_a_damaged_kernel_is_refused() -> None:
    damaged = bytearray(zstandard.ZstdCompressor().compress(KERNEL))
    damaged[6:20] = b"\xff" * 14
    with pytest.raises(InternalError, match="can't be unpacked"):
        kitkernel.elf_of(make_image(bytes(damaged)))


def test_zeros_are_holes(tmp_path: Path) -> None:
    data = b"head" + bytes(1 << 20) + b"tail"
    kitkernel.write_sparse(tmp_path / "kernel", data)
    assert (tmp_path / "kernel").read_bytes() == data
    assert (tmp_path / "kernel").stat().st_blocks * 512 <= 16 << 10
