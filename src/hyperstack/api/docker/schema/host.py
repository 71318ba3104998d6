"""``HostConfig``: Docker's keys for the part of a container that depends on the host."""

from __future__ import annotations

from typing import Any

from hyperstack.api.docker.gojson import (
    ANY,
    BOOL,
    INT,
    INT64,
    NIL_STRING_MAP,
    STRING,
    STRING_MAP,
    UINT16,
    Field,
    Kind,
    List,
    Map,
    Nullable,
    Object,
    Pair,
    Schema,
    Strings,
    StrSlice,
    Where,
)
from hyperstack.api.docker.schema.mounts import MountKind
from hyperstack.errors import NotImplementedHere
from hyperstack.model import (
    DeviceMapping,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
    Ulimit,
)

PORT_BINDING: Schema[PortBinding] = Schema(
    "PortBinding",
    PortBinding,
    (Field("HostIp", "host_ip", STRING), Field("HostPort", "host_port", STRING)),
)
PORT_MAP = Map(List(Object(PORT_BINDING)), go_type="nat.PortMap")

LOG_CONFIG: Schema[LogConfig] = Schema(
    "LogConfig",
    LogConfig,
    (Field("Type", "type", STRING), Field("Config", "config", STRING_MAP)),
)
RESTART_POLICY: Schema[RestartPolicy] = Schema(
    "RestartPolicy",
    RestartPolicy,
    (
        Field("Name", "name", STRING),
        Field("MaximumRetryCount", "maximum_retry_count", INT),
    ),
)
_DEVICE: Schema[DeviceMapping] = Schema(
    "DeviceMapping",
    DeviceMapping,
    (
        Field("PathOnHost", "path_on_host", STRING),
        Field("PathInContainer", "path_in_container", STRING),
        Field("CgroupPermissions", "cgroup_permissions", STRING),
    ),
)
ULIMIT: Schema[Ulimit] = Schema(
    "Ulimit",
    Ulimit,
    (
        Field("Name", "name", STRING),
        Field("Hard", "hard", INT64),
        Field("Soft", "soft", INT64),
    ),
)


class _OrEmpty(Kind):
    """A string list that the CLI always sends: empty is [], as inspect shows it then."""

    go_type = "[]string"
    _strings = Strings(nil=False)

    def read(self, value: Any, where: Where) -> Any:
        return self._strings.read(value, where)

    def write(self, value: Any) -> Any:
        return list(value)


class _Capabilities(StrSlice):
    """A ``strslice.StrSlice`` whose empty form is null."""

    def write(self, value: Any) -> Any:
        return list(value) or None


_CAPABILITIES = _Capabilities()
_NIL_STRINGS = Strings()
_EMPTY_STRINGS = _OrEmpty()
_PATHS = Nullable(Strings(nil=False))

