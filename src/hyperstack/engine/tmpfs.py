"""Docker's tmpfs options (``--tmpfs /x:size=1m,mode=700,noexec``) as mount(2) flags and data."""

from __future__ import annotations

from hyperstack.errors import InternalError
from hyperstack.guest import messages
from hyperstack.guest.messages import MountKind

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

_FLAGS: dict[str, tuple[bool, int]] = {
    "defaults": (True, 0),
    "ro": (True, MS_RDONLY),
    "rw": (False, MS_RDONLY),
    "suid": (False, MS_NOSUID),
    "nosuid": (True, MS_NOSUID),
    "dev": (False, MS_NODEV),
    "nodev": (True, MS_NODEV),
    "exec": (False, MS_NOEXEC),
    "noexec": (True, MS_NOEXEC),
    "sync": (True, MS_SYNCHRONOUS),
    "async": (False, MS_SYNCHRONOUS),
    "dirsync": (True, MS_DIRSYNC),
    "mand": (True, MS_MANDLOCK),
    "nomand": (False, MS_MANDLOCK),
    "atime": (False, MS_NOATIME),
    "noatime": (True, MS_NOATIME),
    "diratime": (False, MS_NODIRATIME),
    "nodiratime": (True, MS_NODIRATIME),
    "relatime": (True, MS_RELATIME),
    "norelatime": (False, MS_RELATIME),
    "strictatime": (True, MS_STRICTATIME),
    "nostrictatime": (False, MS_STRICTATIME),
}
_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_DATA = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})


def parse_tmpfs(options: str) -> tuple[int, str]:
    """Split an option string into flags and data.

    Docker's own defaults (noexec, nosuid, nodev) come first and can be undone. Raises
    InternalError in Docker's words, which looks at them when a container starts.
    """
    flags = MS_NOEXEC | MS_NOSUID | MS_NODEV
    data: dict[str, str] = {}
    for option in filter(None, options.split(",")):
        name, equals, value = option.partition("=")
        if option in _FLAGS:
            on, bit = _FLAGS[option]
            flags = flags | bit if on else flags & ~bit
        elif equals and name in _DATA:
            data[name] = value
        elif option not in _PROPAGATION:
            raise InternalError(f'invalid tmpfs option "{name}"')
    return flags, ",".join(f"{name}={value}" for name, value in data.items())


def tmpfs_mount(target: str, options: str) -> messages.Mount:
    """Make the agent's mount of ``--tmpfs target:options``."""
    flags, data = parse_tmpfs(options)
    return messages.Mount(kind=MountKind.TMPFS, target=target, flags=flags, data=data)
