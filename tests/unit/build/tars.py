"""Contexts for tests, as tars that a client would send."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from hyperstack.build import scan
from hyperstack.build.tree import Tree

TIME = 1_700_000_000
Files = Mapping[str, bytes | str | tuple[str] | None]


def context(files: Files) -> bytes:
    """Return a tar: bytes or text is a file, None a directory, a tuple a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mtime = TIME
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o750
                tar.addfile(entry)
            elif isinstance(content, tuple):
                entry.type, entry.linkname = tarfile.SYMTYPE, content[0]
                tar.addfile(entry)
            else:
                data = content.encode() if isinstance(content, str) else content
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tree_of(path: Path, data: bytes) -> Tree:
    """Write a tar to a file and return its tree."""
    path.write_bytes(data)
    return scan.read(path)
