"""Fills a kit's folder with its parts; one function a part. ``kitbuild`` puts them together."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import InternalError
from hyperstack.guest import ext4, initramfs, kit, kitkernel, kitlibs
from hyperstack.guest.kitapt import Archive
from hyperstack.guest.kitmodules import ModuleTree

MKFS_AT_LEAST = (1, 8)
"""erofs-utils from which on mkfs.erofs --tar is what layers are made with."""
UML_FOLDERS = ("dev", "disks", "guest", "layers", "proc", "run", "tmp", "uml")
UML_FILES = ("run/fs.sock", "run/none")
"""Where a socket of the host is bound, and an empty disk."""
UML_AT_LEAST = (7, 2)
"""user-mode-linux that can have a share: what 6.12 tells of its memory virtiofsd refuses."""
QEMU_AT_LEAST = (7, 2)
QEMU_FOLDERS = ("dev", "disks", "layers", "run")
QEMU_FILES = ("run/fs.sock",)
"""Where the share's socket is bound."""
FIRMWARE = (
    ("seabios", "bios-256k.bin"),
    # What starts an ELF kernel, and what starts a bzImage.
    *(("qemu-system-data", name) for name in ("pvh.bin", "linuxboot_dma.bin")),
)
"""Packages and the files of them that are the machine's firmware."""
MKFS_FOLDERS = ("dev", "in", "out", "proc", "tmp")
VIRTIOFSD_FOLDERS = ("dev", "etc", "proc", "run", "share", "tmp")
GUEST_FOLDERS = (
    *("c", "dev", "disks", "l", "layers", "modules", "proc", "run", "share", "sys", "tmp"),
)
BOOT = ("erofs", "overlay")
SHARE = ("fuse", "virtiofs")
DEVICES = ("tun", "fuse", "loop")
"""Drivers of devices that containers may ask for, each in a list of its own."""
QEMU_BOOT = ("virtio_pci", "virtio_console", "virtio_net")
"""What a QEMU guest needs to show itself: its bus, its console, its private link."""
QEMU_LATE = ("virtio_blk", "erofs", "overlay", "ext4", "virtio_balloon")
"""What it loads while the daemon connects."""


def add_native(root: Path) -> None:
    """Put the jail's launcher at its place, and the agent into the roots of both guests."""
    _place(kit.native_binary("jail"), root / "jail", 0o755)
    agent = kit.native_binary("agent")
    for guest in ("guest", "guest-qemu"):
        _folders(root / guest, GUEST_FOLDERS)
        _place(agent, root / guest / "agent", 0o755)


async def add_uml(archive: Archive, root: Path) -> str:
    """Add User Mode Linux, its jail's root and its guest's modules; return the kernel's release."""
    suite = await archive.suite_with("user-mode-linux", UML_AT_LEAST)
    jail = root / "uml"
    _folders(jail, UML_FOLDERS)
    for name in UML_FILES:
        (jail / name).touch(mode=0o644)
    await kitlibs.install(
        suite,
        "user-mode-linux",
        "linux.uml",
        jail,
        kit.UML_KERNEL,
        # glibc loads it by itself when a thread ends.
        also=(("libgcc_s.so.1", "libgcc-s1"),),
    )
    tree = _only((await suite.use("user-mode-linux")).glob("usr/lib/uml/modules/*"))
    _modules(ModuleTree(tree), root / "guest" / "modules", BOOT)
    return tree.name


async def add_kernel(archive: Archive, root: Path) -> str:
    """Add the cloud kernel and its guest's modules; return the kernel's release."""
    suite = await archive.suite_with("linux-image-cloud-amd64")
    merged = root / ".kernel"
    packages = await suite.closure("linux-image-cloud-amd64", _is_kernel)
    await suite.unpack(*packages)
    for package in packages:
        tree = await suite.use(package)
        for source in (tree / "usr" / "lib" / "modules", tree / "lib" / "modules"):
            if source.is_dir():
                shutil.copytree(source, merged / "modules", dirs_exist_ok=True, symlinks=True)
        if (tree / "boot").is_dir():
            shutil.copytree(tree / "boot", merged / "boot", dirs_exist_ok=True)
    modules = _only((merged / "modules").iterdir())
    kernel = _only([*merged.glob("boot/vmlinuz-*"), *modules.glob("vmlinuz")])
    _kernel(kernel, root / "qemu" / kit.QEMU_KERNEL.lstrip("/"))
    _modules(ModuleTree(modules), root / "guest-qemu" / "modules", QEMU_BOOT, QEMU_LATE)
    shutil.rmtree(merged)
    return modules.name


