"""A disk that refuses: the log goes on when it can, disks are copied between file systems."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hyperstack.engine import disks
from hyperstack.engine.logging.logfile import LogSettings, LogWriter
from hyperstack.model import StreamKind

OUT = StreamKind.STDOUT


class Refusing:
    """Stands before os.write: takes some bytes of each write, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        real = os.write

        def write(fd: int, data: bytes) -> int:
            if self.room is None:
                return real(fd, data)
            if self.room <= 0:
                raise OSError(28, "No space left on device")
            taken = real(fd, data[: self.room])
            self.room -= taken
            return taken

        monkeypatch.setattr(os, "write", write)


def lines(path: Path) -> list[str]:
    """Return the texts of a json-file log; fails if a record is broken."""
    return [json.loads(line)["log"] for line in path.read_text().splitlines()]


def test_a_record_that_did_not_fit_leaves_no_part_and_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    writer = LogWriter(LogSettings(path=path, state=tmp_path / "state"), 1, fresh=True)
    disk = Refusing(monkeypatch)
    writer.append(OUT, 0, b"one\n", 0)
    disk.room = 10
    writer.append(OUT, 4, b"two\n", 0)
    writer.append(OUT, 8, b"three\n", 0)
    assert lines(path) == ["one\n"]
    disk.room = None
    writer.append(OUT, 14, b"four\n", 0)
    writer.finish(OUT)
    assert lines(path) == ["one\n", "four\n"]
    assert writer.taken(OUT) == 19, "the guest need not keep what the log could not"
    writer.close()
    again = LogWriter(LogSettings(path=path, state=tmp_path / "state"), 1, fresh=False)
    assert again.taken(OUT) == 19
    again.close()
    assert lines(path) == ["one\n", "four\n"]


def test_a_rotation_that_fails_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    settings = LogSettings(path=path, state=tmp_path / "state", max_size=200, max_files=2)
    writer = LogWriter(settings, 1, fresh=True)
    for number in range(3):
        writer.append(OUT, 5 * number, b"line\n", 0)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", rename)
    writer.append(OUT, 15, b"lost\n", 0)
    monkeypatch.setattr(Path, "rename", real)
    writer.append(OUT, 20, b"kept\n", 0)
    writer.close()
    assert lines(path)[-1] == "kept\n"


def test_a_log_that_was_deleted_is_rotated_without_complaint(tmp_path: Path) -> None:
    path = tmp_path / "log"
    settings = LogSettings(path=path, state=tmp_path / "state", max_size=100, max_files=2)
    writer = LogWriter(settings, 1, fresh=True)
    writer.append(OUT, 0, b"x" * 60 + b"\n", 0)
    path.unlink()
    writer.append(OUT, 61, b"y" * 60 + b"\n", 0)
    writer.append(OUT, 122, b"z\n", 0)
    writer.close()
    assert lines(path)[-1] == "z\n"


def test_a_sparse_file_is_copied_where_the_kernel_does_not_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.write(b"head" * 1000)
        file.seek(8 << 20)
        file.write(os.urandom(3 << 20))
        file.truncate(64 << 20)

    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    disks.copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 8 << 20
