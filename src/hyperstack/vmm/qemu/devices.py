"""Devices of a QEMU machine, as the options that its command line and QMP have in common.

A device's options are a mapping: JSON text after ``-device`` or ``-blockdev``, the arguments of
``device_add`` or ``blockdev-add`` (docs/interop/qemu-qmp-ref of QEMU). So a disk that is
hot-plugged is the same disk as one that was there at the start.

Layers that a machine is launched with sit on the root bus, eight to a slot, and stay. Everything
that may come and go sits behind bridges, one to a slot: there ACPI plugs and unplugs at once, where
a PCI Express port takes five seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hyperstack.errors import GuestError
from hyperstack.vmm.base import Disk, Tap

Options = dict[str, object]

AGENT_ADDRESS, CONSOLE_ADDRESS, BALLOON_ADDRESS, SHARE_ADDRESS = "1.0", "2.0", "3.0", "4.0"
NIC_BRIDGE = "nics"
DISK_BRIDGES = ("disks0", "disks1")
FIRST_BRIDGE = 5
BRIDGES = (NIC_BRIDGE, *DISK_BRIDGES)
FIRST_LAYER, LAST_LAYER = FIRST_BRIDGE + len(BRIDGES), 0x1E
"""Slots of the root bus for layers; 0x1f is the chip set's."""
FUNCTIONS = 8
MAX_LAYERS = (LAST_LAYER - FIRST_LAYER + 1) * FUNCTIONS
PER_BRIDGE = 31
"""Slots 1 to 31; a bridge may keep slot 0 for itself."""
MAX_NICS = PER_BRIDGE - 1
"""The last slot of their bridge is that of a share which comes while the machine runs."""
MAX_DISKS = PER_BRIDGE * len(DISK_BRIDGES)
SHARE = "share"
"""The id of the share's device and of the connection to its server."""
SHARE_SOCKET = "/run/fs.sock"
LATE_SHARE = "fs.sock"
"""Name, in the folder of disks, of the socket of a share that a running machine gets."""
SHARE_QUEUE = 1024
BALLOON = "balloon"


def disk_key(name: str) -> str:
    """Return the key of a disk in a record's slots."""
    return f"disk:{name}"


def layer_key(name: str) -> str:
    """Return the key of a layer in a record's slots."""
    return f"layer:{name}"


def nic_key(name: str) -> str:
    """Return the key of a NIC in a record's slots."""
    return f"nic:{name}"


def free_slot(slots: Mapping[str, int], kinds: tuple[str, ...], most: int) -> int:
    """Return the lowest free slot, from 1, that none of *kinds* has. Raises GuestError."""
    used = {slot for key, slot in slots.items() if key.partition(":")[0] in kinds}
    for slot in range(1, most + 1):
        if slot not in used:
            return slot
    what = "network cards" if "nic" in kinds else "disks"
    raise GuestError(f"the virtual machine can't have more than {most} {what}")


def assign_slots(
    layers: Iterable[Disk], disks: Iterable[Disk], nics: Iterable[Tap]
) -> dict[str, int]:
    """Number what a machine is launched with; layers that are there from the start have slot 0.

    Raises GuestError for more than the machine has room for.
    """
    slots = {layer_key(layer.name): 0 for layer in layers}
    if len(slots) > MAX_LAYERS:
        raise GuestError(f"the virtual machine can't have more than {MAX_LAYERS} layers")
    for disk in disks:
        slots[disk_key(disk.name)] = free_slot(slots, ("disk", "layer"), MAX_DISKS)
    for nic in nics:
        slots[nic_key(nic.name)] = free_slot(slots, ("nic",), MAX_NICS)
    return slots


def node(name: str) -> str:
    """Return the id of a disk's block node and device."""
    return f"disk-{name}"


