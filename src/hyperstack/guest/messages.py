"""What the daemon and the agent say to each other: the one contract, as types with numbered fields.

Encoding (see ``docs/agent-protocol.md``): a message is a run of fields, each ``u16 tag, u16 zero,
u32 length`` (little endian) and then *length* bytes. An integer is 8 bytes, little endian, two's
complement. Text is UTF-8 without NUL, a path is any bytes without NUL. A nested message is a field
whose bytes are a message. A repeated field stands several times. An absent field is zero, empty or
none. Unknown fields end the connection: both sides come from one build.

Numbers and bounds lie in ``numbers``, what says which container to start in ``workload``.

``native/agent/messages.h`` is generated from this module by ``python -m hyperstack.guest.header``
and a test keeps the two equal.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

from hyperstack.guest.fields import flag, many, number, raw, tag, text
from hyperstack.guest.numbers import (
    GUEST_ADDRESS,
    HEADER,
    HOST_ADDRESS,
    MAX_DATA,
    MAX_DEPTH,
    MAX_MESSAGE,
    OLDEST,
    PORT,
    PREFIX,
    READY,
    VERSION,
    WINDOW,
    EventKind,
    Frame,
    MountKind,
    Namespace,
    Op,
    SourceKind,
    Stage,
)
from hyperstack.guest.workload import (
    Container,
    Device,
    Exec,
    Join,
    Limits,
    Mount,
    Nic,
    Process,
    Rlimit,
    Root,
    RootMount,
    Route,
    Source,
    Sysctl,
)

__all__ = [
    "GUEST_ADDRESS",
    "HEADER",
    "HOST_ADDRESS",
    "MAX_DATA",
    "MAX_DEPTH",
    "MAX_MESSAGE",
    "OLDEST",
    "PORT",
    "PREFIX",
    "READY",
    "VERSION",
    "WINDOW",
    "Container",
    "Device",
    "EventKind",
    "Exec",
    "Frame",
    "Join",
    "Limits",
    "Mount",
    "MountKind",
    "Namespace",
    "Nic",
    "Op",
    "Process",
    "Rlimit",
    "Root",
    "RootMount",
    "Route",
    "Source",
    "SourceKind",
    "Stage",
    "Sysctl",
]
"""What this module hands on of the two others, beside its own."""


@dataclass(frozen=True, kw_only=True)
class Empty:
    """Nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Payload of a reply whose code is an errno. ``detail`` is for people, one line."""

    stage: int = number(1)
    detail: str = text(2)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Clock (ns since the epoch), fresh entropy, what the guest needs before the first container.

    ``share_tag`` is the virtio-fs tag of the sandbox's share (empty: none); the agent mounts it at
    ``/share``. ``cgroup_controllers`` are enabled as far as the kernel has them.
    """

    clock_ns: int = number(1)
    entropy: bytes = raw(2)
    hostname: str = text(3)
    share_tag: str = text(4)


@dataclass(frozen=True, kw_only=True)
class Info:
    """What the agent found."""

    agent_version: str = text(1)
    kernel_release: str = text(2)
    kernel_version: str = text(3)
    memory_total: int = number(4)
    seccomp_actions: str = text(5)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process runs. ``pid`` is the one in the guest's first PID namespace."""

    pid: int = number(1)
    started_ns: int = number(2)


@dataclass(frozen=True, kw_only=True)
class ContainerRef:
    """A container by id."""

    id: str = text(1)


@dataclass(frozen=True, kw_only=True)
class ProcessRef:
    """A process by handle."""

    handle: int = number(1)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A signal for a process, or for every process of its container."""

    handle: int = number(1)
    signal: int = number(2)
    all: bool = flag(3)


@dataclass(frozen=True, kw_only=True)
class Resize:
    """A terminal's new size."""

    handle: int = number(1)
    rows: int = number(2)
    columns: int = number(3)


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """Freeze or thaw a container's cgroup."""

    id: str = text(1)
    frozen: bool = flag(2)


@dataclass(frozen=True, kw_only=True)
class Update:
    """New limits of a running container."""

    id: str = text(1)
    limits: Limits | None = tag(2)


