"""What the daemon and the agent say to each other: the one contract, as types with numbered fields.

Encoding (see ``docs/agent-protocol.md``): a message is a run of fields, each ``u16 tag, u16 zero,
u32 length`` (little endian) and then *length* bytes. An integer is 8 bytes, little endian, two's
complement. Text is UTF-8 without NUL, a path is any bytes without NUL. A nested message is a field
whose bytes are a message. A repeated field stands several times. An absent field is zero, empty or
none. Unknown fields end the connection: both sides come from one build.

``native/agent/messages.h`` is generated from this module by ``python -m hyperstack.guest.header``
and a test keeps the two equal.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

VERSION = 1
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


class EventKind(IntEnum):
    """What the agent says unasked."""

    EXIT = 1  # ProcessState
    OOM = 2  # ContainerRef: the kernel killed something for the memory limit
    DNS_QUERY = 3  # Dns


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


class Namespace(IntFlag):
    """Namespaces by the kernel's CLONE_NEW* bits."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000


def tag(number: int) -> Any:
    """Give a dataclass field its number on the wire, and the empty default."""
    return dataclasses.field(default=None, metadata={"tag": number})


def _number(n: int) -> Any:
    return dataclasses.field(default=0, metadata={"tag": n})


def _text(n: int) -> Any:
    return dataclasses.field(default="", metadata={"tag": n})


def _bytes(n: int) -> Any:
    return dataclasses.field(default=b"", metadata={"tag": n})


def _flag(n: int) -> Any:
    return dataclasses.field(default=False, metadata={"tag": n})


def _list(n: int) -> Any:
    return dataclasses.field(default=(), metadata={"tag": n})


@dataclass(frozen=True, kw_only=True)
class Empty:
    """Nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Payload of a reply whose code is an errno. ``detail`` is for people, one line."""

    stage: int = _number(1)
    detail: str = _text(2)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Clock (ns since the epoch), fresh entropy, what the guest needs before the first container.

    ``share_tag`` is the virtio-fs tag of the sandbox's share (empty: none); the agent mounts it at
    ``/share``. ``cgroup_controllers`` are enabled as far as the kernel has them.
    """

    clock_ns: int = _number(1)
    entropy: bytes = _bytes(2)
    hostname: str = _text(3)
    share_tag: str = _text(4)


@dataclass(frozen=True, kw_only=True)
class Info:
    """What the agent found."""

    agent_version: str = _text(1)
    kernel_release: str = _text(2)
    kernel_version: str = _text(3)
    memory_total: int = _number(4)
    seccomp_actions: str = _text(5)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A disk or image as the guest finds it."""

    kind: int = _number(1)
    path: str = _text(2)


@dataclass(frozen=True, kw_only=True)
class Root:
    """A container's root: EROFS layers, uppermost first, under an overlay whose upper is *disk*."""

    layers: tuple[Source, ...] = _list(1)
    disk: Source | None = tag(2)
    read_only: bool = _flag(3)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A mount in a container. ``flags`` are MS_* of mount(2), ``target`` is made if missing.

    ``target`` is resolved beneath the container's root, links included. ``copy_up``: fill the empty
    source directory from the image's directory at *target* first (Docker's volumes).
    """

    kind: int = _number(1)
    target: str = _text(2)
    source: str = _text(3)
    flags: int = _number(4)
    data: str = _text(5)
    content: bytes = _bytes(6)
    mode: int = _number(7)
    copy_up: bool = _flag(8)


@dataclass(frozen=True, kw_only=True)
class Join:
    """A namespace (one CLONE_NEW* bit) shared with another container of the sandbox."""

    namespace: int = _number(1)
    container: str = _text(2)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a container's cgroup; 0 = unset, -1 = no limit (``max``).

    Bytes, tasks, cgroup v2 weight (1-10000), microseconds.
    """

    memory_max: int = _number(1)
    memory_low: int = _number(2)
    swap_max: int = _number(3)
    pids_max: int = _number(4)
    cpu_weight: int = _number(5)
    cpu_quota_us: int = _number(6)
    cpu_period_us: int = _number(7)
    oom_group: bool = _flag(8)


