"""Messages that say what to start: roots, mounts, limits, interfaces, processes, containers.

Part of the contract in ``messages``; see ``docs/agent-protocol.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperstack.guest.fields import flag, many, number, raw, tag, text


@dataclass(frozen=True, kw_only=True)
class Source:
    """A disk or image as the guest finds it."""

    kind: int = number(1)
    path: str = text(2)


@dataclass(frozen=True, kw_only=True)
class Root:
    """A container's root: EROFS layers, uppermost first, under an overlay whose upper is *disk*."""

    layers: tuple[Source, ...] = many(1)
    disk: Source | None = tag(2)
    read_only: bool = flag(3)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A mount in a container. ``flags`` are MS_* of mount(2), ``target`` is made if missing.

    ``target`` is resolved beneath the container's root, links included. ``copy_up``: fill the empty
    source directory from the image's directory at *target* first (Docker's volumes). ``mode``,
    ``uid`` and ``gid`` are a FILE's (mode alone) or a SOCKET's. A FILE's ``source`` may name a
    sibling: the file is then the sibling's own at that target, and *content* stands in for none.
    """

    kind: int = number(1)
    target: str = text(2)
    source: str = text(3)
    flags: int = number(4)
    data: str = text(5)
    content: bytes = raw(6)
    mode: int = number(7)
    copy_up: bool = flag(8)
    uid: int = number(9)
    gid: int = number(10)


@dataclass(frozen=True, kw_only=True)
class Join:
    """A namespace (one CLONE_NEW* bit) shared with another container of the sandbox."""

    namespace: int = number(1)
    container: str = text(2)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a container's cgroup; 0 = unset, -1 = no limit (``max``).

    Bytes, tasks, cgroup v2 weight (1-10000), microseconds.
    """

    memory_max: int = number(1)
    memory_low: int = number(2)
    swap_max: int = number(3)
    pids_max: int = number(4)
    cpu_weight: int = number(5)
    cpu_quota_us: int = number(6)
    cpu_period_us: int = number(7)
    oom_group: bool = flag(8)


@dataclass(frozen=True, kw_only=True)
class Sysctl:
    """One kernel parameter of the container's namespaces; the name has dots."""

    name: str = text(1)
    value: str = text(2)


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device node to make beside the standard ones. ``type`` is ``c`` or ``b`` as a number."""

    path: str = text(1)
    type: int = number(2)
    major: int = number(3)
    minor: int = number(4)
    mode: int = number(5)
    uid: int = number(6)
    gid: int = number(7)


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route: destination ``address/prefix``, gateway an address or empty (on link)."""

    destination: str = text(1)
    gateway: str = text(2)


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A network interface, found in the guest by its MAC and moved into the container.

    ``mac`` is ``02:42:...``; ``addresses`` are ``address/prefix``; gateways may be empty.
    """

    mac: str = text(1)
    name: str = text(2)
    mtu: int = number(3)
    addresses: tuple[str, ...] = many(4)
    gateway4: str = text(5)
    gateway6: str = text(6)
    routes: tuple[Route, ...] = many(7)


@dataclass(frozen=True, kw_only=True)
class Rlimit:
    """A resource limit by the kernel's RLIMIT_* number; -1 is infinity."""

    resource: int = number(1)
    soft: int = number(2)
    hard: int = number(3)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process to start. ``handle`` (32 bits, not 0) and stream ids are the daemon's choice.

    ``user`` is what Docker's ``-u`` takes: ``name|uid[:group|gid]`` or empty; looked up in the
    container's /etc/passwd and /etc/group by the agent, bounded. ``groups`` are names or numbers
    added to it. Capability sets are bit masks. ``seccomp`` is an array of ``struct sock_filter``
    (empty: none). A stream id of 0 is /dev/null. With ``tty`` all output is on ``stdout``.
    ``HOME`` is set from passwd where env has none, ``TERM`` only by the daemon.
    """

    handle: int = number(1)
    argv: tuple[str, ...] = many(2)
    env: tuple[str, ...] = many(3)
    cwd: str = text(4)
    user: str = text(5)
    groups: tuple[str, ...] = many(6)
    tty: bool = flag(7)
    rows: int = number(8)
    columns: int = number(9)
    stdin: int = number(10)
    stdout: int = number(11)
    stderr: int = number(12)
    cap_bounding: int = number(13)
    cap_effective: int = number(14)
    cap_permitted: int = number(15)
    cap_inheritable: int = number(16)
    cap_ambient: int = number(17)
    no_new_privs: bool = flag(18)
    seccomp: bytes = raw(19)
    rlimits: tuple[Rlimit, ...] = many(20)
    umask: int = number(21)
    """The umask plus one; 0 leaves 0022."""
    oom_score_adj: int = number(22)


@dataclass(frozen=True, kw_only=True)
class RootMount:
    """Mount the root of a container (service sandbox: nothing runs in it).

    ``mounts`` are there for archives, as in a running container; exports and layers leave them out.
    """

    id: str = text(1)
    root: Root | None = tag(2)
    mounts: tuple[Mount, ...] = many(3)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container to set up and start.

    ``namespaces`` are the CLONE_NEW* bits to make new; those in ``joins`` are shared with a
    sibling; any other is the guest's own.
    ``init`` puts the agent's reaper as PID 1 before the process.
    ``privileged``: no masking, sysfs and cgroups writable, every device of the guest.
    """

    id: str = text(1)
    root: Root | None = tag(2)
    mounts: tuple[Mount, ...] = many(3)
    hostname: str = text(4)
    domainname: str = text(5)
    namespaces: int = number(6)
    joins: tuple[Join, ...] = many(7)
    limits: Limits | None = tag(8)
    sysctls: tuple[Sysctl, ...] = many(9)
    devices: tuple[Device, ...] = many(10)
    masked_paths: tuple[str, ...] = many(11)
    readonly_paths: tuple[str, ...] = many(12)
    nics: tuple[Nic, ...] = many(13)
    process: Process | None = tag(14)
    init: bool = flag(15)
    privileged: bool = flag(16)
    shm_size: int = number(17)
    """Bytes; 0 is the default, -1 no ``/dev/shm`` at all."""
    dns: bool = flag(18)
    """Serve DNS at 127.0.0.11 in the container's network namespace by DNS_QUERY events."""


@dataclass(frozen=True, kw_only=True)
class Exec:
    """A further process in a running container."""

    container: str = text(1)
    process: Process | None = tag(2)
    privileged: bool = flag(3)
