"""Fixtures: the folders that guests boot from, and a guest for each test."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.framework.images import busybox_tar
from tests.integration.agent.machine import NATIVE, Kitchen, Machine, machine

if os.geteuid() != 0:
    collect_ignore_glob = ["test_*.py"]


def _busybox(tar: tarfile.TarFile) -> None:
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as source:
        for member in source:
            tar.addfile(member, source.extractfile(member) if member.isreg() else None)


def _probe(folder: Path) -> bytes:
    source = NATIVE / "agent" / "tests" / "probe.c"
    target = folder / "probe"
    flags = ("-std=c17", "-D_GNU_SOURCE", "-Wall", "-Werror", "-O2", "-static", "-s")
    subprocess.run(["gcc", *flags, "-o", target, source], check=True, timeout=60)
    return target.read_bytes()


def _extras(tar: tarfile.TarFile, probe: bytes) -> None:
    """What tests look at: a program, odd files, links that lead out, a folder to fill volumes."""

    def folder(name: str, mode: int = 0o755, uid: int = 0) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, uid, uid
        tar.addfile(entry)

    def file(
        name: str, data: bytes, mode: int = 0o644, uid: int = 0, pax: dict[str, str] | None = None
    ) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.uid, entry.gid = len(data), mode, uid, uid
        entry.mtime = 1_000_000_000
        entry.pax_headers = pax or {}
        tar.addfile(entry, io.BytesIO(data))

    def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mode = kind, target, 0o777
        tar.addfile(entry)

    file("bin/probe", probe, 0o755)
    file("secret", b"hidden\n")
    file("etc/group", b"root:x:0:\nusers:x:100:user,nobody\nwheel:x:10:user\nuser:x:1000:\n")
    file("script", b"#!/nowhere\n", 0o755)
    file("noise", b"\x7fNOTELF" + bytes(64), 0o755)
    file("plain", b"text\n", 0o644)
    link("link", "/target/of/link")
    link("out", "../../../../etc")
    folder("data", 0o750, 33)
    folder("data/sub", 0o2770, 34)
    file("data/file", b"content\n", 0o640, 35, {"SCHILY.xattr.user.note": "kept"})
    link("data/hard", "data/file", tarfile.LNKTYPE)
    link("data/soft", "file")
    file("data/sub/suid", b"x", 0o4755, 36)
    folder("closed", 0o700, 7)


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    return Kitchen.make(tmp_path_factory.mktemp("kitchen"))


@pytest.fixture(scope="session")
def layers(kitchen: Kitchen) -> tuple[str, ...]:
    """Busybox below, what tests look at above."""
    probe = _probe(kitchen.mkfs / "out")
    return (
        kitchen.layer("extras", lambda tar: _extras(tar, probe)),
        kitchen.layer("busybox", _busybox),
    )


@pytest.fixture
async def guest(
    kitchen: Kitchen, layers: tuple[str, ...], tmp_path: Path
) -> AsyncIterator[Machine]:
    """A guest with two disks and two NICs."""
    disks = [kitchen.disk("one"), kitchen.disk("two")]
    macs = ["02:42:0a:09:00:02", "02:42:0a:09:01:02"]
    async with machine(kitchen, tmp_path, layers=layers, disks=disks, nics=macs) as running:
        yield running