@dataclass(frozen=True, kw_only=True)
class Sysctl:
    """One kernel parameter of the container's namespaces; the name has dots."""

    name: str = _text(1)
    value: str = _text(2)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device node to make beside the standard ones. ``type`` is ``c`` or ``b`` as a number."""

    path: str = _text(1)
    type: int = _number(2)
    major: int = _number(3)
    minor: int = _number(4)
    mode: int = _number(5)
    uid: int = _number(6)
    gid: int = _number(7)


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route: destination ``address/prefix``, gateway an address or empty (on link)."""

    destination: str = _text(1)
    gateway: str = _text(2)


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A network interface, found in the guest by its MAC and moved into the container.

    ``mac`` is ``02:42:...``; ``addresses`` are ``address/prefix``; gateways may be empty.
    """

    mac: str = _text(1)
    name: str = _text(2)
    mtu: int = _number(3)
    addresses: tuple[str, ...] = _list(4)
    gateway4: str = _text(5)
    gateway6: str = _text(6)
    routes: tuple[Route, ...] = _list(7)


@dataclass(frozen=True, kw_only=True)
class Rlimit:
    """A resource limit by the kernel's RLIMIT_* number; -1 is infinity."""

    resource: int = _number(1)
    soft: int = _number(2)
    hard: int = _number(3)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process to start. ``handle`` (32 bits, not 0) and stream ids are the daemon's choice.

    ``user`` is what Docker's ``-u`` takes: ``name|uid[:group|gid]`` or empty; looked up in the
    container's /etc/passwd and /etc/group by the agent, bounded. ``groups`` are names or numbers
    added to it. Capability sets are bit masks. ``seccomp`` is an array of ``struct sock_filter``
    (empty: none). A stream id of 0 is /dev/null. With ``tty`` all output is on ``stdout``.
    ``HOME`` is set from passwd where env has none, ``TERM`` only by the daemon.
    """

    handle: int = _number(1)
    argv: tuple[str, ...] = _list(2)
    env: tuple[str, ...] = _list(3)
    cwd: str = _text(4)
    user: str = _text(5)
    groups: tuple[str, ...] = _list(6)
    tty: bool = _flag(7)
    rows: int = _number(8)
    columns: int = _number(9)
    stdin: int = _number(10)
    stdout: int = _number(11)
    stderr: int = _number(12)
    cap_bounding: int = _number(13)
    cap_effective: int = _number(14)
    cap_permitted: int = _number(15)
    cap_inheritable: int = _number(16)
    cap_ambient: int = _number(17)
    no_new_privs: bool = _flag(18)
    seccomp: bytes = _bytes(19)
    rlimits: tuple[Rlimit, ...] = _list(20)
    umask: int = _number(21)
    """The umask plus one; 0 leaves 0022."""
    oom_score_adj: int = _number(22)


@dataclass(frozen=True, kw_only=True)
class RootMount:
    """Mount the root of a container (service sandbox: nothing runs in it).

    ``mounts`` are there for archives, as in a running container; exports and layers leave them out.
    """

    id: str = _text(1)
    root: Root | None = tag(2)
    mounts: tuple[Mount, ...] = _list(3)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container to set up and start.

    ``namespaces`` are the CLONE_NEW* bits to make new; those in ``joins`` are shared with a
    sibling; any other is the guest's own.
    ``init`` puts the agent's reaper as PID 1 before the process.
    ``privileged``: no masking, sysfs and cgroups writable, every device of the guest.
    """

    id: str = _text(1)
    root: Root | None = tag(2)
    mounts: tuple[Mount, ...] = _list(3)
    hostname: str = _text(4)
    domainname: str = _text(5)
    namespaces: int = _number(6)
    joins: tuple[Join, ...] = _list(7)
    limits: Limits | None = tag(8)
    sysctls: tuple[Sysctl, ...] = _list(9)
    devices: tuple[Device, ...] = _list(10)
    masked_paths: tuple[str, ...] = _list(11)
    readonly_paths: tuple[str, ...] = _list(12)
    nics: tuple[Nic, ...] = _list(13)
    process: Process | None = tag(14)
    init: bool = _flag(15)
    privileged: bool = _flag(16)
    shm_size: int = _number(17)
    dns: bool = _flag(18)
    """Serve DNS at 127.0.0.11 in the container's network namespace by DNS_QUERY events."""


