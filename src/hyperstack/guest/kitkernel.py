"""Takes the kernel itself out of a bzImage, for machines that start an ELF kernel directly (PVH).

The boot protocol says where the compressed kernel lies (Documentation/arch/x86/boot.rst of Linux,
``payload_offset``). A guest that unpacks it by itself pays for that at every boot: 1 of 4.4 CPU
seconds in software emulation, 0.1 with KVM. That the kernel has the entry for it is said by a note
of its own (``XEN_ELFNOTE_PHYS32_ENTRY``, include/xen/interface/elfnote.h).
"""

from __future__ import annotations

import lzma
import struct
import zlib
from pathlib import Path

import zstandard

from hyperstack.errors import InternalError

SECTOR = 512
MAX_KERNEL = 512 << 20
PVH_NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0"
"""Head of the note: lengths of name and value, type, name."""
_ZSTD, _XZ, _GZIP = b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"\x1f\x8b"
BLOCK = 4096


def elf_of(image: bytes) -> bytes | None:
    """Return the ELF kernel in a bzImage; None if it can't be started as one.

    That is so for a way of compression that this doesn't know and for a kernel without the PVH
    entry: such a kernel is started as the bzImage that it is. Raises InternalError if the image is
    no bzImage.
    """
    try:
        payload = _payload(image)
    except struct.error as error:
        raise InternalError("the kernel is no bzImage: it is too short") from error
    try:
        kernel = _decompressed(payload)
    except (zstandard.ZstdError, lzma.LZMAError, zlib.error) as error:
        raise InternalError(f"the kernel can't be unpacked: {error}") from error
    if kernel is None or kernel[:4] != b"\x7fELF" or PVH_NOTE not in kernel:
        return None
    return kernel


def _payload(image: bytes) -> bytes:
    if image[0x202:0x206] != b"HdrS":
        raise InternalError("the kernel is no bzImage")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * SECTOR + offset
    return image[start : start + length]


def _decompressed(payload: bytes) -> bytes | None:
    # The last four bytes are the size, appended by the kernel's build: bytes after the end.
    if payload.startswith(_ZSTD):
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    if payload.startswith(_XZ):
        return lzma.LZMADecompressor().decompress(payload, MAX_KERNEL)
    if payload.startswith(_GZIP):
        return zlib.decompressobj(31).decompress(payload, MAX_KERNEL)
    return None


def write_sparse(path: Path, data: bytes) -> None:
    """Write a file with holes where blocks are zero (an ELF kernel carries its .bss so)."""
    zero = bytes(BLOCK)
    with path.open("wb") as file:
        file.truncate(len(data))
        for offset in range(0, len(data), BLOCK):
            block = data[offset : offset + BLOCK]
            if block != zero[: len(block)]:
                file.seek(offset)
                file.write(block)
