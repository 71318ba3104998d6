"""Tars made in tests, and ways to feed and read them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hyperstack.image.progress import Progress

Build = Callable[[tarfile.TarFile], None]
DIR, LINK, SYM, CHR = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE


def entry(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    data: bytes = b"",
    *,
    link: str = "",
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    device: tuple[int, int] = (0, 0),
    pax: dict[str, str] | None = None,
    mtime: int = 1_600_000_000,
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), link, mode
    info.uid, info.gid = owner
    info.devmajor, info.devminor = device
    info.mtime = mtime
    info.pax_headers = pax or {}
    tar.addfile(info, io.BytesIO(data))


def made(build: Build) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        build(tar)
    return buffer.getvalue()


def files(**contents: bytes) -> bytes:
    """A tar of plain files in the root."""

    def build(tar: tarfile.TarFile) -> None:
        for name, data in contents.items():
            entry(tar, name, data=data)

    return made(build)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def body(data: bytes, step: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


async def collected(lines: AsyncIterator[Progress]) -> list[Progress]:
    return [line async for line in lines]


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@contextmanager
def mounted(layers: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Mount EROFS layers (the uppermost first) as the guest does: an overlay if several."""
    if "erofs" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no erofs")
    with ExitStack() as stack:
        points = []
        for number, layer in enumerate(layers):
            point = folder / f"l{number}"
            point.mkdir(parents=True)
            _mount(stack, point, "-t", "erofs", "-o", "ro", str(layer))
            points.append(point)
        if len(points) == 1:
            yield points[0]
            return
        merged = folder / "merged"
        merged.mkdir()
        lower = ":".join(point.name for point in points)
        _mount(stack, merged, "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay", cwd=folder)
        yield merged


def _mount(stack: ExitStack, point: Path, *options: str, cwd: Path | None = None) -> None:
    subprocess.run(["mount", *options, str(point)], check=True, cwd=cwd)
    stack.callback(subprocess.run, ["umount", str(point)], check=True)
