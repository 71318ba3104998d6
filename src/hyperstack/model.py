"""The engine's own words for containers: what was asked (frozen) and what is (state).

Docker's JSON keys are not known here: ``api/docker/schema`` translates. All of it is stored as JSON
by msgspec, so fields may be added with defaults and never change their meaning. Sizes are bytes,
times ns since the epoch unless a name says otherwise.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from hyperstack.ids import ContainerId, ExecId, SandboxId


class Status(StrEnum):
    """States of a container, in Docker's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"

    @property
    def is_up(self) -> bool:
        """Whether processes of the container exist (Docker's ``State.Running``)."""
        return self in (Status.RUNNING, Status.PAUSED, Status.RESTARTING)


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True):
    """How to see whether a container is healthy. Durations are ns; 0 inherits the default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a container that does not depend on the host (an image has the same)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: tuple[str, ...] = ()
    """``80/tcp``"""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    """As the user named it."""
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    entrypoint: tuple[str, ...] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    """Seconds; -1 waits for ever."""
    shell: tuple[str, ...] | None = None
    given_empty: tuple[str, ...] = ()
    """Lists and maps that the client gave as empty ones; others that are empty it left out."""


class PortBinding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a port of the container is published; an empty port means a random one."""

    host_ip: str = ""
    host_port: str = ""
    """``8080``, ``8000-8010`` or empty."""


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """``no`` (or empty), ``always``, ``unless-stopped``, ``on-failure``."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Log driver (empty: the daemon's default) and its options."""

    type: str = ""
    config: dict[str, str] = {}


class MountPoint(msgspec.Struct, frozen=True, kw_only=True):
    """``--mount``: what the user asked for; see Docker's Mount object."""

    type: str = "volume"
    """bind, volume, tmpfs, npipe, cluster, image"""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver: str = ""
    driver_options: dict[str, str] = {}
    subpath: str = ""
    tmpfs_size: int = 0
    tmpfs_mode: int = 0
    tmpfs_options: tuple[tuple[str, ...], ...] = ()
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    given: tuple[str, ...] = ()
    """Types whose options the client gave, be they empty."""


class DeviceMapping(msgspec.Struct, frozen=True, kw_only=True):
    """``--device``."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class WeightDevice(msgspec.Struct, frozen=True, kw_only=True):
    """``--blkio-weight-device``: a block device of the host and its share, 10 to 1000."""

    path: str = ""
    weight: int = 0


class ThrottleDevice(msgspec.Struct, frozen=True, kw_only=True):
    """``--device-read-bps`` and its kin: a device of the host, bytes or operations a second."""

    path: str = ""
    rate: int = 0


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``--gpus``: devices that a driver of the host is to choose."""

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[tuple[str, ...], ...] = ()
    options: dict[str, str] = {}


class Ulimit(msgspec.Struct, frozen=True, kw_only=True):
    """``--ulimit``; the name is without RLIMIT_, lower case."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a container that depends on the host. None = the user did not say."""

    binds: tuple[str, ...] = ()
    container_id_file: str = ""
    log_config: LogConfig = LogConfig()
    network_mode: str = "default"
    port_bindings: dict[str, tuple[PortBinding, ...]] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] = ()
    mounts: tuple[MountPoint, ...] = ()
    console_size: tuple[int, int] = (0, 0)
    """rows, columns"""
    annotations: dict[str, str] = {}
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] = ()
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] = ()
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] = ()
    blkio_device_read_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_read_iops: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_iops: tuple[ThrottleDevice, ...] = ()
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    kernel_memory: int = 0
    kernel_memory_tcp: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0
    init: bool | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    given_empty: tuple[str, ...] = ()
    """Lists and maps that the client gave as empty ones; others that are empty it left out."""


class EndpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A container's wish for one network."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0
    given_empty: tuple[str, ...] = ()
    """Lists and maps that the client gave as empty ones; others that are empty it left out."""


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """What a running container got on one network."""

    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    prefix_length: int = 0
    ipv6_gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix_length: int = 0
    mac_address: str = ""
    dns_names: tuple[str, ...] = ()


class MountState(msgspec.Struct, frozen=True, kw_only=True):
    """A mount as it was resolved at create: what ``docker inspect`` shows under Mounts."""

    type: str
    """bind, volume, tmpfs"""
    name: str = ""
    source: str = ""
    """Path on the host; empty for tmpfs."""
    destination: str = ""
    driver: str = ""
    mode: str = ""
    read_write: bool = True
    propagation: str = ""
    implied: bool = False
    """The propagation was not asked for: Docker's for a bind that shows the data root."""
    no_copy: bool = False
    subpath: str = ""
    anonymous: bool = False
    make_source: bool = False
    """A bind whose directory is made at a start that does not find it."""
    non_recursive: bool = False
    """Of a bind: without the mounts below its source."""
    read_only_non_recursive: bool = False
    """Of a read-only bind: the mounts below its source are as the host has them."""
    read_only_force_recursive: bool = False


class HealthProbe(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a health check."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """none, starting, healthy or unhealthy, and the last five probes."""

    status: str = "none"
    failing_streak: int = 0
    log: tuple[HealthProbe, ...] = ()


class ContainerState(msgspec.Struct, kw_only=True):
    """What a container is doing. Mutable in memory; every change is stored."""

    status: Status = Status.CREATED
    pid: int = 0
    """The VMM's pid."""
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    manually_stopped: bool = False
    """Docker's HasBeenManuallyStopped: the restart policy rests until the next start."""
    remove_volumes: bool = False
    """A removal that is under way takes the anonymous volumes along."""
    health: Health | None = None
    endpoints: dict[str, EndpointState] = {}
    """By network name."""
    ports: dict[str, tuple[PortBinding, ...]] = {}
    """Published ports as bound, ``80/tcp`` -> bindings."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an alias of ``--link`` means, and the name that it has or had."""

    container: ContainerId
    name: str


class Container(msgspec.Struct, kw_only=True):
    """A container: a row of the database, and the object that all verbs work on."""

    id: ContainerId
    name: str
    """Without the leading slash."""
    created_ns: int
    image_id: str
    """``sha256:...`` of the image's config."""
    image_platform: str = "linux"
    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointSettings] = {}
    """Wishes by network name."""
    links: dict[str, Link] = {}
    """By alias; only on the default bridge, ``host.links`` shows them."""
    path: str = ""
    args: tuple[str, ...] = ()
    mounts: tuple[MountState, ...] = ()
    state: ContainerState
    sandbox: SandboxId | None = None
    runtime: str = ""
    """Name as shown by inspect: ``hyper`` or a driver's."""
    disk_size: int = 0
    generation: int = 0
    """Counts starts: stream ids and process handles are made from it."""


class ExecConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A further process of a container, as asked."""

    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)


class Exec(msgspec.Struct, kw_only=True):
    """A further process and its state. ``exit_code`` is None until it has ended."""

    id: ExecId
    container: ContainerId
    config: ExecConfig
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0
    handle: int = 0


class StreamKind(StrEnum):
    """Which stream bytes belong to."""

    STDIN = "stdin"
    STDOUT = "stdout"
    STDERR = "stderr"


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a container's log: a line (with its newline) or a 16 KiB part of one."""

    stream: StreamKind
    time_ns: int
    data: bytes
    attributes: dict[str, str] = {}


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What ``docker logs`` asks for. Times are ns since the epoch, ``tail`` -1 is all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since_ns: int = 0
    until_ns: int = 0
    tail: int = -1


class PathStat(msgspec.Struct, frozen=True, kw_only=True):
    """A path in a container. ``mode`` is st_mode, ``mtime_ns`` ns since the epoch."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


class WaitResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a container ended."""

    exit_code: int
    error: str = ""
