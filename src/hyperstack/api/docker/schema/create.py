"""The body of ``POST /containers/create`` and of its kin: update, exec, commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperstack.api.docker.gojson import (
    BOOL,
    STRING,
    Field,
    Nullable,
    Pair,
    Schema,
    Strings,
    Where,
)
from hyperstack.api.docker.schema.config import read_config
from hyperstack.api.docker.schema.endpoint import EndpointMap
from hyperstack.api.docker.schema.host import HOST_CONFIG, HostConfigKind
from hyperstack.engine.update import UpdateConfig
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


_RESOURCES = frozenset(
    (
        "CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps "
        "BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota "
        "CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices DeviceCgroupRules "
        "DeviceRequests KernelMemory KernelMemoryTCP MemoryReservation MemorySwap "
        "MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps "
        "IOMaximumBandwidth RestartPolicy"
    ).split()
)
"""Keys of ``container.UpdateConfig``; they are read as those of ``HostConfig`` are."""


def _update(**values: Any) -> UpdateConfig:
    """Keep what an update looks at; the rest must have the right types, as with dockerd."""
    known = UpdateConfig.__struct_fields__
    return UpdateConfig(**{name: value for name, value in values.items() if name in known})


UPDATE: Schema[UpdateConfig] = Schema(
    "container.UpdateConfig",
    _update,
    tuple(field for field in HOST_CONFIG.fields if field.key in _RESOURCES),
)
