"""Container and image configuration: Docker's keys of ``Config`` (moby, container.Config)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperstack.api.docker.gojson import (
    BOOL,
    DURATION,
    INT,
    NIL_STRING_MAP,
    STRING,
    Field,
    Nullable,
    Object,
    Schema,
    Set,
    Strings,
    StrSlice,
    Where,
)
from hyperstack.model import ContainerConfig, Healthcheck

HEALTHCHECK: Schema[Healthcheck] = Schema(
    "v1.HealthcheckConfig",
    Healthcheck,
    (
        Field("Test", "test", Strings(), omit=True),
        Field("Interval", "interval", DURATION, omit=True),
        Field("Timeout", "timeout", DURATION, omit=True),
        Field("StartPeriod", "start_period", DURATION, omit=True),
        Field("StartInterval", "start_interval", DURATION, omit=True),
        Field("Retries", "retries", INT, omit=True),
    ),
)

_FIELDS = (
    Field("Hostname", "hostname", STRING),
    Field("Domainname", "domainname", STRING),
    Field("User", "user", STRING),
    Field("AttachStdin", "attach_stdin", BOOL),
    Field("AttachStdout", "attach_stdout", BOOL),
    Field("AttachStderr", "attach_stderr", BOOL),
    Field("ExposedPorts", "exposed_ports", Set("nat.PortSet"), omit=True),
    Field("Tty", "tty", BOOL),
    Field("OpenStdin", "open_stdin", BOOL),
    Field("StdinOnce", "stdin_once", BOOL),
    Field("Env", "env", Strings()),
    Field("Cmd", "cmd", StrSlice()),
    Field("Healthcheck", "healthcheck", Nullable(Object(HEALTHCHECK)), omit=True),
    Field("ArgsEscaped", "args_escaped", BOOL, omit=True),
    Field("Image", "image", STRING),
    Field("Volumes", "volumes", Set()),
    Field("WorkingDir", "working_dir", STRING),
    Field("Entrypoint", "entrypoint", StrSlice()),
    Field("NetworkDisabled", "network_disabled", BOOL, omit=True),
    Field("MacAddress", "mac_address", STRING, omit=True),
    Field("OnBuild", "on_build", Nullable(Strings())),
    Field("Labels", "labels", NIL_STRING_MAP),
    Field("StopSignal", "stop_signal", STRING, omit=True),
    Field("StopTimeout", "stop_timeout", Nullable(INT), omit=True),
    Field("Shell", "shell", Nullable(StrSlice()), omit=True),
)

CONFIG: Schema[ContainerConfig] = Schema("container.Config", ContainerConfig, _FIELDS)
WRAPPER_CONFIG: Schema[ContainerConfig] = Schema("", ContainerConfig, _FIELDS)
"""The same as a part of the create body, whose struct embeds it and has no name in errors."""


def container_config(config: ContainerConfig) -> dict[str, Any]:
    """Return a container's ``Config`` as inspect shows it (labels are never null)."""
    made = CONFIG.write(config)
    made["Labels"] = made["Labels"] or {}
    if config.healthcheck is not None:
        made["Healthcheck"] = HEALTHCHECK.write(config.healthcheck)
    if config.stop_timeout == 0:
        made["StopTimeout"] = 0
    return made


_IMAGE_ONLY = frozenset(
    (
        "Hostname",
        "Domainname",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
        "Tty",
        "OpenStdin",
        "StdinOnce",
        "Image",
        "NetworkDisabled",
        "MacAddress",
        "StopTimeout",
    )
)


def image_config(config: ContainerConfig, *, slim: bool) -> dict[str, Any]:
    """Return an image's ``Config``; *slim* without what means nothing there (API 1.50)."""
    made = CONFIG.write(config)
    if slim:
        made = {key: value for key, value in made.items() if key not in _IMAGE_ONLY}
    return made


def read_config(raw: Mapping[str, Any]) -> ContainerConfig | None:
    """Return the configuration in a create or commit body; None if it has none of its keys."""
    values = WRAPPER_CONFIG.values(raw)
    return ContainerConfig(**values) if WRAPPER_CONFIG.knows(raw) else None


def read_whole_config(raw: Any) -> ContainerConfig:
    """Return the configuration in the body of a commit, which dockerd reads as that of a create."""
    if not isinstance(raw, dict):
        raise Where().mismatch(raw, "container.CreateRequest")
    return read_config(raw) or ContainerConfig()


__all__ = [
    "CONFIG",
    "HEALTHCHECK",
    "container_config",
    "image_config",
    "read_config",
    "read_whole_config",
]
