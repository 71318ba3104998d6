"""From a container's row to what its agent is told: the OCI-like translation.

Pure: everything comes in as values. Docker's defaults (environment, masked paths, sysctls,
capabilities, limits) are those of moby's ``oci/defaults.go`` and ``daemon/oci_linux.go``.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hyperstack.engine import devices, security
from hyperstack.engine.refusals import RUNTIME
from hyperstack.engine.tmpfs import tmpfs_mount
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.guest import caps, messages
from hyperstack.guest.messages import Namespace
from hyperstack.model import Container, ContainerConfig, ExecConfig, HostConfig, Ulimit
from hyperstack.platform.cgroup import v2_weight

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
_OWN_FIELDS = {"kernel.hostname": "hostname"}
_IPC = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")
DEFAULT_NOFILE = 1048576
LONGEST_NAME = 64
"""Characters that a kernel keeps of a domain name; runc writes what is longer all the same."""
DEFAULT_SHARES = 1024
SHOWN_SINCE = 3
"""The version of the agent protocol that knows CPU limits which the host keeps."""

_RLIMITS = {
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": 10,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}

ALL_NEW = (
    Namespace.MOUNT
    | Namespace.PID
    | Namespace.IPC
    | Namespace.UTS
    | Namespace.CGROUP
    | Namespace.NET
)


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Stream ids of one process; 0 is /dev/null."""

    stdin: int = 0
    stdout: int = 0
    stderr: int = 0

    @classmethod
    def of(cls, handle: int, *, stdin: bool, stdout: bool, stderr: bool) -> Streams:
        """Make the ids from the process's handle, which is never used twice in a sandbox."""
        return cls(
            stdin=handle * 4 + 1 if stdin else 0,
            stdout=handle * 4 + 2 if stdout else 0,
            stderr=handle * 4 + 3 if stderr else 0,
        )


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Where the guest finds what the host prepared for one container."""

    root: messages.Root
    mounts: tuple[messages.Mount, ...] = ()
    nics: tuple[messages.Nic, ...] = ()
    joins: tuple[messages.Join, ...] = ()
    dns: bool = False
    env: tuple[str, ...] = ()
    """Variables of linked containers; those of the container itself win."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Kernel parameters of its interfaces, beside those of the container."""
    shared: bool = False
    """Whether others are in the sandbox: the guest has to divide CPU time then."""


def container_message(
    container: Container,
    rooms: Rooms,
    *,
    handle: int,
    seccomp: bytes,
    streams: Streams,
    version: int = messages.VERSION,
) -> messages.Container:
    """Say all that an agent of *version* needs to start *container*."""
    host = container.host
    shared = 0
    for join in rooms.joins:
        shared |= join.namespace
    return messages.Container(
        id=container.id,
        root=rooms.root,
        mounts=tuple(sorted((*rooms.mounts, *_tmpfs(host)), key=lambda m: m.target.count("/"))),
        hostname=container.config.hostname,
        domainname=container.config.domainname[:LONGEST_NAME],
        namespaces=_namespaces(host) & ~shared,
        joins=rooms.joins,
        limits=limits(host, version=version, shared=rooms.shared),
        sysctls=_sysctls(host, rooms.sysctls),
        devices=devices.nodes(host),
        masked_paths=() if host.privileged else _or(host.masked_paths, MASKED_PATHS),
        readonly_paths=() if host.privileged else _or(host.readonly_paths, READONLY_PATHS),
        nics=rooms.nics,
        process=_first_process(container, handle, seccomp, streams, rooms.env),
        init=bool(host.init),
        privileged=host.privileged,
        shm_size=-1 if host.ipc_mode == "none" else host.shm_size,
        dns=rooms.dns,
    )


