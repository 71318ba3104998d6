"""The guest kit: what guests and jails are made of, in one folder per version (``docs/kit.md``).

``kitbuild`` makes kits; this module finds, checks and shows them. A kit is never changed once it
has its name. Whoever has loaded one holds a shared lock on it, so that ``prune`` leaves it alone,
as it does a kit in which a process still has its root.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hyperstack.errors import InternalError, Unavailable
from hyperstack.platform import process

FORMAT = 1
"""Changes when a kit of an older layout is of no use to this daemon."""
MANIFEST = "manifest.json"
MAX_MANIFEST = 4 << 20
BLOCK = 4096
UML_KERNEL = "/linux"
MKFS_EROFS = "/mkfs.erofs"
VIRTIOFSD = "/virtiofsd"
QEMU = "/qemu-system-x86_64"
QEMU_KERNEL = "/kernel"
QEMU_INITRAMFS = "/initramfs"
QEMU_FIRMWARE = "/firmware"
JAIL_ROOTS = ("uml", "qemu", "mkfs", "virtiofsd")
"""Folders of the kit in which processes have their root."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package of the distribution that went into the kit."""

    name: str
    version: str
    suite: str
    sha256: str


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the kit. *sha256* of a sparse file is that of ``sparse_sha256``."""

    path: str
    size: int
    mode: int
    sha256: str
    sparse: bool = False


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A symbolic link of the kit."""

    path: str
    target: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a kit holds. *version* is the first 16 digits of the sha256 of all the rest."""

    format: int = FORMAT
    version: str = ""
    architecture: str
    uml_release: str
    """Kernel release of the User Mode Linux guest."""
    qemu_release: str
    packages: tuple[Package, ...]
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()
    folders: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the version that the content gives."""
        content = msgspec.structs.replace(self, version="")
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A kit that has been loaded."""

    path: Path
    """Its folder by version, not ``current``: a kit that is built meanwhile changes nothing."""
    manifest: Manifest
    lock: _Lock

    @classmethod
    def load(cls, path: Path) -> Kit:
        """Load the kit at *path*, a kit's folder or a link to one.

        Looks at sizes alone; ``verify`` reads everything. Raises Unavailable if there is none,
        InternalError if it is damaged.
        """
        try:
            real = path.resolve(strict=True)
            lock = _Lock(real)
            data = (real / MANIFEST).read_bytes()
        except OSError as error:
            raise Unavailable(f"no guest kit at {path}; run 'hyper kit build'") from error
        kit = cls(path=real, manifest=_decode(path, data), lock=lock)
        kit._check_sizes()
        return kit

    def _check_sizes(self) -> None:
        for file in self.manifest.files:
            try:
                size = (self.path / file.path).lstat().st_size
            except OSError:
                size = -1
            if size != file.size:
                raise self._damaged(file.path)

    def _damaged(self, name: str) -> InternalError:
        return InternalError(
            f"the guest kit at {self.path} is damaged ({name}); run 'hyper kit build'"
        )

    @property
    def version(self) -> str:
        """16 hex digits that name the content."""
        return self.manifest.version

    @property
    def jail(self) -> Path:
        """The jail's launcher."""
        return self.path / "jail"

    @property
    def ext4_template(self) -> Path:
        """An empty, sparse ext4 image of the default size."""
        return self.path / "ext4.img"

    @property
    def uml_root(self) -> Path:
        """The root of UML's jail; the kernel is UML_KERNEL in it."""
        return self.path / "uml"

    @property
    def guest_root(self) -> Path:
        """The guest's root for UML, served by hostfs."""
        return self.path / "guest"

    @property
    def qemu_guest_root(self) -> Path:
        """The guest's root for QEMU as a folder; ``initramfs`` is the same as a cpio."""
        return self.path / "guest-qemu"

    @property
    def qemu_root(self) -> Path:
        """The root of QEMU's jail; the program is QEMU in it. Older kits have no program there."""
        return self.path / "qemu"

    @property
    def has_qemu(self) -> bool:
        """Tell whether the kit has a QEMU, with its kernel."""
        needed = (QEMU, QEMU_KERNEL, QEMU_INITRAMFS, QEMU_FIRMWARE)
        return all((self.qemu_root / name.lstrip("/")).exists() for name in needed)

    @property
    def qemu_kernel(self) -> Path:
        """The kernel for QEMU: ELF, or a bzImage where there is no other."""
        return self.qemu_root / QEMU_KERNEL.lstrip("/")

    @property
    def initramfs(self) -> Path:
        """The guest's root for QEMU."""
        return self.qemu_root / QEMU_INITRAMFS.lstrip("/")

    @property
    def mkfs_root(self) -> Path:
        """The root of mkfs.erofs's jail; the program is ``mkfs_argv0`` in it."""
        return self.path / "mkfs"

    @property
    def mkfs_argv0(self) -> str:
        """The path of mkfs.erofs in its jail."""
        return MKFS_EROFS

    @property
    def virtiofsd_root(self) -> Path:
        """The root of virtiofsd's jail; the program is ``virtiofsd_argv0`` in it."""
        return self.path / "virtiofsd"

    @property
    def virtiofsd_argv0(self) -> str:
        """The path of virtiofsd in its jail."""
        return VIRTIOFSD

    def verify(self) -> None:
        """Read every file and compare; blocking, seconds. Raises InternalError, naming the file."""
        if self.manifest.digest() != self.version:
            raise self._damaged(MANIFEST)
        for file in self.manifest.files:
            path = self.path / file.path
            found = sparse_sha256(path) if file.sparse else sha256(path)
            if found != file.sha256 or path.lstat().st_mode & 0o7777 != file.mode:
                raise self._damaged(file.path)
        for link in self.manifest.links:
            if not (self.path / link.path).is_symlink() or link.target != str(
                (self.path / link.path).readlink()
            ):
                raise self._damaged(link.path)