def _kernel(image: Path, target: Path) -> None:
    """Place a kernel in the form in which it boots fastest."""
    data = image.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    kitkernel.write_sparse(target, kitkernel.elf_of(data) or data)
    target.chmod(0o644)


def _is_kernel(package: str) -> bool:
    """Tell a kernel's packages: older releases have one of them, newer ones several."""
    kinds = ("linux-image-", "linux-binary-", "linux-modules-", "linux-base-")
    return package.startswith(kinds)


async def add_qemu(archive: Archive, root: Path) -> str:
    """Add QEMU in the root of its jail, with its firmware; return its version."""
    suite = await archive.suite_with("qemu-system-x86", QEMU_AT_LEAST)
    jail = root / "qemu"
    _folders(jail, QEMU_FOLDERS)
    for name in QEMU_FILES:
        (jail / name).touch(mode=0o644)
    await kitlibs.install(
        suite,
        "qemu-system-x86",
        "qemu-system-x86_64",
        jail,
        kit.QEMU,
        # glibc loads it by itself when a thread ends.
        also=(("libgcc_s.so.1", "libgcc-s1"),),
    )
    for package, name in FIRMWARE:
        found = _only((await suite.use(package)).rglob(name))
        _place(found, jail / kit.QEMU_FIRMWARE.lstrip("/") / name, 0o644)
    return (await suite.version("qemu-system-x86") or "").split(":")[-1].split("+")[0]


async def add_tools(archive: Archive, root: Path) -> None:
    """Add mkfs.erofs and virtiofsd, each in the root of its jail."""
    suite = await archive.suite_with("erofs-utils", MKFS_AT_LEAST)
    _folders(root / "mkfs", MKFS_FOLDERS)
    await kitlibs.install(
        suite,
        "erofs-utils",
        "mkfs.erofs",
        root / "mkfs",
        kit.MKFS_EROFS,
        # glibc loads it by itself when a thread ends.
        also=(("libgcc_s.so.1", "libgcc-s1"),),
    )
    suite = await archive.suite_with("virtiofsd")
    _folders(root / "virtiofsd", VIRTIOFSD_FOLDERS)
    await kitlibs.install(suite, "virtiofsd", "virtiofsd", root / "virtiofsd", kit.VIRTIOFSD)


async def add_images(root: Path, size: int = Config.storage_size) -> None:
    """Add what is packed of the parts: QEMU's initramfs and the ext4 template of *size* bytes."""
    packed = root / "qemu" / kit.QEMU_INITRAMFS.lstrip("/")
    packed.write_bytes(initramfs.pack(root / "guest-qemu"))
    packed.chmod(0o644)
    await ext4.make(root / "ext4.img", size)
    (root / "ext4.img").chmod(0o644)


def _modules(tree: ModuleTree, folder: Path, boot: Iterable[str], late: Iterable[str] = ()) -> None:
    boot, late = tuple(boot), tuple(late)
    _list(tree, folder, "boot.list", boot)
    if late:
        _list(tree, folder, "late.list", late, loaded=boot)
    _list(tree, folder, "share.list", SHARE, loaded=(*boot, *late))
    for driver in DEVICES:
        _list(tree, folder, f"{driver}.list", (driver,), loaded=(*boot, *late))


def _list(
    tree: ModuleTree,
    folder: Path,
    name: str,
    wanted: Iterable[str],
    loaded: Iterable[str] = (),
) -> None:
    """Write modules and a list of their files in the order of loading, what is loaded left out."""
    before = tree.order(loaded)
    order = tree.order(wanted, before)
    for module in order:
        path = folder / f"{module}.ko"
        path.write_bytes(tree.data(module))
        path.chmod(0o644)
    (folder / name).write_text("".join(f"{module}.ko\n" for module in order))
    (folder / name).chmod(0o644)


def _folders(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)


def _place(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _only(paths: Iterable[Path]) -> Path:
    found = sorted(paths)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "nothing"
        raise InternalError(f"a kernel package does not look as expected: {names}")
    return found[0]