@dataclass(frozen=True, kw_only=True)
class Exec:
    """A further process in a running container."""

    container: str = _text(1)
    process: Process | None = tag(2)
    privileged: bool = _flag(3)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process runs. ``pid`` is the one in the guest's first PID namespace."""

    pid: int = _number(1)
    started_ns: int = _number(2)


@dataclass(frozen=True, kw_only=True)
class ContainerRef:
    """A container by id."""

    id: str = _text(1)


@dataclass(frozen=True, kw_only=True)
class ProcessRef:
    """A process by handle."""

    handle: int = _number(1)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A signal for a process, or for every process of its container."""

    handle: int = _number(1)
    signal: int = _number(2)
    all: bool = _flag(3)


@dataclass(frozen=True, kw_only=True)
class Resize:
    """A terminal's new size."""

    handle: int = _number(1)
    rows: int = _number(2)
    columns: int = _number(3)


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """Freeze or thaw a container's cgroup."""

    id: str = _text(1)
    frozen: bool = _flag(2)


@dataclass(frozen=True, kw_only=True)
class Update:
    """New limits of a running container."""

    id: str = _text(1)
    limits: Limits | None = tag(2)


@dataclass(frozen=True, kw_only=True)
class NicStats:
    """Counters of one interface."""

    name: str = _text(1)
    rx_bytes: int = _number(2)
    rx_packets: int = _number(3)
    rx_errors: int = _number(4)
    rx_dropped: int = _number(5)
    tx_bytes: int = _number(6)
    tx_packets: int = _number(7)
    tx_errors: int = _number(8)
    tx_dropped: int = _number(9)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counters of a container: bytes, microseconds, tasks. ``memory_stat`` is the kernel's text."""

    memory_current: int = _number(1)
    memory_max: int = _number(2)
    memory_stat: str = _text(3)
    pids_current: int = _number(4)
    pids_max: int = _number(5)
    cpu_usage_us: int = _number(6)
    cpu_user_us: int = _number(7)
    cpu_system_us: int = _number(8)
    cpu_periods: int = _number(9)
    cpu_throttled_periods: int = _number(10)
    cpu_throttled_us: int = _number(11)
    read_bytes: int = _number(12)
    write_bytes: int = _number(13)
    read_ops: int = _number(14)
    write_ops: int = _number(15)
    nics: tuple[NicStats, ...] = _list(16)
    oom_kills: int = _number(17)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process as ps(1) would need it; times in clock ticks of 1/100 s, sizes in KiB."""

    pid: int = _number(1)
    ppid: int = _number(2)
    uid: int = _number(3)
    gid: int = _number(4)
    user: str = _text(5)
    comm: str = _text(6)
    cmdline: str = _text(7)
    state: str = _text(8)
    tty: str = _text(9)
    start_ns: int = _number(10)
    utime: int = _number(11)
    stime: int = _number(12)
    vsz: int = _number(13)
    rss: int = _number(14)
    nice: int = _number(15)
    priority: int = _number(16)
    threads: int = _number(17)
    pgid: int = _number(18)
    sid: int = _number(19)


@dataclass(frozen=True, kw_only=True)
class Top:
    """The processes of a container."""

    tasks: tuple[Task, ...] = _list(1)


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """A process, running or ended. ``code`` is 0-255, 128 + n after signal n.

    ``stdin_taken`` is how far its stdin stream got; ``stdout_end`` and ``stderr_end`` are final
    offsets, known once the stream ended (else 0).
    """

    handle: int = _number(1)
    container: str = _text(2)
    pid: int = _number(3)
    running: bool = _flag(4)
    code: int = _number(5)
    signal: int = _number(6)
    oom: bool = _flag(7)
    started_ns: int = _number(8)
    finished_ns: int = _number(9)
    stdin: int = _number(10)
    stdout: int = _number(11)
    stderr: int = _number(12)
    stdin_taken: int = _number(13)
    init: bool = _flag(14)
    """The container's first process: when it ends, the container has ended."""


@dataclass(frozen=True, kw_only=True)
class State:
    """All that the agent knows, for a daemon that has just come (back)."""

    processes: tuple[ProcessState, ...] = _list(1)
    containers: tuple[str, ...] = _list(2)


