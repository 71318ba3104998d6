"""Messages that say what to start: roots, mounts, limits, interfaces, processes, containers.

Part of the contract in ``messages``; see ``docs/agent-protocol.md``.
"""

from __future__ import annotations

from hyperstack.guest.fields import message


@message
class Source:
    """A disk or image as the guest finds it."""

    kind: int = 0
    path: str = ""


@message
class Root:
    """A container's root: EROFS layers, uppermost first, under an overlay whose upper is *disk*."""

    layers: tuple[Source, ...] = ()
    disk: Source | None = None
    read_only: bool = False


@message
class Mount:
    """A mount in a container. ``flags`` are MS_* of mount(2), ``target`` is made if missing.

    ``target`` is resolved beneath the container's root, links included. ``copy_up``: fill the empty
    source directory from the image's directory at *target* first (Docker's volumes). ``mode``,
    ``uid`` and ``gid`` are a FILE's (mode alone) or a SOCKET's. A FILE's ``source`` may name a
    sibling: the file is then the sibling's own at that target, and *content* stands in for none.
    """

    kind: int = 0
    target: str = ""
    source: str = ""
    flags: int = 0
    data: str = ""
    content: bytes = b""
    mode: int = 0
    copy_up: bool = False
    uid: int = 0
    gid: int = 0


@message
class Join:
    """A namespace (one CLONE_NEW* bit) shared with another container of the sandbox."""

    namespace: int = 0
    container: str = ""


@message
class Limits:
    """Limits of a container's cgroup; 0 = unset, -1 = no limit (``max``).

    Bytes, tasks, cgroup v2 weight (1-10000), microseconds. ``cpu_by_host`` (since version 3): the
    host keeps the container to its quota, which the guest only shows in ``cpu.max``.
    """

    memory_max: int = 0
    memory_low: int = 0
    swap_max: int = 0
    pids_max: int = 0
    cpu_weight: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    oom_group: bool = False
    cpu_by_host: bool = False


@message
class Sysctl:
    """One kernel parameter of the container's namespaces; the name has dots."""

    name: str = ""
    value: str = ""


@message
class Device:
    """A device node to make beside the standard ones. ``type`` is ``c`` or ``b`` as a number."""

    path: str = ""
    type: int = 0
    major: int = 0
    minor: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0


@message
class Route:
    """A route: destination ``address/prefix``, gateway an address or empty (on link)."""

    destination: str = ""
    gateway: str = ""


@message
class Nic:
    """A network interface, found in the guest by its MAC and moved into the container.

    ``mac`` is ``02:42:...``; ``addresses`` are ``address/prefix``; gateways may be empty.
    """

    mac: str = ""
    name: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    gateway4: str = ""
    gateway6: str = ""
    routes: tuple[Route, ...] = ()


@message
class Rlimit:
    """A resource limit by the kernel's RLIMIT_* number; -1 is infinity."""

    resource: int = 0
    soft: int = 0
    hard: int = 0


@message
class Process:
    """A process to start. ``handle`` (32 bits, not 0) and stream ids are the daemon's choice.

    ``user`` is what Docker's ``-u`` takes: ``name|uid[:group|gid]`` or empty; looked up in the
    container's /etc/passwd and /etc/group by the agent, bounded. ``groups`` are names or numbers
    added to it. Capability sets are bit masks. ``seccomp`` is an array of ``struct sock_filter``
    (empty: none). A stream id of 0 is /dev/null. With ``tty`` all output is on ``stdout``.
    ``HOME`` is set from passwd where env has none, ``TERM`` only by the daemon.
    """

    handle: int = 0
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    rows: int = 0
    columns: int = 0
    stdin: int = 0
    stdout: int = 0
    stderr: int = 0
    cap_bounding: int = 0
    cap_effective: int = 0
    cap_permitted: int = 0
    cap_inheritable: int = 0
    cap_ambient: int = 0
    no_new_privs: bool = False
    seccomp: bytes = b""
    rlimits: tuple[Rlimit, ...] = ()
    umask: int = 0
    """The umask plus one; 0 leaves 0022."""
    oom_score_adj: int = 0


@message
class RootMount:
    """Mount the root of a container (service sandbox: nothing runs in it).

    ``mounts`` are there for archives, as in a running container; exports and layers leave them out.
    """

    id: str = ""
    root: Root | None = None
    mounts: tuple[Mount, ...] = ()


@message
class Container:
    """A container to set up and start.

    ``namespaces`` are the CLONE_NEW* bits to make new; those in ``joins`` are shared with a
    sibling; any other is the guest's own.
    ``init`` puts the agent's reaper as PID 1 before the process.
    ``privileged``: no masking, sysfs and cgroups writable, every device of the guest.
    """

    id: str = ""
    root: Root | None = None
    mounts: tuple[Mount, ...] = ()
    hostname: str = ""
    domainname: str = ""
    namespaces: int = 0
    joins: tuple[Join, ...] = ()
    limits: Limits | None = None
    sysctls: tuple[Sysctl, ...] = ()
    devices: tuple[Device, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    nics: tuple[Nic, ...] = ()
    process: Process | None = None
    init: bool = False
    privileged: bool = False
    shm_size: int = 0
    """Bytes; 0 is the default, -1 no ``/dev/shm`` at all."""
    dns: bool = False
    """Serve DNS at 127.0.0.11 in the container's network namespace by DNS_QUERY events."""


@message
class Exec:
    """A further process in a running container."""

    container: str = ""
    process: Process | None = None
    privileged: bool = False