def block(disk: Disk) -> Options:
    """Return a disk's file, in the folder where ``vmm.files`` has linked it.

    The format is said and never looked for: a guest writes the first bytes. A read-only file is
    opened so, and lies on a read-only mount.
    """
    file: Options = {
        "driver": "file",
        "filename": f"/{'layers' if disk.read_only else 'disks'}/{disk.name}",
    }
    if disk.read_only:
        # Machines share it: nobody needs to be kept away.
        file["locking"] = "off"
    made: Options = {
        "driver": "raw",
        "node-name": node(disk.name),
        "read-only": disk.read_only,
        "file": file,
    }
    if not disk.read_only:
        made["discard"] = file["discard"] = "unmap"
    return made


def disk_device(name: str, bus: str, address: str) -> Options:
    """Return a disk as the guest sees it; it finds it by its serial number, which is its name."""
    return {
        "driver": "virtio-blk-pci",
        "id": node(name),
        "drive": node(name),
        "serial": name,
        "bus": bus,
        "addr": address,
        "disable-legacy": "on",
        "num-queues": 1,
    }


def layer_device(name: str, index: int) -> Options:
    """Return the *index*-th layer (from 0) of those that a machine is launched with."""
    slot, function = FIRST_LAYER + index // FUNCTIONS, index % FUNCTIONS
    made = disk_device(name, "pcie.0", f"{slot:x}.{function}")
    return {**made, "multifunction": True}


def bridged_disk(name: str, slot: int) -> Options:
    """Return a disk behind a bridge, by its number from 1."""
    bridge, place = divmod(slot - 1, PER_BRIDGE)
    return disk_device(name, DISK_BRIDGES[bridge], f"{place + 1:x}.0")


def nic_node(name: str) -> str:
    """Return the id of a NIC and of its host side."""
    return f"nic-{name}"


def tap_backend(tap: Tap) -> Options:
    """Return the host's side of a NIC: a persistent tap that the VMM's uid may open."""
    return {
        "type": "tap",
        "id": f"net-{tap.name}",
        "ifname": tap.name,
        "script": "no",
        "downscript": "no",
        "vhost": False,
    }


def nic_device(name: str, mac: str, mtu: int, bus: str, address: str) -> Options:
    """Return a NIC as the guest sees it; it finds it by its MAC."""
    return {
        "driver": "virtio-net-pci",
        "id": nic_node(name),
        "netdev": f"net-{name}",
        "mac": mac,
        "host_mtu": mtu,
        "bus": bus,
        "addr": address,
        "disable-legacy": "on",
        # No boot ROM: nothing boots from the network.
        "romfile": "",
    }


def bridged_nic(tap: Tap, slot: int) -> Options:
    """Return a NIC behind the bridge, by its number from 1."""
    return nic_device(tap.name, tap.mac, tap.mtu, NIC_BRIDGE, f"{slot:x}.0")


def bridge(name: str) -> Options:
    """Return one of BRIDGES."""
    number = BRIDGES.index(name)
    return {
        "driver": "pci-bridge",
        "id": name,
        "chassis_nr": number + 1,
        "bus": "pcie.0",
        "addr": f"{FIRST_BRIDGE + number:x}.0",
        # ACPI does it; the bridge's own controller has no driver in the guest.
        "shpc": False,
        # Address space for all that may be plugged in later: the firmware gives an empty bridge
        # none. A virtio device takes 4 KiB and 16 KiB; windows are whole MiB.
        "mem-reserve": 1 << 20,
        "pref64-reserve": 1 << 20,
    }


def share_device(tag: str, bus: str = "pcie.0", address: str = SHARE_ADDRESS) -> Options:
    """Return the device through which a guest has its share."""
    return {
        "driver": "vhost-user-fs-pci",
        "id": SHARE,
        "chardev": SHARE,
        "tag": tag,
        "bus": bus,
        "addr": address,
        "queue-size": SHARE_QUEUE,
    }


def late_share(tag: str) -> Options:
    """Return the device of a share that comes while the machine runs."""
    return share_device(tag, NIC_BRIDGE, f"{PER_BRIDGE:x}.0")


def late_share_server() -> Options:
    """Return the connection to its server, as ``chardev-add`` takes it."""
    address = {"type": "unix", "data": {"path": f"/disks/{LATE_SHARE}"}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    return {"id": SHARE, "backend": backend}
