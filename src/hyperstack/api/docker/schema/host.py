"""``HostConfig``: Docker's keys for the part of a container that depends on the host."""

from __future__ import annotations

from typing import Any

from hyperstack.api.docker.gojson import (
    BOOL,
    INT,
    INT64,
    NIL_STRING_MAP,
    STRING,
    STRING_MAP,
    UINT16,
    UINT64,
    Field,
    Kind,
    List,
    Map,
    Nullable,
    Object,
    Pair,
    Schema,
    String,
    Strings,
    StrSlice,
    Where,
)
from hyperstack.api.docker.schema.mounts import MountKind
from hyperstack.model import (
    DeviceMapping,
    DeviceRequest,
    HostConfig,
    LogConfig,
    PortBinding,
    RestartPolicy,
    ThrottleDevice,
    Ulimit,
    WeightDevice,
)

PORT_BINDING: Schema[PortBinding] = Schema(
    "nat.PortBinding",
    PortBinding,
    (Field("HostIp", "host_ip", STRING), Field("HostPort", "host_port", STRING)),
)
PORT_MAP = Map(
    List(Object(PORT_BINDING), go_type="[]nat.PortBinding"), nil=True, go_type="nat.PortMap"
)

LOG_CONFIG: Schema[LogConfig] = Schema(
    "container.LogConfig",
    LogConfig,
    (Field("Type", "type", STRING), Field("Config", "config", STRING_MAP)),
)
RESTART_POLICY: Schema[RestartPolicy] = Schema(
    "container.RestartPolicy",
    RestartPolicy,
    (
        Field("Name", "name", String("container.RestartPolicyMode")),
        Field("MaximumRetryCount", "maximum_retry_count", INT),
    ),
)
_DEVICE: Schema[DeviceMapping] = Schema(
    "container.DeviceMapping",
    DeviceMapping,
    (
        Field("PathOnHost", "path_on_host", STRING),
        Field("PathInContainer", "path_in_container", STRING),
        Field("CgroupPermissions", "cgroup_permissions", STRING),
    ),
)
_REQUEST: Schema[DeviceRequest] = Schema(
    "container.DeviceRequest",
    DeviceRequest,
    (
        Field("Driver", "driver", STRING),
        Field("Count", "count", INT),
        Field("DeviceIDs", "device_ids", Strings()),
        Field("Capabilities", "capabilities", List(Strings(nil=False), nil=True)),
        Field("Options", "options", NIL_STRING_MAP),
    ),
)
_WEIGHT: Schema[WeightDevice] = Schema(
    "blkiodev.WeightDevice",
    WeightDevice,
    (Field("Path", "path", STRING), Field("Weight", "weight", UINT16)),
)
WEIGHT_DEVICES = List(Object(_WEIGHT), nil=True, go_type="[]*blkiodev.WeightDevice")
_THROTTLE: Schema[ThrottleDevice] = Schema(
    "blkiodev.ThrottleDevice",
    ThrottleDevice,
    (Field("Path", "path", STRING), Field("Rate", "rate", UINT64)),
)
_THROTTLES = List(Object(_THROTTLE), nil=True, go_type="[]*blkiodev.ThrottleDevice")
ULIMIT: Schema[Ulimit] = Schema(
    "units.Ulimit",
    Ulimit,
    (
        Field("Name", "name", STRING),
        Field("Hard", "hard", INT64),
        Field("Soft", "soft", INT64),
    ),
)


class _Capabilities(StrSlice):
    """A ``strslice.StrSlice`` whose empty form is null."""

    blank = list

    def write(self, value: Any) -> Any:
        return list(value) or None


_CAPABILITIES = _Capabilities()
_NIL_STRINGS = Strings()
_PATHS = Nullable(Strings(nil=False))

