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
from typing import Any

from hyperstack.guest.fields import message
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


@message
class Empty:
    """Nothing to say."""


@message
class Failure:
    """Payload of a reply whose code is an errno. ``detail`` is for people, one line."""

    stage: int = 0
    detail: str = ""


@message
class Setup:
    """Clock (ns since the epoch), fresh entropy, what the guest needs before the first container.

    ``share_tag`` is the virtio-fs tag of the sandbox's share (empty: none); the agent mounts it at
    ``/share``.
    """

    clock_ns: int = 0
    entropy: bytes = b""
    hostname: str = ""
    share_tag: str = ""


@message
class Info:
    """What the agent found."""

    agent_version: str = ""
    kernel_release: str = ""
    kernel_version: str = ""
    memory_total: int = 0
    seccomp_actions: str = ""


@message
class Started:
    """A process runs. ``pid`` is the one in the guest's first PID namespace."""

    pid: int = 0
    started_ns: int = 0


@message
class ContainerRef:
    """A container by id."""

    id: str = ""


@message
class ProcessRef:
    """A process by handle."""

    handle: int = 0


@message
class Signal:
    """A signal for a process, or for every process of its container."""

    handle: int = 0
    signal: int = 0
    all: bool = False


@message
class Resize:
    """A terminal's new size."""

    handle: int = 0
    rows: int = 0
    columns: int = 0


@message
class Freeze:
    """Freeze or thaw a container's cgroup."""

    id: str = ""
    frozen: bool = False


@message
class Update:
    """New limits of a running container."""

    id: str = ""
    limits: Limits | None = None


@message
class NicStats:
    """Counters of one interface."""

    name: str = ""
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@message
class Stats:
    """Counters of a container: bytes, microseconds, tasks. ``memory_stat`` is the kernel's text."""

    memory_current: int = 0
    memory_max: int = 0
    memory_stat: str = ""
    pids_current: int = 0
    pids_max: int = 0
    cpu_usage_us: int = 0
    cpu_user_us: int = 0
    cpu_system_us: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_us: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0
    nics: tuple[NicStats, ...] = ()
    oom_kills: int = 0


@message
class Task:
    """One process as ps(1) would need it; times in clock ticks of 1/100 s, sizes in KiB."""

    pid: int = 0
    ppid: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    comm: str = ""
    cmdline: str = ""
    state: str = ""
    tty: str = ""
    start_ns: int = 0
    utime: int = 0
    stime: int = 0
    vsz: int = 0
    rss: int = 0
    nice: int = 0
    priority: int = 0
    threads: int = 0
    pgid: int = 0
    sid: int = 0


@message
class Top:
    """The processes of a container."""

    tasks: tuple[Task, ...] = ()


@message
class ProcessState:
    """A process, running or ended. ``code`` is 0-255, 128 + n after signal n.

    ``stdin``, ``stdout`` and ``stderr`` are its streams' ids, ``stdin_taken`` is how far stdin got.
    """

    handle: int = 0
    container: str = ""
    pid: int = 0
    running: bool = False
    code: int = 0
    signal: int = 0
    oom: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    stdin: int = 0
    stdout: int = 0
    stderr: int = 0
    stdin_taken: int = 0
    init: bool = False
    """The container's first process: when it ends, the container has ended."""


@message
class State:
    """All that the agent knows, for a daemon that has just come (back)."""

    processes: tuple[ProcessState, ...] = ()
    containers: tuple[str, ...] = ()


@message
class NicChange:
    """An interface to give to, or take from, a container's network namespace."""

    container: str = ""
    nic: Nic | None = None


@message
class ArchiveRequest:
    """A path in a container's root for cp. The tar goes over *stream*.

    ``path`` is resolved beneath the root with every link followed inside it (final link: not for
    STAT and GET, as Docker). PUT: ``path`` must be a directory; ``no_overwrite_dir_non_dir`` and
    ``copy_ids`` are Docker's query parameters. GET: names in the tar begin with the base name of
    *path*.
    """

    container: str = ""
    path: str = ""
    stream: int = 0
    no_overwrite_dir_non_dir: bool = False
    copy_ids: bool = False


@message
class PathStat:
    """What Docker's X-Docker-Container-Path-Stat needs. ``mode`` is st_mode, ``mtime_ns`` ns."""

    name: str = ""
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0
    link_target: str = ""


@message
class OwnerRequest:
    """Look a user up, or with ``group`` a group, by its name in the root's own files."""

    container: str = ""
    name: str = ""
    group: bool = False


@message
class Owner:
    """A uid or gid, at most 2**32 - 2."""

    id: int = 0


@message
class Change:
    """One changed path against the image; ``kind``: 0 modified, 1 added, 2 deleted."""

    path: str = ""
    kind: int = 0


@message
class Changes:
    """All changed paths, sorted; cut at 100,000."""

    changes: tuple[Change, ...] = ()


@message
class ExportRequest:
    """Stream a container's root as a tar.

    ``diff``: only what differs from its layers, as a layer with ``.wh.`` whiteouts (for commit).
    ``more``: of that only what has changed since the last difference of the same container.
    """

    container: str = ""
    stream: int = 0
    diff: bool = False
    more: bool = False


@message
class Dns:
    """A DNS message (RFC 1035) from a container, or the answer to it."""

    container: str = ""
    query: int = 0
    message: bytes = b""
    tcp: bool = False


@message
class FileWrite:
    """New content of a FILE mount of a running container."""

    container: str = ""
    path: str = ""
    content: bytes = b""


@message
class SocketOpen:
    """Somebody has connected to a SOCKET mount, which *source* names as the mount does.

    ``connection`` is the agent's number, never used again while the guest runs.
    """

    container: str = ""
    source: str = ""
    connection: int = 0


@message
class SocketAnswer:
    """The streams that a connection gets, or the errno for which it gets none.

    ``output`` carries what the container sends, ``input`` what it receives.
    """

    connection: int = 0
    output: int = 0
    input: int = 0
    error: int = 0


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
