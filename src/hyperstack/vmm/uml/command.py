"""The command line of a User Mode Linux kernel, and the names of its devices.

Documentation/virt/uml/user_mode_linux_howto_v2.rst of Linux. What each word is for stands here.
Disks are numbered from 1: what is at ubd0 is taken for the root device. ``d`` after the number
keeps the kernel from looking for a copy-on-write header in bytes that a guest wrote, ``c`` lets
machines share a file, ``r`` is read-only.
"""

from __future__ import annotations

from hyperstack.vmm.base import AGENT_MAC, MachineSpec, Runtime, Tap

FIRST_DISK = 1
LAST_DISK = 15
AGENT_NIC = 0
LAST_NIC = 63
SHARE_SOCKET = "/run/fs.sock"
LATE_SHARE = "fs.sock"
"""Name, in the folder of disks, of the socket of a share that a running machine gets. Nobody
listens there when the kernel boots, so that it finds no device; it looks again when it is told to
bind the driver to it."""
VIRTIO_ID_FS = 26
SKIPPED = (
    # Benchmarks and self tests of code that no container uses: 0.8 s.
    *("raid6_init", "calibrate_xor_blocks", "init_btrfs_fs", "init_jfs_fs", "init_xfs_fs"),
    # Devices that a guest has no use for: 64 serial lines, a watchdog that wants a helper program.
    *("ssl_init", "harddog_miscdev_init"),
)
"""Initialisation functions of the kernel that are left out."""
BOOT = (
    # The console goes out by descriptor 2 and takes no input; no other terminal exists. 256 pairs
    # of BSD terminals would take 12 ms and 5 MB.
    *("con=null", "con0=null,fd:2", "pty.legacy_count=0", "quiet"),
    # A guest that fails ends, and never tries again by itself.
    *("noreboot", "panic=-1"),
    # Measuring how fast the delay loop is takes 70 ms.
    *(f"initcall_blacklist={','.join(SKIPPED)}", "lpj=5000000"),
    # The root comes straight from the jail. It is writable for the kernel's part alone: the bind
    # under it is read-only. The first disk is an empty file, lest the kernel complains of none.
    *("rootfstype=hostfs", "rootflags=/guest", "rw", "init=/agent", "ubd0rcd=/run/none"),
)


def command_line(spec: MachineSpec, runtime: Runtime, slots: dict[str, int]) -> tuple[str, ...]:
    """Return the kernel's argv; *slots* number the disks and NICs."""
    words = [
        "linux",
        f"mem={spec.memory >> 10}K",
        "uml_dir=/uml/",
        f"umid={umid(spec.id)}",
        f"seccomp={'on' if runtime == Runtime.UML_FAST else 'off'}",
        *BOOT,
        vec(AGENT_NIC, spec.agent_tap, AGENT_MAC),
    ]
    words += [vec(slots[nic_key(nic.name)], nic, nic.mac) for nic in spec.nics]
    for disk in spec.disks:
        words.append(ubd(slots[disk_key(disk.name)], disk.name, read_only=disk.read_only))
    socket = SHARE_SOCKET if spec.share_socket is not None else f"/disks/{LATE_SHARE}"
    words.append(f"virtio_uml.device={socket}:{VIRTIO_ID_FS}")
    return tuple(words)


def umid(sandbox: str) -> str:
    """Return the machine's name for its management console."""
    return sandbox[:16]


def vec(number: int, tap: Tap, mac: str, separator: str = ":") -> str:
    """Return a NIC's definition: ``vecN:...`` for the command line and for hot-add."""
    return (
        f"vec{number}{separator}transport=tap,ifname={tap.name},mac={mac},mtu={tap.mtu},"
        "depth=128,gro=1"
    )


def ubd(number: int, name: str, *, read_only: bool) -> str:
    """Return a disk's definition, for the command line and for hot-add."""
    return f"ubd{number}rcd=/layers/{name}" if read_only else f"ubd{number}d=/disks/{name}"


def device(number: int) -> str:
    """Return the disk's path in the guest."""
    return f"/dev/ubd{chr(ord('a') + number)}"


def disk_key(name: str) -> str:
    """Return the key of a disk in a record's slots."""
    return f"disk:{name}"


def nic_key(name: str) -> str:
    """Return the key of a NIC in a record's slots."""
    return f"nic:{name}"
