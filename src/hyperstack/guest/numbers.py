"""Numbers of the agent protocol: versions, bounds, frames, operations, kinds of things.

Part of the contract in ``messages``; see ``docs/agent-protocol.md``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

VERSION = 3
"""Of the protocol: 2 brought sockets, 3 the limits that are only shown."""
OLDEST = 1
"""Of agents with which the daemon still speaks: sandboxes outlive the daemon that started them."""
HEADER = 16
"""Bytes of a frame's header: u32 length, u8 type, u8 zero, u16 code, u64 id."""
MAX_MESSAGE = 4 << 20
"""Bytes of a request's, reply's or event's payload at most."""
MAX_DATA = 128 << 10
"""Bytes of stream data in one DATA frame at most (its u64 offset not counted)."""
MAX_DEPTH = 4
"""How deep messages nest at most."""
PORT = 1024
"""TCP port at which the agent listens on the private tap."""
GUEST_ADDRESS = "169.254.77.2"
HOST_ADDRESS = "169.254.77.1"
PREFIX = 30
"""The private link, the same in every sandbox's network namespace."""
READY = "hyper-agent: ready"
"""The line on the console that says that the agent listens."""
WINDOW = 256 << 10
"""Bytes of each output stream that the agent keeps until the daemon has taken them."""


class Frame(IntEnum):
    """Types of frames."""

    HELLO = 1  # agent: first frame of a connection; code VERSION, id the agent's boot nonce
    REQUEST = 2  # daemon: code Op, id chosen by the daemon; payload the op's message
    REPLY = 3  # agent: code 0 or an errno, id the request's; payload the result or a Failure
    EVENT = 4  # agent: code EventKind, id a counter
    DATA = 5  # either: id the stream; payload u64 offset, bytes
    CREDIT = 6  # receiver: id the stream; payload u64 taken (forget before it), u64 limit
    EOF = 7  # sender: id the stream; payload u64 final offset
    RESET = 8  # either: id the stream, code an errno; the stream is over


class Op(IntEnum):
    """What the daemon may ask."""

    SETUP = 1  # Setup -> Info
    ROOT_MOUNT = 2  # RootMount -> Empty: mount a container's root without starting anything
    CONTAINER_START = 3  # Container -> Started
    EXEC = 4  # Exec -> Started
    SIGNAL = 5  # Signal -> Empty
    RESIZE = 6  # Resize -> Empty
    FREEZE = 7  # Freeze -> Empty
    UPDATE = 8  # Update -> Empty
    STATS = 9  # ContainerRef -> Stats
    TOP = 10  # ContainerRef -> Top
    LIST = 11  # Empty -> State
    RELEASE = 12  # ProcessRef -> Empty: the daemon has stored this exit, forget the process
    CONTAINER_REMOVE = 13  # ContainerRef -> Empty: kill what is left, unmount, sync
    NIC_ADD = 14  # NicChange -> Empty
    NIC_REMOVE = 15  # NicChange -> Empty
    ARCHIVE_STAT = 16  # ArchiveRequest -> PathStat
    ARCHIVE_GET = 17  # ArchiveRequest -> PathStat, then a tar on the stream
    ARCHIVE_PUT = 18  # ArchiveRequest -> Empty once the tar that the daemon sends is unpacked
    CHANGES = 19  # ContainerRef -> Changes
    EXPORT = 20  # ExportRequest -> Empty, then a tar on the stream
    POWEROFF = 21  # Empty -> Empty: sync, unmount, power off after the reply
    PING = 22  # Empty -> Empty
    TRIM = 23  # ContainerRef -> Empty: give unused blocks of the disk back to the host
    DNS_ANSWER = 24  # Dns -> Empty
    FILE_WRITE = 25  # FileWrite -> Empty: /etc/hosts or resolv.conf of a running container
    SOCKET_ANSWER = 26  # SocketAnswer -> Empty: what becomes of a SOCKET_OPEN
    OWNER = 27  # OwnerRequest -> Owner


class EventKind(IntEnum):
    """What the agent says unasked."""

    EXIT = 1  # ProcessState
    OOM = 2  # ContainerRef: the kernel killed something for the memory limit
    DNS_QUERY = 3  # Dns
    SOCKET_OPEN = 4  # SocketOpen: somebody has connected to a socket of the host


class Stage(IntEnum):
    """Where a start failed; the daemon words Docker's sentence from it."""

    OTHER = 0
    ROOT = 1  # layers, disk, overlay
    MOUNT = 2
    NETWORK = 3
    CGROUP = 4
    NAMESPACE = 5
    USER = 6  # no such user or group; detail is Docker's sentence
    CWD = 7
    EXEC_LOOKUP = 8  # not found in $PATH (ENOENT) or not executable (EACCES)
    EXEC = 9  # execve(2) itself
    SECCOMP = 10
    DEVICE = 11
    SYSCTL = 12
    RLIMIT = 13
    TTY = 14


class SourceKind(IntEnum):
    """How a disk reaches the guest."""

    FILE = 1  # a file below a hostfs mount (UML): path in the jail
    BLOCK = 2  # a block device: path in the guest
    SERIAL = 3  # a block device found by its serial number (QEMU)


class MountKind(IntEnum):
    """Kinds of mounts in a container beside the standard ones, which the agent knows."""

    SHARE = 1  # bind of a path below the sandbox's virtio-fs share; source is that path
    TMPFS = 2  # data is the option string
    FILE = 3  # a private file with the given content, bind mounted (hosts, resolv.conf)
    SOCKET = 4  # a unix socket at which the agent listens for the host; source is its name


class Namespace(IntFlag):
    """Namespaces by the kernel's CLONE_NEW* bits."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000
