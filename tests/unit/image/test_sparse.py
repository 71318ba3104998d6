"""Sparse files as GNU tar really writes them, in each of its formats."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from hyperstack.image.tarscan import TarScanner
from tests.unit.image.test_tarscan import scan

FORMATS = [
    ["--format=gnu"],
    ["--format=posix", "--sparse-version=0.0"],
    ["--format=posix", "--sparse-version=0.1"],
    ["--format=posix", "--sparse-version=1.0"],
]


def contents(pieces: int) -> bytes:
    """Return data with holes: GNU tar's map has a piece for each run of blocks."""
    return b"".join(bytes(8192) + b"%d" % n + b"x" * 4500 for n in range(pieces)) + bytes(100_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in {
        "few": contents(3),
        "many": contents(200),
        "nothing-but-a-hole": b"",
        "plain": b"plain",
        "a" * 120: contents(2),
    }.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, len(data), 4096):
                if block := data[start : start + 4096].rstrip(b"\0"):
                    file.seek(start)
                    file.write(block)
            file.truncate(len(data) or 1 << 20)
    return tmp_path / "in"


@pytest.mark.parametrize("words", FORMATS, ids=lambda words: words[-1])
@pytest.mark.parametrize("step", [1 << 20, 61])
def test_sparse_files_are_written_out_whole(folder: Path, words: list[str], step: int) -> None:
    done = subprocess.run(
        ["tar", "-C", str(folder), "--sparse", *words, "-cf", "-", "."],
        capture_output=True,
        check=True,
        timeout=60,
    )
    wanted = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(done.stdout) < sum(map(len, wanted.values())) / 2, "tar found no holes"
    scanner = TarScanner()
    out = scan(done.stdout, step, scanner)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        members = [member for member in tar if member.isfile()]
        found = {}
        for member in members:
            assert not member.issparse()
            file = tar.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("./")] = file.read()
    assert found == wanted
    assert scanner.content_size == sum(map(len, wanted.values()))