@dataclass(frozen=True, kw_only=True)
class NicChange:
    """An interface to give to, or take from, a container's network namespace."""

    container: str = _text(1)
    nic: Nic | None = tag(2)


@dataclass(frozen=True, kw_only=True)
class ArchiveRequest:
    """A path in a container's root for cp. The tar goes over *stream*.

    ``path`` is resolved beneath the root with every link followed inside it (final link: not for
    STAT and GET, as Docker). PUT: ``path`` must be a directory; ``no_overwrite_dir_non_dir`` and
    ``copy_ids`` are Docker's query parameters. GET: names in the tar begin with the base name of
    *path*; ``rename`` replaces it.
    """

    container: str = _text(1)
    path: str = _text(2)
    stream: int = _number(3)
    no_overwrite_dir_non_dir: bool = _flag(4)
    copy_ids: bool = _flag(5)


@dataclass(frozen=True, kw_only=True)
class PathStat:
    """What Docker's X-Docker-Container-Path-Stat needs. ``mode`` is st_mode, ``mtime_ns`` ns."""

    name: str = _text(1)
    size: int = _number(2)
    mode: int = _number(3)
    mtime_ns: int = _number(4)
    link_target: str = _text(5)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One changed path against the image; ``kind``: 0 modified, 1 added, 2 deleted."""

    path: str = _text(1)
    kind: int = _number(2)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All changed paths, sorted; cut at 100,000."""

    changes: tuple[Change, ...] = _list(1)


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Stream a container's root as a tar.

    ``diff``: only what the upper layer holds, as a layer with ``.wh.`` whiteouts (for commit).
    """

    container: str = _text(1)
    stream: int = _number(2)
    diff: bool = _flag(3)


@dataclass(frozen=True, kw_only=True)
class Dns:
    """A DNS message (RFC 1035) from a container, or the answer to it."""

    container: str = _text(1)
    query: int = _number(2)
    message: bytes = _bytes(3)
    tcp: bool = _flag(4)


@dataclass(frozen=True, kw_only=True)
class FileWrite:
    """New content of a FILE mount of a running container."""

    container: str = _text(1)
    path: str = _text(2)
    content: bytes = _bytes(3)


OPS: dict[Op, tuple[type[Any], type[Any]]] = {
    Op.SETUP: (Setup, Info),
    Op.ROOT_MOUNT: (RootMount, Empty),
    Op.CONTAINER_START: (Container, Started),
    Op.EXEC: (Exec, Started),
    Op.SIGNAL: (Signal, Empty),
    Op.RESIZE: (Resize, Empty),
    Op.FREEZE: (Freeze, Empty),
    Op.UPDATE: (Update, Empty),
    Op.STATS: (ContainerRef, Stats),
    Op.TOP: (ContainerRef, Top),
    Op.LIST: (Empty, State),
    Op.RELEASE: (ProcessRef, Empty),
    Op.CONTAINER_REMOVE: (ContainerRef, Empty),
    Op.NIC_ADD: (NicChange, Empty),
    Op.NIC_REMOVE: (NicChange, Empty),
    Op.ARCHIVE_STAT: (ArchiveRequest, PathStat),
    Op.ARCHIVE_GET: (ArchiveRequest, PathStat),
    Op.ARCHIVE_PUT: (ArchiveRequest, Empty),
    Op.CHANGES: (ContainerRef, Changes),
    Op.EXPORT: (ExportRequest, Empty),
    Op.POWEROFF: (Empty, Empty),
    Op.PING: (Empty, Empty),
    Op.TRIM: (ContainerRef, Empty),
    Op.DNS_ANSWER: (Dns, Empty),
    Op.FILE_WRITE: (FileWrite, Empty),
}
"""Request and result of each operation."""

EVENTS: dict[EventKind, type[Any]] = {
    EventKind.EXIT: ProcessState,
    EventKind.OOM: ContainerRef,
    EventKind.DNS_QUERY: Dns,
}


def field_types(cls: type[Any]) -> dict[str, Any]:
    """Return the resolved annotations of a message class, by field name."""
    return typing.get_type_hints(cls)