class _Lock:
    """A shared lock on a kit's folder, held as long as this object lives (flock(2))."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


def _decode(path: Path, data: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise InternalError(
            f"the guest kit at {path} is damaged ({MANIFEST}); run 'hyper kit build'"
        ) from error
    if manifest.format != FORMAT:
        raise Unavailable(
            f"the guest kit at {path} was made by another release; run 'hyper kit build'"
        )
    return manifest


def show(kit: Kit) -> str:
    """Return what ``hyper kit show`` prints."""
    manifest = kit.manifest
    size = sum((kit.path / file.path).stat().st_blocks * 512 for file in manifest.files)
    lines = [
        f"Version:       {kit.version}",
        f"Path:          {kit.path}",
        f"Size:          {size / 1e6:.1f} MB",
        f"Architecture:  {manifest.architecture}",
        f"UML kernel:    {manifest.uml_release}",
        f"QEMU kernel:   {manifest.qemu_release}",
        "Packages:",
        *(f"  {p.name} {p.version} ({p.suite}) {p.sha256}" for p in manifest.packages),
    ]
    return "\n".join(lines)


def versions(kit_dir: Path) -> list[Path]:
    """Return the folders of all kits in *kit_dir*."""
    if not kit_dir.is_dir():
        return []
    found = (entry for entry in kit_dir.iterdir() if not entry.is_symlink())
    return sorted(entry for entry in found if (entry / MANIFEST).is_file())


def prune(kit_dir: Path) -> list[Path]:
    """Remove the kits that nobody needs and return them; blocking.

    Stay: the current one, those that a daemon has loaded, those in which a process has its root.
    """
    current = (kit_dir / "current").resolve()
    roots = set(_roots_in_use())
    removed = []
    for kit in versions(kit_dir):
        if kit == current or roots & set(_identities(kit)) or not _free(kit):
            continue
        # Out of sight first, so that a half removed kit is never taken for one.
        hidden = kit.with_name(f".partial-old-{kit.name}")
        kit.rename(hidden)
        shutil.rmtree(hidden)
        removed.append(kit)
    return removed


def _free(kit: Path) -> bool:
    fd = os.open(kit, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _identities(kit: Path) -> Iterator[tuple[int, int]]:
    for folder in JAIL_ROOTS:
        try:
            status = (kit / folder).stat()
        except OSError:
            continue
        yield status.st_dev, status.st_ino


def _roots_in_use() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "root").stat()
        except OSError:
            continue
        yield status.st_dev, status.st_ino


def native_binary(name: str) -> Path:
    """Return ``agent`` or ``jail`` as built for this installation; blocking.

    A wheel carries them, a checkout builds them with make. HYPER_NATIVE_DIR names a folder that
    comes before both. Raises Unavailable if the binary is nowhere, InternalError if make fails.
    """
    package = Path(__file__).resolve().parents[1]
    source = package.parents[1] / "native" / name
    named = os.environ.get("HYPER_NATIVE_DIR")
    if named:
        candidate = Path(named) / name
    elif (source / "Makefile").is_file():
        candidate = source.parent / "build" / name
        build = f"BUILD={candidate.parent}"
        process.run_blocking(
            ["make", "--no-print-directory", "-C", source, build, candidate], timeout=300.0
        )
    else:
        candidate = package / "_native" / name
    if not candidate.is_file():
        raise Unavailable(
            f"the program {name} of the guest kit is missing at {candidate}; "
            "install hyperstack's wheel for this platform"
        )
    return candidate


def sha256(path: Path) -> str:
    """Return the hex digest of a file; blocking. Raises InternalError if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InternalError(f"{path} can't be read: {error.strerror}") from error


def sparse_sha256(path: Path) -> str:
    """Return a digest of a file's size and of its blocks that are not zero, with their places.

    Does not depend on how the file system keeps holes, and does not read them; blocking.
    """
    made = hashlib.sha256()
    zero = bytes(BLOCK)
    try:
        with path.open("rb") as file:
            fd = file.fileno()
            size = os.fstat(fd).st_size
            made.update(size.to_bytes(8, "little"))
            offset = 0
            for start, end in _extents(fd, size):
                offset = max(offset, start // BLOCK * BLOCK)
                while offset < end:
                    block = os.pread(fd, BLOCK, offset)
                    if block != zero[: len(block)]:
                        made.update(offset.to_bytes(8, "little") + block)
                    offset += BLOCK
    except OSError as error:
        raise InternalError(f"{path} can't be read: {error.strerror}") from error
    return made.hexdigest()


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the data of a sparse file as start and end (lseek(2), SEEK_DATA)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:
            return
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, position
