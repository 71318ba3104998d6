"""The whole command line of a QEMU machine. What each word is for stands here.

QEMU's manual (qemu-system-x86_64(1)); Documentation/admin-guide/kernel-parameters.txt of Linux.
"""

from __future__ import annotations

import json

from hyperstack.guest.kit import QEMU, QEMU_FIRMWARE, QEMU_INITRAMFS, QEMU_KERNEL
from hyperstack.vmm.base import AGENT_MAC, MachineSpec, Runtime, Tap
from hyperstack.vmm.qemu import devices
from hyperstack.vmm.qemu.devices import Options

QMP_FD = 3
"""The listening socket of the monitor, made by the daemon: the VMM can't make one of its own."""
MACHINE = (
    "q35",
    # No device that a guest has no use for: disk controller of the chip set, SMBus, the channel of
    # another hypervisor, USB, keyboard. Without HPET the guest takes the cheaper clock.
    *("sata=off", "smbus=off", "vmport=off", "usb=off", "i8042=off", "hpet=off"),
    # Pages of guests are not merged, and no dump of the VMM holds them.
    *("mem-merge=off", "dump-guest-core=off", "memory-backend=memory"),
)
CONFINED = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""QEMU's own filter, inside the jail's."""
TRANSLATED = 256
"""MiB that software emulation may hold of translated code; its default is up to 1 GiB."""
EMULATED_CPU = (
    "max",
    # Emulated, copying byte by byte is slower than the words that the guest falls back to, and each
    # further level of page tables costs at every miss.
    *("erms=off", "fsrm=off", "la57=off"),
)
HOST_CPU = (
    "host",
    # Guests in guests are a large part of the host's KVM, and nothing here needs them.
    *("vmx=off", "svm=off"),
)
KERNEL = (
    # The console drops what nobody takes, and never holds the guest up. Until its driver is there
    # the serial port says why a kernel does not come so far; later there is no driver for that.
    *("quiet", "console=hvc0", "earlycon=uart8250,io,0x3f8,115200", "8250.nr_uarts=0"),
    # A guest that fails ends: to start again means to exit (-no-reboot).
    "panic=-1",
    # The agent is the first and only program of the initramfs.
    "rdinit=/agent",
    # Self tests that cost time, on a machine that is known.
    *("no_timer_check", "cryptomgr.notests"),
    # The processor's randomness counts; the agent adds the host's.
    "random.trust_cpu=on",
)
EMULATED_KERNEL = (
    # What protects from a processor's mistakes: an emulated one makes others, and the cost is high.
    "mitigations=off",
    # The clock is the host's; watching it by a slower one is in vain.
    "tsc=reliable",
)


def command_line(spec: MachineSpec, runtime: Runtime, slots: dict[str, int]) -> tuple[str, ...]:
    """Return QEMU's argv in its jail; *slots* number the disks and NICs."""
    words = [*_base(runtime, spec.memory, spec.cpus, shared=True)]
    words += ["-chardev", f"socket,id=qmp,fd={QMP_FD},server=on,wait=off", "-qmp", "chardev:qmp"]
    words += _option("netdev", devices.tap_backend(spec.agent_tap))
    words += _agent_nic(spec.agent_tap)
    for name in devices.BRIDGES:
        words += _option("device", devices.bridge(name))
    words += _option("device", _balloon())
    for nic in spec.nics:
        words += _option("netdev", devices.tap_backend(nic))
        words += _option("device", devices.bridged_nic(nic, slots[devices.nic_key(nic.name)]))
    for index, layer in enumerate(spec.layers):
        words += _option("blockdev", devices.block(layer))
        words += _option("device", devices.layer_device(layer.name, index))
    for disk in spec.disks:
        words += _option("blockdev", devices.block(disk))
        slot = slots[devices.disk_key(disk.name)]
        words += _option("device", devices.bridged_disk(disk.name, slot))
    if spec.share_socket is not None:
        words += _share(spec.share_tag)
    return tuple(words)


def probe_line(runtime: Runtime, memory: int) -> tuple[str, ...]:
    """Return the argv of a machine that can do nothing but boot: its private link leads nowhere."""
    link = Tap(name="none", mac=AGENT_MAC)
    return (
        *_base(runtime, memory, 1, shared=False),
        *_option("netdev", {"type": "hubport", "id": f"net-{link.name}", "hubid": 0}),
        *_agent_nic(link),
    )


def _base(runtime: Runtime, memory: int, cpus: int, *, shared: bool) -> tuple[str, ...]:
    emulated = runtime == Runtime.TCG
    accelerator = f"tcg,thread=multi,tb-size={TRANSLATED}" if emulated else "kvm"
    return (
        QEMU,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", CONFINED),
        *("-L", QEMU_FIRMWARE),
        *("-machine", ",".join(MACHINE)),
        *("-accel", accelerator),
        # Code that is put into the guest to speed up a Windows without KVM's interrupt controller.
        *("-global", "apic-common.vapic=off"),
        *("-cpu", ",".join(EMULATED_CPU if emulated else HOST_CPU)),
        *("-smp", str(cpus)),
        *("-m", f"size={memory >> 10}K"),
        *("-object", _memory(memory, shared=shared)),
        *("-kernel", QEMU_KERNEL, "-initrd", QEMU_INITRAMFS),
        *("-append", " ".join((*KERNEL, *(EMULATED_KERNEL if emulated else ())))),
        # Descriptor 1 is the console's fifo, and 0 is /dev/null: it takes no input.
        *("-chardev", "stdio,id=console,mux=on,signal=off"),
        *_option("device", {"driver": "isa-serial", "chardev": "console"}),
        *_option("device", _console_bus()),
        *_option("device", {"driver": "virtconsole", "chardev": "console"}),
    )


def _memory(size: int, *, shared: bool) -> str:
    kind = "memfd,share=on" if shared else "ram"
    driver, _, share = kind.partition(",")
    words = [f"memory-backend-{driver}", "id=memory", f"size={size >> 10}K"]
    # A file server outside the VMM reads and writes the guest's memory, from the start or later.
    words += [share] if share else []
    return ",".join((*words, "merge=off", "dump=off"))


def _console_bus() -> Options:
    return {
        "driver": "virtio-serial-pci",
        "bus": "pcie.0",
        "addr": devices.CONSOLE_ADDRESS,
        "disable-legacy": "on",
        "max_ports": 1,
    }


def _agent_nic(tap: Tap) -> tuple[str, str]:
    nic = devices.nic_device(tap.name, AGENT_MAC, tap.mtu, "pcie.0", devices.AGENT_ADDRESS)
    return _option("device", nic)


def _balloon() -> Options:
    return {
        "driver": "virtio-balloon-pci",
        "id": devices.BALLOON,
        "bus": "pcie.0",
        "addr": devices.BALLOON_ADDRESS,
        "disable-legacy": "on",
        # The guest takes back what it has given, before it kills a process for it.
        "deflate-on-oom": True,
        # What the guest frees goes back to the host by itself.
        "free-page-reporting": True,
    }


def _share(tag: str) -> tuple[str, ...]:
    return (
        *("-chardev", f"socket,id={devices.SHARE},path={devices.SHARE_SOCKET}"),
        *_option("device", devices.share_device(tag)),
    )


def _option(name: str, options: Options) -> tuple[str, str]:
    return f"-{name}", json.dumps(options)