@dataclass(frozen=True, kw_only=True)
class NicStats:
    """Counters of one interface."""

    name: str = text(1)
    rx_bytes: int = number(2)
    rx_packets: int = number(3)
    rx_errors: int = number(4)
    rx_dropped: int = number(5)
    tx_bytes: int = number(6)
    tx_packets: int = number(7)
    tx_errors: int = number(8)
    tx_dropped: int = number(9)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counters of a container: bytes, microseconds, tasks. ``memory_stat`` is the kernel's text."""

    memory_current: int = number(1)
    memory_max: int = number(2)
    memory_stat: str = text(3)
    pids_current: int = number(4)
    pids_max: int = number(5)
    cpu_usage_us: int = number(6)
    cpu_user_us: int = number(7)
    cpu_system_us: int = number(8)
    cpu_periods: int = number(9)
    cpu_throttled_periods: int = number(10)
    cpu_throttled_us: int = number(11)
    read_bytes: int = number(12)
    write_bytes: int = number(13)
    read_ops: int = number(14)
    write_ops: int = number(15)
    nics: tuple[NicStats, ...] = many(16)
    oom_kills: int = number(17)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process as ps(1) would need it; times in clock ticks of 1/100 s, sizes in KiB."""

    pid: int = number(1)
    ppid: int = number(2)
    uid: int = number(3)
    gid: int = number(4)
    user: str = text(5)
    comm: str = text(6)
    cmdline: str = text(7)
    state: str = text(8)
    tty: str = text(9)
    start_ns: int = number(10)
    utime: int = number(11)
    stime: int = number(12)
    vsz: int = number(13)
    rss: int = number(14)
    nice: int = number(15)
    priority: int = number(16)
    threads: int = number(17)
    pgid: int = number(18)
    sid: int = number(19)


@dataclass(frozen=True, kw_only=True)
class Top:
    """The processes of a container."""

    tasks: tuple[Task, ...] = many(1)


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """A process, running or ended. ``code`` is 0-255, 128 + n after signal n.

    ``stdin_taken`` is how far its stdin stream got; ``stdout_end`` and ``stderr_end`` are final
    offsets, known once the stream ended (else 0).
    """

    handle: int = number(1)
    container: str = text(2)
    pid: int = number(3)
    running: bool = flag(4)
    code: int = number(5)
    signal: int = number(6)
    oom: bool = flag(7)
    started_ns: int = number(8)
    finished_ns: int = number(9)
    stdin: int = number(10)
    stdout: int = number(11)
    stderr: int = number(12)
    stdin_taken: int = number(13)
    init: bool = flag(14)
    """The container's first process: when it ends, the container has ended."""


@dataclass(frozen=True, kw_only=True)
class State:
    """All that the agent knows, for a daemon that has just come (back)."""

    processes: tuple[ProcessState, ...] = many(1)
    containers: tuple[str, ...] = many(2)


@dataclass(frozen=True, kw_only=True)
class NicChange:
    """An interface to give to, or take from, a container's network namespace."""

    container: str = text(1)
    nic: Nic | None = tag(2)


@dataclass(frozen=True, kw_only=True)
class ArchiveRequest:
    """A path in a container's root for cp. The tar goes over *stream*.

    ``path`` is resolved beneath the root with every link followed inside it (final link: not for
    STAT and GET, as Docker). PUT: ``path`` must be a directory; ``no_overwrite_dir_non_dir`` and
    ``copy_ids`` are Docker's query parameters. GET: names in the tar begin with the base name of
    *path*; ``rename`` replaces it.
    """

    container: str = text(1)
    path: str = text(2)
    stream: int = number(3)
    no_overwrite_dir_non_dir: bool = flag(4)
    copy_ids: bool = flag(5)


@dataclass(frozen=True, kw_only=True)
class PathStat:
    """What Docker's X-Docker-Container-Path-Stat needs. ``mode`` is st_mode, ``mtime_ns`` ns."""

    name: str = text(1)
    size: int = number(2)
    mode: int = number(3)
    mtime_ns: int = number(4)
    link_target: str = text(5)


@dataclass(frozen=True, kw_only=True)
class OwnerRequest:
    """Look a user up, or with ``group`` a group, by its name in the root's own files."""

    container: str = text(1)
    name: str = text(2)
    group: bool = flag(3)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A uid or gid, at most 2**32 - 2."""

    id: int = number(1)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One changed path against the image; ``kind``: 0 modified, 1 added, 2 deleted."""

    path: str = text(1)
    kind: int = number(2)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All changed paths, sorted; cut at 100,000."""

    changes: tuple[Change, ...] = many(1)


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """Stream a container's root as a tar.

    ``diff``: only what differs from its layers, as a layer with ``.wh.`` whiteouts (for commit).
    ``more``: of that only what has changed since the last difference of the same container.
    """

    container: str = text(1)
    stream: int = number(2)
    diff: bool = flag(3)
    more: bool = flag(4)


@dataclass(frozen=True, kw_only=True)
class Dns:
    """A DNS message (RFC 1035) from a container, or the answer to it."""

    container: str = text(1)
    query: int = number(2)
    message: bytes = raw(3)
    tcp: bool = flag(4)


@dataclass(frozen=True, kw_only=True)
class FileWrite:
    """New content of a FILE mount of a running container."""

    container: str = text(1)
    path: str = text(2)
    content: bytes = raw(3)


@dataclass(frozen=True, kw_only=True)
class SocketOpen:
    """Somebody has connected to a SOCKET mount, which *source* names as the mount does.

    ``connection`` is the agent's number, never used again while the guest runs.
    """

    container: str = text(1)
    source: str = text(2)
    connection: int = number(3)


@dataclass(frozen=True, kw_only=True)
class SocketAnswer:
    """The streams that a connection gets, or the errno for which it gets none.

    ``output`` carries what the container sends, ``input`` what it receives.
    """

    connection: int = number(1)
    output: int = number(2)
    input: int = number(3)
    error: int = number(4)


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
    Op.SOCKET_ANSWER: (SocketAnswer, Empty),
    Op.OWNER: (OwnerRequest, Owner),
}
"""Request and result of each operation."""

EVENTS: dict[EventKind, type[Any]] = {
    EventKind.EXIT: ProcessState,
    EventKind.OOM: ContainerRef,
    EventKind.DNS_QUERY: Dns,
    EventKind.SOCKET_OPEN: SocketOpen,
}


def field_types(cls: type[Any]) -> dict[str, Any]:
    """Return the resolved annotations of a message class, by field name."""
    return typing.get_type_hints(cls)
