"""Builds a guest kit: ``hyper kit build`` (``docs/kit.md``).

Everything is assembled in ``kit_dir/.partial-*``, written through to the disk, and renamed to the
version that its content gives; then the link ``current`` is replaced by rename. Killed at any
instant a build leaves the kits as they were, and a folder that the next build removes. One build
runs at a time (a lock on ``kit_dir/.lock``).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from hyperstack.errors import Conflict, HyperError, InternalError, Unavailable
from hyperstack.guest import kitroots
from hyperstack.guest.kit import (
    MANIFEST,
    File,
    Kit,
    Link,
    Manifest,
    prune,
    sha256,
    sparse_sha256,
)
from hyperstack.guest.kitapt import Archive, host_mirror

PARTIAL = ".partial-"
SPARSE = frozenset({"ext4.img", "qemu/kernel"})
ARCHITECTURE = "x86_64"


async def build(kit_dir: Path, *, say: Callable[[str], None], mirror: str | None = None) -> Kit:
    """Build a kit from the distribution's archive, make it the current one and return it.

    *say* gets a line for each step; *mirror* is a Debian mirror instead of the host's own. Older
    kits that nobody uses are removed. Raises Unavailable if something is missing on the host or in
    the archive, Conflict if another build runs, InternalError if the disk or a program fails.
    """
    if platform.machine() != ARCHITECTURE:
        raise Unavailable(f"guest kits are built on {ARCHITECTURE}, not {platform.machine()}")
    _check_programs()
    mirror = mirror or host_mirror()
    try:
        # Usually the data root, which lists its content to nobody.
        kit_dir.parent.mkdir(parents=True, exist_ok=True, mode=0o710)
        kit_dir.mkdir(exist_ok=True)
        kit_dir.chmod(0o755)
        with _lock(kit_dir):
            return await _build(kit_dir, mirror, say)
    except OSError as error:
        raise InternalError(f"the guest kit can't be built in {kit_dir}: {error}") from error


def _check_programs() -> None:
    for program, package in (
        ("apt-get", "apt"),
        ("dpkg-deb", "dpkg"),
        ("mkfs.ext4", "e2fsprogs"),
    ):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise Unavailable(f"{program} is missing; install the package {package}")


async def _build(kit_dir: Path, mirror: str, say: Callable[[str], None]) -> Kit:
    for left in kit_dir.glob(f"{PARTIAL}*"):
        await asyncio.to_thread(_remove, left)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=kit_dir) as work:
        root = Path(work) / "kit"
        root.mkdir()
        manifest = await _assemble(Path(work), root, mirror, say)
        await asyncio.to_thread(_publish, kit_dir, root, manifest)
    kit = Kit.load(kit_dir / "current")
    for old in await asyncio.to_thread(prune, kit_dir):
        say(f"removed the unused kit {old.name}")
    return kit


async def _assemble(work: Path, root: Path, mirror: str, say: Callable[[str], None]) -> Manifest:
    archive = Archive(work / "apt", mirror, say=say)
    say("building agent and jail")
    await asyncio.to_thread(kitroots.add_native, root)
    say(f"fetching User Mode Linux from {mirror}")
    uml = await kitroots.add_uml(archive, root)
    say(f"fetching the cloud kernel (User Mode Linux is {uml})")
    qemu = await kitroots.add_kernel(archive, root)
    say(f"fetching QEMU (the cloud kernel is {qemu})")
    version = await kitroots.add_qemu(archive, root)
    say(f"fetching mkfs.erofs and virtiofsd (QEMU is {version})")
    await kitroots.add_tools(archive, root)
    say("making the templates")
    await kitroots.add_images(root)
    _settle_modes(root)
    return await asyncio.to_thread(_manifest, root, archive, uml, qemu)


def _remove(left: Path) -> None:
    """Remove what a killed build left; a program that it had started may write on for a moment."""
    for _ in range(60):
        shutil.rmtree(left, ignore_errors=True)
        if not left.exists():
            return
        time.sleep(0.5)
    shutil.rmtree(left)


def _settle_modes(root: Path) -> None:
    """Make folders readable whatever the caller's umask is: jailed guests see some of them."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        if not folder.is_symlink():
            folder.chmod(0o755)


def _manifest(root: Path, archive: Archive, uml: str, qemu: str) -> Manifest:
    files, links, folders = [], [], []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            links.append(Link(path=name, target=str(path.readlink())))
        elif path.is_dir():
            folders.append(name)
        else:
            files.append(_file(path, name))
    manifest = Manifest(
        architecture=ARCHITECTURE,
        uml_release=uml,
        qemu_release=qemu,
        packages=archive.packages,
        files=tuple(files),
        links=tuple(links),
        folders=tuple(folders),
    )
    return msgspec.structs.replace(manifest, version=manifest.digest())


def _file(path: Path, name: str) -> File:
    status = path.stat()
    sparse = name in SPARSE
    return File(
        path=name,
        size=status.st_size,
        mode=status.st_mode & 0o7777,
        sha256=sparse_sha256(path) if sparse else sha256(path),
        sparse=sparse,
    )


def _publish(kit_dir: Path, root: Path, manifest: Manifest) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    (root / MANIFEST).write_bytes(encoded)
    (root / MANIFEST).chmod(0o644)
    for path in (*root.rglob("*"), root):
        _sync(path)
    target = kit_dir / manifest.version
    if target.exists() and not _good(target):
        target.rename(root.parent / "damaged")
    if not target.exists():
        root.rename(target)
    _sync(kit_dir)
    link = root.parent / "current"
    link.symlink_to(target.name)
    link.rename(kit_dir / "current")
    _sync(kit_dir)


def _good(kit: Path) -> bool:
    try:
        Kit.load(kit).verify()
    except HyperError:
        return False
    return True


def _sync(path: Path) -> None:
    if path.is_symlink():
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _lock(kit_dir: Path) -> Iterator[None]:
    fd = os.open(kit_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another build of the guest kit runs in {kit_dir}") from None
        yield
    finally:
        os.close(fd)