HOST_CONFIG: Schema[HostConfig] = Schema(
    "HostConfig",
    HostConfig,
    (
        Field("Binds", "binds", _NIL_STRINGS),
        Field("ContainerIDFile", "container_id_file", STRING),
        Field("LogConfig", "log_config", Object(LOG_CONFIG)),
        Field("NetworkMode", "network_mode", STRING),
        Field("PortBindings", "port_bindings", PORT_MAP),
        Field("RestartPolicy", "restart_policy", Object(RESTART_POLICY)),
        Field("AutoRemove", "auto_remove", BOOL),
        Field("VolumeDriver", "volume_driver", STRING),
        Field("VolumesFrom", "volumes_from", _NIL_STRINGS),
        Field("ConsoleSize", "console_size", Pair()),
        Field("Annotations", "annotations", NIL_STRING_MAP, omit=True),
        Field("CapAdd", "cap_add", _CAPABILITIES),
        Field("CapDrop", "cap_drop", _CAPABILITIES),
        Field("CgroupnsMode", "cgroupns_mode", STRING),
        Field("Dns", "dns", _EMPTY_STRINGS),
        Field("DnsOptions", "dns_options", _EMPTY_STRINGS),
        Field("DnsSearch", "dns_search", _EMPTY_STRINGS),
        Field("ExtraHosts", "extra_hosts", _NIL_STRINGS),
        Field("GroupAdd", "group_add", _NIL_STRINGS),
        Field("IpcMode", "ipc_mode", STRING),
        Field("Cgroup", "cgroup", STRING),
        Field("Links", "links", _NIL_STRINGS),
        Field("OomScoreAdj", "oom_score_adj", INT),
        Field("PidMode", "pid_mode", STRING),
        Field("Privileged", "privileged", BOOL),
        Field("PublishAllPorts", "publish_all_ports", BOOL),
        Field("ReadonlyRootfs", "readonly_rootfs", BOOL),
        Field("SecurityOpt", "security_opt", _NIL_STRINGS),
        Field("StorageOpt", "storage_opt", STRING_MAP, omit=True),
        Field("Tmpfs", "tmpfs", STRING_MAP, omit=True),
        Field("UTSMode", "uts_mode", STRING),
        Field("UsernsMode", "userns_mode", STRING),
        Field("ShmSize", "shm_size", INT64),
        Field("Sysctls", "sysctls", STRING_MAP, omit=True),
        Field("Runtime", "runtime", STRING),
        Field("Isolation", "isolation", STRING),
        Field("CpuShares", "cpu_shares", INT64),
        Field("Memory", "memory", INT64),
        Field("NanoCpus", "nano_cpus", INT64),
        Field("CgroupParent", "cgroup_parent", STRING),
        Field("BlkioWeight", "blkio_weight", UINT16),
        Field("CpuPeriod", "cpu_period", INT64),
        Field("CpuQuota", "cpu_quota", INT64),
        Field("CpuRealtimePeriod", "cpu_realtime_period", INT64),
        Field("CpuRealtimeRuntime", "cpu_realtime_runtime", INT64),
        Field("CpusetCpus", "cpuset_cpus", STRING),
        Field("CpusetMems", "cpuset_mems", STRING),
        Field("Devices", "devices", List(Object(_DEVICE), go_type="[]container.DeviceMapping")),
        Field("DeviceCgroupRules", "device_cgroup_rules", _NIL_STRINGS),
        Field(
            "DeviceRequests",
            "device_requests",
            List(ANY, nil=True, go_type="[]container.DeviceRequest"),
        ),
        Field("MemoryReservation", "memory_reservation", INT64),
        Field("MemorySwap", "memory_swap", INT64),
        Field("MemorySwappiness", "memory_swappiness", Nullable(INT64)),
        Field("OomKillDisable", "oom_kill_disable", Nullable(BOOL)),
        Field("PidsLimit", "pids_limit", Nullable(INT64)),
        Field("Ulimits", "ulimits", List(Object(ULIMIT), go_type="[]*container.Ulimit")),
        Field("Mounts", "mounts", List(MountKind(), go_type="[]mount.Mount"), omit=True),
        Field("Init", "init", Nullable(BOOL)),
        Field("MaskedPaths", "masked_paths", _PATHS),
        Field("ReadonlyPaths", "readonly_paths", _PATHS),
    ),
)

# Keys that Docker has and this engine has no place for: anything but "not set" is refused, so that
# nobody believes a limit is in force that is not.
_REFUSED = (
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "KernelMemory",
    "KernelMemoryTCP",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
)
_REFUSED_FOLDED = {key.lower(): key for key in _REFUSED}
_SHOWN_EMPTY: tuple[tuple[str, Any], ...] = (
    ("BlkioWeightDevice", []),
    ("BlkioDeviceReadBps", []),
    ("BlkioDeviceWriteBps", []),
    ("BlkioDeviceReadIOps", []),
    ("BlkioDeviceWriteIOps", []),
    ("CpuCount", 0),
    ("CpuPercent", 0),
    ("IOMaximumIOps", 0),
    ("IOMaximumBandwidth", 0),
)


class HostConfigKind(Kind):
    """``HostConfig`` in a body."""

    go_type = "container.HostConfig"

    def read(self, value: Any, where: Where) -> HostConfig:
        """Read the configuration. Raises InvalidParameter or NotImplementedHere."""
        if not isinstance(value, dict):
            raise where.mismatch(value, self.go_type)
        for key, item in value.items():
            if item and (name := _REFUSED_FOLDED.get(key.lower())) is not None:
                raise NotImplementedHere(f"HostConfig.{name} is not supported by this engine")
        return HOST_CONFIG.read(value, where)

    def write(self, value: HostConfig) -> dict[str, Any]:
        """Write the configuration with every key that Docker shows."""
        return host_config(value)


def host_config(host: HostConfig) -> dict[str, Any]:
    """Return ``HostConfig`` as inspect shows it."""
    made = HOST_CONFIG.write(host)
    if host.init is None:
        del made["Init"]
    for key, empty in _SHOWN_EMPTY:
        made[key] = empty
    return made


__all__ = ["HOST_CONFIG", "PORT_MAP", "RESTART_POLICY", "HostConfigKind", "host_config"]
