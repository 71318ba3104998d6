"""Hard links to disks: of files alone, owned by whom they are given to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyperstack.errors import GuestError
from hyperstack.vmm import files
from hyperstack.vmm.base import Disk

UID = os.geteuid()


def _disk(path: Path, *, read_only: bool = True) -> Disk:
    return Disk(path=path, read_only=read_only, name="disk0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files.make_folder(tmp_path / "disks")


def test_a_writable_disk_is_the_same_file_and_its_owners_alone(
    tmp_path: Path, folder: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"data")
    files.link_writable(folder, _disk(image, read_only=False), UID)
    status = (folder / "disk0").stat()
    assert status.st_ino == image.stat().st_ino
    assert (status.st_uid, status.st_mode & 0o777) == (UID, 0o600)


def test_a_layer_that_all_may_read_keeps_its_owner_and_mode(tmp_path: Path, folder: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"data")
    image.chmod(0o444)
    files.link_read_only(folder, _disk(image), UID)
    assert (folder / "disk0").stat().st_mode & 0o777 == 0o444


def test_a_private_read_only_disk_becomes_readable_to_its_machine(
    tmp_path: Path, folder: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"data")
    image.chmod(0o600)
    files.link_read_only(folder, _disk(image), UID)
    assert (folder / "disk0").stat().st_mode & 0o777 == 0o400


def test_a_link_in_place_of_a_disk_is_not_followed(tmp_path: Path, folder: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"secret")
    victim.chmod(0o640)
    (tmp_path / "image").symlink_to(victim)
    with pytest.raises(GuestError, match="disk disk0 can't be given to the virtual machine"):
        files.link_writable(folder, _disk(tmp_path / "image", read_only=False), UID)
    assert victim.stat().st_mode & 0o777 == 0o640
    assert not (folder / "disk0").is_symlink()


def test_neither_a_pipe_nor_a_missing_file_is_a_disk(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing"):
        with pytest.raises(GuestError):
            files.link_read_only(folder, _disk(tmp_path / name), UID)
    assert list(folder.iterdir()) == []


def test_a_link_that_an_earlier_start_left_is_replaced(tmp_path: Path, folder: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(name.encode())
        files.link_writable(folder, _disk(tmp_path / name, read_only=False), UID)
    assert (folder / "disk0").read_bytes() == b"new"
    files.unlink(folder, "disk0")
    files.unlink(folder, "disk0")
    assert (tmp_path / "new").exists()
