"""Options of driver ``local``: what a volume mounts on the host, as ``mount(8)`` words it.

Docker's rules and sentences (moby ``volume/local``): ``type`` and ``device`` are both there or
neither is, ``o`` needs both. Nothing is looked at before a container that has the volume starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hyperstack.errors import InvalidParameter, NotImplementedHere

MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384

_SIZE = re.compile(r"(\d+(?:\.\d+)?(?:e\d{1,3})?) ?[kmgtp]?(?:i?b)?\Z", re.IGNORECASE)
_KEYS = ("type", "o", "device", "size")
SHARES = frozenset({"cifs", "smb3"})
NETWORK_TYPES = frozenset({"nfs", "nfs4"}) | SHARES
# What a kernel mounts without reading a disk, whose bytes may be a guest's.
_DISKLESS = frozenset({"none", "bind", "tmpfs", "overlay", *NETWORK_TYPES})

# Options that are flags of mount(2): whether they set or clear, and which.
_FLAGS: dict[str, tuple[bool, int]] = {
    "defaults": (True, 0),
    "ro": (True, MS_RDONLY),
    "rw": (False, MS_RDONLY),
    "suid": (False, 2),
    "nosuid": (True, 2),
    "dev": (False, 4),
    "nodev": (True, 4),
    "exec": (False, 8),
    "noexec": (True, 8),
    "sync": (True, 16),
    "async": (False, 16),
    "remount": (True, MS_REMOUNT),
    "mand": (True, 64),
    "nomand": (False, 64),
    "dirsync": (True, 128),
    "atime": (False, 1024),
    "noatime": (True, 1024),
    "diratime": (False, 2048),
    "nodiratime": (True, 2048),
    "bind": (True, MS_BIND),
    "rbind": (True, MS_BIND | MS_REC),
    "relatime": (True, 1 << 21),
    "norelatime": (False, 1 << 21),
    "strictatime": (True, 1 << 24),
    "nostrictatime": (False, 1 << 24),
}
_PROPAGATION = frozenset(
    "private rprivate shared rshared slave rslave unbindable runbindable".split()
)


@dataclass(frozen=True, kw_only=True)
class HostMount:
    """What mount(2) is given. *data* holds the options that are no flags, comma separated."""

    device: str
    type: str
    flags: int
    data: str

    def told(self, target: str, reason: str) -> str:
        """Word a failure as moby's ``sys/mount`` does; a password is not shown."""
        words = f"mount {self.device}:{target}"
        if self.flags:
            words += f", flags: {self.flags:#x}"
        if self.data:
            words += ", data: " + re.sub(r"(password=)[^,]*", r"\1********", self.data)
        return f"{words}: {reason}"

    @property
    def server(self) -> str:
        """The name or address of a network file system's server; empty if it is given none.

        Docker looks for ``addr=`` and, for Windows' shares, in ``//server/share``.
        """
        if self.type not in NETWORK_TYPES:
            return ""
        options = dict(option.partition("=")[::2] for option in self.data.split(","))
        if (address := options.get("addr", "")) or self.type not in SHARES:
            return address
        return self.device[2:].partition("/")[0] if self.device.startswith("//") else ""

    def at(self, address: str) -> HostMount:
        """Return the same with its server's address for its name, which no kernel looks up."""
        server = self.server
        if f"addr={server}" in self.data.split(","):
            data = self.data.replace(f"addr={server}", f"addr={address}", 1)
            return replace(self, data=data)
        return replace(self, device=f"//{address}{self.device[2 + len(server) :]}")

    @property
    def volatile(self) -> bool:
        """Whether what is in it ends with its mount."""
        return self.type == "tmpfs"

    def check_diskless(self) -> None:
        """Raise NotImplementedHere if the host's kernel would have to read a disk for it."""
        if self.type not in _DISKLESS:
            raise NotImplementedHere(
                f"file systems of type {self.type} are not mounted for containers: the host reads "
                "no disk whose bytes a guest may have written"
            )


def check(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return a new volume's options. Raises InvalidParameter in Docker's words."""
    for key in sorted(options):
        if key not in _KEYS:
            raise InvalidParameter(f'create {name}: invalid option: "{key}"')
    if "size" in options:
        match = _SIZE.match(options["size"])
        if match is None:
            raise InvalidParameter(f"create {name}: invalid size: '{options['size']}'")
        if float(match[1]):
            raise InvalidParameter(f"create {name}: quota size requested but no quota support")
    for given, needed in (("type", "device"), ("o", "device"), ("device", "type"), ("o", "type")):
        if given in options and needed not in options:
            raise InvalidParameter(f'create {name}: missing required option: "{needed}"')
    return dict(options)


def host_mount(options: Mapping[str, str]) -> HostMount | None:
    """Return what a volume of these options mounts; None if it is a plain directory."""
    if not (options.get("device") or options.get("type")):
        return None
    flags, data = 0, []
    for option in filter(None, options.get("o", "").split(",")):
        if option in _FLAGS:
            on, bits = _FLAGS[option]
            flags = flags | bits if on else flags & ~bits
        elif option not in _PROPAGATION:
            data.append(option)
    return HostMount(
        device=options.get("device", ""),
        type=options.get("type", ""),
        flags=flags,
        data=",".join(data),
    )