def _or(given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    return default if given is None else given


def _namespaces(host: HostConfig) -> int:
    """The namespaces to make new: ``host`` ones are the guest's own, which is the sandbox's."""
    flags = int(ALL_NEW)
    if host.pid_mode == "host":
        flags &= ~Namespace.PID
    if host.ipc_mode == "host":
        flags &= ~Namespace.IPC
    if host.uts_mode == "host":
        flags &= ~Namespace.UTS
    if host.cgroupns_mode == "host":
        flags &= ~Namespace.CGROUP
    return flags


def _tmpfs(host: HostConfig) -> tuple[messages.Mount, ...]:
    made = [tmpfs_mount(target, options) for target, options in sorted(host.tmpfs.items())]
    for mount in host.mounts:
        if mount.type == "tmpfs":
            options = [f"size={mount.tmpfs_size}"] if mount.tmpfs_size else []
            options += [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode else []
            options += ["=".join(option) for option in mount.tmpfs_options]
            options += ["ro"] if mount.read_only else []
            made.append(tmpfs_mount(mount.target, ",".join(options)))
    return tuple(made)


def limits(host: HostConfig, *, version: int, shared: bool = False) -> messages.Limits:
    """Say to an agent of *version* what the container's cgroup in the guest enforces.

    CPU time is the host's business, unless the sandbox is *shared* with others: else the container
    only sees its limit. Older agents can't show what they don't enforce.
    """
    found = messages.Limits(
        memory_max=host.memory or 0,
        memory_low=host.memory_reservation or 0,
        swap_max=_swap(host),
        pids_max=_processes(host.pids_limit),
    )
    if not shared and version < SHOWN_SINCE:
        return found
    quota, period = cpu_time(host)
    return replace(
        found,
        cpu_quota_us=quota or -1,
        cpu_period_us=period,
        cpu_weight=v2_weight(host.cpu_shares or DEFAULT_SHARES),
        cpu_by_host=not shared,
    )


def _swap(host: HostConfig) -> int:
    """Return the swap beside the memory as the agent takes it; guests have none, but show this."""
    if not host.memory or not host.memory_swap:
        return 0
    # Less than a page is none; 0 would leave the limit as it is.
    return -1 if host.memory_swap < 0 else max(host.memory_swap - host.memory, 1)


def _processes(limit: int | None) -> int:
    """Return a limit of processes as the agent takes it: -1 for none, 0 for what it has."""
    if limit is None:
        return 0
    return limit if limit > 0 else -1


def cpu_time(host: HostConfig) -> tuple[int, int]:
    """Return quota (0: no limit) and period of ``--cpus`` or ``--cpu-quota`` in microseconds."""
    if host.nano_cpus:
        return host.nano_cpus // 10_000, 100_000
    return max(host.cpu_quota, 0), host.cpu_period or 100_000


def _sysctls(host: HostConfig, interfaces: Mapping[str, str]) -> tuple[messages.Sysctl, ...]:
    # The network's owner has chosen for all that join it.
    values = {} if host.network_mode.startswith("container:") else dict(DEFAULT_SYSCTLS)
    # As sysctl(8): in a name that begins with a slash's part, slashes are the separators.
    values.update({_dotted(name): value for name, value in host.sysctls.items()})
    values.update(interfaces)
    for name in values:
        if name in _OWN_FIELDS:
            raise InternalError(
                f'{RUNTIME}sysctl "{name}" is not allowed as it conflicts with the OCI '
                f'"{_OWN_FIELDS[name]}" field'
            )
        if host.ipc_mode == "host" and name.startswith(_IPC):
            raise InternalError(
                f'{RUNTIME}sysctl "{name}" is not allowed in the hosts ipc namespace'
            )
    return tuple(messages.Sysctl(name=name, value=value) for name, value in values.items())


def _dotted(name: str) -> str:
    dot, slash = name.find("."), name.find("/")
    return name.replace("/", ".") if slash >= 0 and (dot < 0 or slash < dot) else name


def environment(
    config: ContainerConfig,
    extra: Sequence[str] = (),
    *,
    tty: bool,
    linked: Sequence[str] = (),
) -> list[str]:
    """Merge Docker's default environment, *linked*, the container's, *extra*: later ones win."""
    merged: dict[str, str] = {"PATH": DEFAULT_PATH, "HOSTNAME": config.hostname}
    if tty:
        merged["TERM"] = "xterm"
    for entry in (*linked, *config.env, *extra):
        name, equals, value = entry.partition("=")
        if equals:
            merged[name] = value
        else:
            merged.pop(name, None)
    return [f"{name}={value}" for name, value in merged.items()]


def rlimits(ulimits: Sequence[Ulimit]) -> tuple[messages.Rlimit, ...]:
    """Translate ``--ulimit``. Raises InvalidParameter for an unknown name."""
    made = {
        resource.RLIMIT_NOFILE: messages.Rlimit(
            resource=resource.RLIMIT_NOFILE, soft=DEFAULT_NOFILE, hard=DEFAULT_NOFILE
        )
    }
    for ulimit in ulimits:
        number = _RLIMITS.get(ulimit.name)
        if number is None:
            raise InvalidParameter(f"invalid ulimit type: {ulimit.name}")
        made[number] = messages.Rlimit(resource=number, soft=ulimit.soft, hard=ulimit.hard)
    return tuple(made.values())


def _first_process(
    container: Container, handle: int, seccomp: bytes, streams: Streams, linked: Sequence[str]
) -> messages.Process:
    first = ExecConfig(
        cmd=(container.path, *container.args),
        tty=container.config.tty,
        console_size=container.host.console_size,
    )
    return exec_process(
        container, first, handle=handle, seccomp=seccomp, streams=streams, linked=linked
    )


def exec_process(
    container: Container,
    config: ExecConfig,
    *,
    handle: int,
    seccomp: bytes,
    streams: Streams,
    linked: Sequence[str] = (),
) -> messages.Process:
    """Say all that the agent needs for a process; what *config* leaves open is the container's."""
    host = container.host
    privileged = host.privileged or config.privileged
    bits = caps.resolve(host.cap_add, host.cap_drop, privileged=privileged)
    return messages.Process(
        handle=handle,
        argv=config.cmd,
        env=tuple(environment(container.config, config.env, tty=config.tty, linked=linked)),
        cwd=config.working_dir or container.config.working_dir or "/",
        user=config.user or container.config.user,
        groups=host.group_add,
        tty=config.tty,
        rows=config.console_size[0],
        columns=config.console_size[1],
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
        cap_bounding=bits,
        cap_effective=bits,
        cap_permitted=bits,
        no_new_privs=security.no_new_privileges(host),
        seccomp=seccomp,
        rlimits=rlimits(host.ulimits),
        oom_score_adj=host.oom_score_adj,
    )
