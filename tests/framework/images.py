"""Small real images made from Debian's busybox, as tars for ``docker import`` and ``load``."""

from __future__ import annotations

import io
import subprocess
import tarfile
from functools import lru_cache
from pathlib import Path

BUSYBOX = Path("/bin/busybox")


@lru_cache(maxsize=1)
def applets() -> tuple[str, ...]:
    """Return the names that busybox answers to."""
    out = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, check=True)
    return tuple(out.stdout.decode().split())


@lru_cache(maxsize=1)
def busybox_tar() -> bytes:
    """Return a root file system with busybox, root, nobody and a few folders, as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("root", 0o700),
            ("home", 0o755),
            ("var", 0o755),
            ("var/lib", 0o755),
            ("usr", 0o755),
            ("usr/bin", 0o755),
        ):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _file(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for name in applets():
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.LNKTYPE, "bin/busybox"
                link.mode = 0o755  # a link's mode is the file's to Docker
                tar.addfile(link)
        _file(
            tar,
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\n"
            b"daemon:x:1:1::/:/bin/false\nuser:x:1000:1000::/home:/bin/sh\n"
            b"nobody:x:65534:65534::/nonexistent:/bin/false\n",
        )
        _file(
            tar,
            "etc/group",
            b"root:x:0:\ndaemon:x:1:\nusers:x:100:user\nuser:x:1000:\nnogroup:x:65534:\n",
        )
    return buffer.getvalue()


def _file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