HOST_CONFIG: Schema[HostConfig] = Schema(
    "container.HostConfig",
    HostConfig,
    (
        Field("Binds", "binds", _NIL_STRINGS),
        Field("ContainerIDFile", "container_id_file", STRING),
        Field("LogConfig", "log_config", Object(LOG_CONFIG)),
        Field("NetworkMode", "network_mode", String("container.NetworkMode")),
        Field("PortBindings", "port_bindings", PORT_MAP),
        Field("RestartPolicy", "restart_policy", Object(RESTART_POLICY)),
        Field("AutoRemove", "auto_remove", BOOL),
        Field("VolumeDriver", "volume_driver", STRING),
        Field("VolumesFrom", "volumes_from", _NIL_STRINGS),
        Field("ConsoleSize", "console_size", Pair()),
        Field("Annotations", "annotations", NIL_STRING_MAP, omit=True),
        Field("CapAdd", "cap_add", _CAPABILITIES),
        Field("CapDrop", "cap_drop", _CAPABILITIES),
        Field("CgroupnsMode", "cgroupns_mode", String("container.CgroupnsMode")),
        Field("Dns", "dns", _NIL_STRINGS),
        Field("DnsOptions", "dns_options", _NIL_STRINGS),
        Field("DnsSearch", "dns_search", _NIL_STRINGS),
        Field("ExtraHosts", "extra_hosts", _NIL_STRINGS),
        Field("GroupAdd", "group_add", _NIL_STRINGS),
        Field("IpcMode", "ipc_mode", String("container.IpcMode")),
        Field("Cgroup", "cgroup", String("container.CgroupSpec")),
        Field("Links", "links", _NIL_STRINGS),
        Field("OomScoreAdj", "oom_score_adj", INT),
        Field("PidMode", "pid_mode", String("container.PidMode")),
        Field("Privileged", "privileged", BOOL),
        Field("PublishAllPorts", "publish_all_ports", BOOL),
        Field("ReadonlyRootfs", "readonly_rootfs", BOOL),
        Field("SecurityOpt", "security_opt", _NIL_STRINGS),
        Field("StorageOpt", "storage_opt", STRING_MAP, omit=True),
        Field("Tmpfs", "tmpfs", STRING_MAP, omit=True),
        Field("UTSMode", "uts_mode", String("container.UTSMode")),
        Field("UsernsMode", "userns_mode", String("container.UsernsMode")),
        Field("ShmSize", "shm_size", INT64),
        Field("Sysctls", "sysctls", STRING_MAP, omit=True),
        Field("Runtime", "runtime", STRING),
        Field("Isolation", "isolation", String("container.Isolation")),
        Field("CpuShares", "cpu_shares", INT64),
        Field("Memory", "memory", INT64),
        Field("NanoCpus", "nano_cpus", INT64),
        Field("CgroupParent", "cgroup_parent", STRING),
        Field("BlkioWeight", "blkio_weight", UINT16),
        Field("BlkioWeightDevice", "blkio_weight_device", WEIGHT_DEVICES),
        Field("BlkioDeviceReadBps", "blkio_device_read_bps", _THROTTLES),
        Field("BlkioDeviceWriteBps", "blkio_device_write_bps", _THROTTLES),
        Field("BlkioDeviceReadIOps", "blkio_device_read_iops", _THROTTLES),
        Field("BlkioDeviceWriteIOps", "blkio_device_write_iops", _THROTTLES),
        Field("CpuPeriod", "cpu_period", INT64),
        Field("CpuQuota", "cpu_quota", INT64),
        Field("CpuRealtimePeriod", "cpu_realtime_period", INT64),
        Field("CpuRealtimeRuntime", "cpu_realtime_runtime", INT64),
        Field("CpusetCpus", "cpuset_cpus", STRING),
        Field("CpusetMems", "cpuset_mems", STRING),
        Field(
            "Devices",
            "devices",
            List(Object(_DEVICE), nil=True, go_type="[]container.DeviceMapping"),
        ),
        Field("DeviceCgroupRules", "device_cgroup_rules", _NIL_STRINGS),
        Field(
            "DeviceRequests",
            "device_requests",
            List(Object(_REQUEST), nil=True, go_type="[]container.DeviceRequest"),
        ),
        Field("KernelMemory", "kernel_memory", INT64, omit=True),
        Field("KernelMemoryTCP", "kernel_memory_tcp", INT64, omit=True),
        Field("MemoryReservation", "memory_reservation", INT64),
        Field("MemorySwap", "memory_swap", INT64),
        Field("MemorySwappiness", "memory_swappiness", Nullable(INT64)),
        Field("OomKillDisable", "oom_kill_disable", Nullable(BOOL)),
        Field("PidsLimit", "pids_limit", Nullable(INT64)),
        Field("Ulimits", "ulimits", List(Object(ULIMIT), nil=True, go_type="[]*units.Ulimit")),
        Field("CpuCount", "cpu_count", INT64),
        Field("CpuPercent", "cpu_percent", INT64),
        Field("IOMaximumIOps", "io_maximum_iops", UINT64),
        Field("IOMaximumBandwidth", "io_maximum_bandwidth", UINT64),
        Field("Mounts", "mounts", List(MountKind(), go_type="[]mount.Mount"), omit=True),
        Field("Init", "init", Nullable(BOOL)),
        Field("MaskedPaths", "masked_paths", _PATHS),
        Field("ReadonlyPaths", "readonly_paths", _PATHS),
    ),
)


class HostConfigKind(Kind):
    """``HostConfig`` in a body."""

    go_type = "container.HostConfig"

    def read(self, value: Any, where: Where) -> HostConfig:
        """Read the configuration. Raises InvalidParameter."""
        if not isinstance(value, dict):
            raise where.mismatch(value, self.go_type)
        return HOST_CONFIG.read(value, where)

    def write(self, value: HostConfig) -> dict[str, Any]:
        """Write the configuration with every key that Docker shows."""
        return host_config(value)


def host_config(host: HostConfig) -> dict[str, Any]:
    """Return ``HostConfig`` as inspect shows it."""
    made = HOST_CONFIG.write(host)
    if host.init is None:
        del made["Init"]
    return made


__all__ = ["HOST_CONFIG", "PORT_MAP", "RESTART_POLICY", "HostConfigKind", "host_config"]
