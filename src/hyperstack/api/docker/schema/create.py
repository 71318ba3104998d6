"""The body of ``POST /containers/create`` and of its kin: update, exec, commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperstack.api.docker.gojson import (
    BOOL,
    INT64,
    STRING,
    UINT16,
    UINT64,
    Field,
    Nullable,
    Object,
    Pair,
    Schema,
    Strings,
    Where,
)
from hyperstack.api.docker.schema.config import read_config
from hyperstack.api.docker.schema.endpoint import EndpointMap
from hyperstack.api.docker.schema.host import RESTART_POLICY, WEIGHT_DEVICES, HostConfigKind
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerConfig, EndpointSettings, ExecConfig, HostConfig

OUTER = ""
"""Go's name in errors for a struct of embedded ones."""
_HOST = HostConfigKind()
_ENDPOINTS = EndpointMap()


@dataclass(frozen=True, kw_only=True)
class CreateBody:
    """What a client wants made."""

    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointSettings]


def read_create(raw: Any) -> CreateBody:
    """Read a create body. Raises InvalidParameter in Docker's words."""
    if raw is not None and not isinstance(raw, dict):
        raise Where().mismatch(raw, "container.CreateRequest")
    config = read_config(raw or {})
    host, networks = HostConfig(), {}
    for key, value in (raw or {}).items():
        if value is None:
            continue
        if key.lower() == "hostconfig":
            host = _HOST.read(value, Where().field(OUTER, "HostConfig"))
        elif key.lower() == "networkingconfig":
            networks = _networks(value, Where().field(OUTER, "NetworkingConfig"))
    if config is None:
        raise InvalidParameter("config cannot be empty in order to create a container")
    return CreateBody(config=config, host=host, networks=networks)


def _networks(raw: Any, where: Where) -> dict[str, EndpointSettings]:
    if not isinstance(raw, dict):
        raise where.mismatch(raw, "network.NetworkingConfig")
    for key, value in raw.items():
        if key.lower() == "endpointsconfig" and value is not None:
            place = where.field("NetworkingConfig", "EndpointsConfig")
            found: dict[str, EndpointSettings] = _ENDPOINTS.read(value, place)
            return found
    return {}


def _exec_config(**values: Any) -> ExecConfig:
    return ExecConfig(**values)


EXEC: Schema[ExecConfig] = Schema(
    "container.ExecOptions",
    _exec_config,
    (
        Field("User", "user", STRING),
        Field("Privileged", "privileged", BOOL),
        Field("Tty", "tty", BOOL),
        Field("ConsoleSize", "console_size", Nullable(Pair())),
        Field("AttachStdin", "attach_stdin", BOOL),
        Field("AttachStderr", "attach_stderr", BOOL),
        Field("AttachStdout", "attach_stdout", BOOL),
        Field("DetachKeys", "detach_keys", STRING),
        Field("Env", "env", Strings()),
        Field("WorkingDir", "working_dir", STRING),
        Field("Cmd", "cmd", Strings()),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ExecStart:
    """The body of ``POST /exec/{id}/start``."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)


EXEC_START: Schema[ExecStart] = Schema(
    "container.ExecStartOptions",
    ExecStart,
    (
        Field("Detach", "detach", BOOL),
        Field("Tty", "tty", BOOL),
        Field("ConsoleSize", "console_size", Nullable(Pair())),
    ),
)


def update_fields() -> tuple[Field, ...]:
    """Return the fields of the update body that the engine's ``UpdateConfig`` has."""
    return (
        Field("BlkioWeight", "blkio_weight", UINT16),
        Field("BlkioWeightDevice", "blkio_weight_device", WEIGHT_DEVICES),
        Field("CpuPercent", "cpu_percent", INT64),
        Field("CpuRealtimePeriod", "cpu_realtime_period", INT64),
        Field("CpuRealtimeRuntime", "cpu_realtime_runtime", INT64),
        Field("IOMaximumIOps", "io_maximum_iops", UINT64),
        Field("IOMaximumBandwidth", "io_maximum_bandwidth", UINT64),
        Field("MemorySwappiness", "memory_swappiness", Nullable(INT64)),
        Field("OomKillDisable", "oom_kill_disable", Nullable(BOOL)),
        Field("CpuShares", "cpu_shares", INT64),
        Field("CpuPeriod", "cpu_period", INT64),
        Field("CpuQuota", "cpu_quota", INT64),
        Field("CpusetCpus", "cpuset_cpus", STRING),
        Field("CpusetMems", "cpuset_mems", STRING),
        Field("NanoCpus", "nano_cpus", INT64),
        Field("Memory", "memory", INT64),
        Field("MemoryReservation", "memory_reservation", INT64),
        Field("MemorySwap", "memory_swap", INT64),
        Field("PidsLimit", "pids_limit", Nullable(INT64)),
        Field("RestartPolicy", "restart_policy", Nullable(Object(RESTART_POLICY))),
    )
