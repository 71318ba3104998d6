"""Linux capabilities: names, bits, and what ``--cap-add`` and ``--cap-drop`` make of them.

Numbers are those of ``linux/capability.h``. The words of errors and the order of adding and
dropping are Docker's. The sets reach the guest as bit masks; what a privileged container may do
with them ends at the guest's kernel.
"""

from __future__ import annotations

from collections.abc import Iterable

from hyperstack.errors import InvalidParameter

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE"
    " NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO"
    " SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME"
    " SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG"
    " WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES: dict[str, int] = {
    f"CAP_{name}": 1 << number for number, name in enumerate(_NAMES.split())
}
"""Every capability and its bit."""
ALL_CAPS = (1 << len(CAPABILITIES)) - 1
_ALL = "ALL"


def mask(capabilities: Iterable[str]) -> int:
    """Return the bits of capabilities given by their full names."""
    bits = 0
    for name in capabilities:
        bits |= CAPABILITIES[name]
    return bits


DEFAULT_CAPS = mask(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP"
        " NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
"""What a container gets without any option: Docker's fourteen."""


def names(bits: int) -> tuple[str, ...]:
    """Return the full names of the capabilities in a mask, by number."""
    return tuple(name for name, bit in CAPABILITIES.items() if bits & bit)


def normalize(capabilities: Iterable[str]) -> tuple[str, ...]:
    """Return full upper-case names (``ALL`` stays). Raises InvalidParameter for unknown ones."""
    result = []
    for given in capabilities:
        name = given.upper()
        if name != _ALL and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name != _ALL and name not in CAPABILITIES:
            raise InvalidParameter(f'unknown capability: "{name}"')
        result.append(name)
    return tuple(result)


def resolve(cap_add: Iterable[str], cap_drop: Iterable[str], privileged: bool) -> int:
    """Return the mask of a container's capabilities.

    ``ALL`` among the added: everything but the dropped; among the dropped: nothing but the added.
    Raises InvalidParameter for an unknown name.
    """
    adds, drops = normalize(cap_add), normalize(cap_drop)
    if privileged:
        return ALL_CAPS
    if _ALL in adds:
        return ALL_CAPS & ~mask(name for name in drops if name != _ALL)
    added = mask(adds)
    if _ALL in drops:
        return added
    return (DEFAULT_CAPS & ~mask(drops)) | added
