"""Layer files that are gone, cut off or something else are told from whole ones."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hyperstack.image.erofs import MAGIC, is_whole


def image(blocks: int, magic: int = MAGIC) -> bytes:
    """Return what begins like an EROFS image of *blocks* blocks of 4 KiB."""
    made = bytearray(blocks * 4096)
    struct.pack_into("<I", made, 1024, magic)
    made[1024 + 12] = 12
    struct.pack_into("<I", made, 1024 + 36, blocks)
    return bytes(made)


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (image(3), True),
        (image(3)[:-1], False),
        (image(3) + b"x", False),
        (image(3, magic=7), False),
        (b"", False),
        (b"short", False),
    ],
)
def test_a_layer_is_as_long_as_it_says(tmp_path: Path, content: bytes, whole: bool) -> None:
    path = tmp_path / "layer.erofs"
    path.write_bytes(content)
    assert is_whole(path) is whole


def test_a_missing_layer_or_a_folder_is_none(tmp_path: Path) -> None:
    assert not is_whole(tmp_path / "missing.erofs")
    assert not is_whole(tmp_path)
