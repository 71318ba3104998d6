"""``hyper doctor``: what works on this host, and what to do about the rest."""

from __future__ import annotations

import contextlib
import ctypes.util
import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hyperstack.config import Config, GiB
from hyperstack.errors import HyperError
from hyperstack.guest.kit import Kit
from hyperstack.platform.cgroup import Cgroups
from hyperstack.platform.process import become_subreaper

TUNGETFEATURES = 0x800454CF
NETLINK_NETFILTER = 12


class Verdict(StrEnum):
    """How a check came out: fine, works with less, does not work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report; ``advice`` says what to do unless all is well."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def _ok(subject: str, text: str) -> Finding:
    return Finding(subject=subject, verdict=Verdict.OK, text=text)


def _bad(subject: str, text: str, advice: str, *, fatal: bool = True) -> Finding:
    verdict = Verdict.FAILED if fatal else Verdict.WARNING
    return Finding(subject=subject, verdict=verdict, text=text, advice=advice)


def check_root() -> Finding:
    """Root is needed for jails, taps and namespaces."""
    if os.geteuid() == 0:
        return _ok("user", "root")
    return _bad("user", f"uid {os.geteuid()}", "run hyperd and this command as root")


def check_kit(config: Config) -> Finding:
    """The guest kit is there and whole."""
    try:
        kit = Kit.load(config.kit)
    except HyperError as error:
        return _bad("guest kit", error.message, "run 'hyper kit build'")
    release = kit.manifest.uml_release
    return _ok("guest kit", f"version {kit.version}, User Mode Linux {release}")


def check_tun() -> Finding:
    """Taps can be made."""
    try:
        with Path("/dev/net/tun").open("rb") as file:
            fcntl.ioctl(file, TUNGETFEATURES, bytes(4))
    except OSError as error:
        return _bad("tun", f"/dev/net/tun: {error.strerror}", "load the module: modprobe tun")
    return _ok("tun", "/dev/net/tun works")


def check_bridge() -> Finding:
    """Bridges can be made: asked by making one in a namespace that goes away at once."""
    from hyperstack.network.probe import can_make_links

    missing = can_make_links()
    if missing:
        return _bad(
            "links",
            f"no {', '.join(missing)}",
            f"load the modules: modprobe {' '.join(missing)}; until then containers "
            "have --network none alone",
            fatal=False,
        )
    return _ok("links", "bridge and veth can be made")


def check_nftables() -> Finding:
    """The firewall that publishes ports and keeps networks apart."""
    if ctypes.util.find_library("nftables") is None:
        return _bad("nftables", "libnftables is missing", "apt-get install libnftables1")
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close()
    except OSError as error:
        return _bad(
            "nftables",
            f"the kernel has none: {error.strerror}",
            "load the module: modprobe nf_tables",
        )
    return _ok("nftables", "kernel and library are there")


def check_cgroups() -> Finding:
    """Limits on sandboxes."""
    found = Cgroups.detect()
    folders = found.folders("x")
    if not folders:
        return _bad(
            "cgroups",
            "no controller is mounted",
            "mount cgroup2 on /sys/fs/cgroup; until then sandboxes have no limits",
            fatal=False,
        )
    return _ok("cgroups", f"version {found.version}")


def check_tools() -> Finding:
    """Programs of the host that the engine calls."""
    missing = [name for name in ("mkfs.ext4",) if shutil.which(name) is None]
    if missing:
        return _bad(
            "tools", f"missing: {', '.join(missing)}", "apt-get install e2fsprogs", fatal=False
        )
    return _ok("tools", "mkfs.ext4 is there")


def check_space(config: Config) -> Finding:
    """Room for images and disks."""
    folder = config.data_root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / GiB:.0f} GiB free for {config.data_root}"
    if free < 2 * GiB:
        return _bad("disk", text, "make room, or move --data-root", fatal=False)
    return _ok("disk", text)


def check_runtimes(config: Config) -> Iterator[Finding]:
    """Which virtual machine drivers are usable, and which one is the default."""
    import asyncio

    from hyperstack.vmm import choose_default, drivers, probe

    try:
        kit = Kit.load(config.kit)
    except HyperError:
        return
    machines = drivers(config, kit)
    if os.geteuid() == 0 and probe.needed(config, kit):
        # What the jail's launcher leaves to us is ours to bury.
        become_subreaper()
        try:
            asyncio.run(probe.probe(config, kit))
        except HyperError as error:
            yield _bad("kvm", error.message, "see docs/vmm.md", fatal=False)
    for runtime, driver in machines.items():
        usable = asyncio.run(driver.usable())
        if usable.ok:
            yield _ok(runtime.value, "; ".join(("usable", *usable.warnings)))
        else:
            yield _bad(runtime.value, usable.reason, "see docs/vmm.md", fatal=False)
    with contextlib.suppress(HyperError):
        choice = asyncio.run(choose_default(config, machines))
        yield _ok("default runtime", "; ".join((choice.runtime.value, *choice.reasons)))


def examine(config: Config) -> Iterator[Finding]:
    """Yield every finding, in the order in which one would mend them."""
    simple: tuple[Callable[[], Finding], ...] = (
        check_root,
        check_tun,
        check_bridge,
        check_nftables,
        check_cgroups,
        check_tools,
    )
    for check in simple:
        yield check()
    yield check_space(config)
    yield check_kit(config)
    yield from check_runtimes(config)
