"""``GET /containers/{id}/json``: everything about one container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperstack.api.docker.gotime import rfc3339nano
from hyperstack.api.docker.schema.config import container_config
from hyperstack.api.docker.schema.endpoint import networks_of, shown_mac
from hyperstack.api.docker.schema.host import PORT_MAP, host_config
from hyperstack.api.docker.schema.mounts import mount_point
from hyperstack.engine.spec import MASKED_PATHS, READONLY_PATHS
from hyperstack.model import Container, EndpointSettings, EndpointState, Health, Status

STORAGE_DRIVER = "erofs"
"""What shows as the storage driver: read-only EROFS layers under one overlay in the guest."""

MODERN = (1, 44)
"""From this API version on short ids are no aliases, but DNS names."""


def container_inspect(
    container: Container,
    *,
    execs: Sequence[str],
    log_path: str,
    version: tuple[int, int],
    sizes: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return a container as inspect shows it. *sizes*: written, and with its image, in bytes."""
    made: dict[str, Any] = {
        "Id": container.id,
        "Created": rfc3339nano(container.created_ns),
        "Path": container.path,
        "Args": list(container.args),
        "State": state(container),
        "Image": container.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": STORAGE_DRIVER,
        "Platform": container.image_platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(execs) or None,
        "HostConfig": _host(container, version),
        "GraphDriver": {"Data": None, "Name": STORAGE_DRIVER},
    }
    if sizes is not None:
        made["SizeRw"], made["SizeRootFs"] = sizes
    made["Mounts"] = [mount_point(mount) for mount in container.mounts]
    made["Config"] = container_config(container.config)
    made["NetworkSettings"] = network_settings(container, modern=version >= MODERN)
    return made


def _host(container: Container, version: tuple[int, int]) -> dict[str, Any]:
    made = host_config(container.host)
    if not container.host.privileged:
        if container.host.masked_paths is None:
            made["MaskedPaths"] = list(MASKED_PATHS)
        if container.host.readonly_paths is None:
            made["ReadonlyPaths"] = list(READONLY_PATHS)
    return made


def state(container: Container) -> dict[str, Any]:
    """Return ``State``."""
    now = container.state
    made: dict[str, Any] = {
        "Status": now.status.value,
        "Running": now.status.is_up,
        "Paused": now.status is Status.PAUSED,
        "Restarting": now.status is Status.RESTARTING,
        "OOMKilled": now.oom_killed,
        "Dead": now.status is Status.DEAD,
        "Pid": now.pid,
        "ExitCode": now.exit_code,
        "Error": now.error,
        "StartedAt": rfc3339nano(now.started_ns),
        "FinishedAt": rfc3339nano(now.finished_ns),
    }
    if now.health is not None:
        made["Health"] = health(now.health)
    return made


def health(now: Health) -> dict[str, Any]:
    """Return ``State.Health``."""
    return {
        "Status": now.status,
        "FailingStreak": now.failing_streak,
        "Log": [
            {
                "Start": rfc3339nano(probe.start_ns),
                "End": rfc3339nano(probe.end_ns),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in now.log
        ],
    }


def ports(container: Container) -> dict[str, Any]:
    """Return ``NetworkSettings.Ports``: published ones with their bindings, exposed ones null.

    A container on networks that lead nowhere has neither.
    """
    if not container.state.status.is_up or container.host.network_mode in ("host", "none"):
        return {}
    if not any(got.endpoint_id for got in container.state.endpoints.values()):
        return {}
    bound = PORT_MAP.write(container.state.ports) or {}
    return {port: bound[port] or None for port in sorted(bound)}


def network_settings(container: Container, *, modern: bool) -> dict[str, Any]:
    """Return ``NetworkSettings``; the default bridge's addresses show twice, as with Docker."""
    bridge = container.state.endpoints.get("bridge")
    mode = container.host.network_mode
    return {
        "Bridge": "",
        "SandboxID": "" if mode.startswith("container:") else container.sandbox or "",
        "SandboxKey": "",
        "Ports": ports(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.endpoint_id if bridge else "",
        "Gateway": bridge.gateway if bridge else "",
        "GlobalIPv6Address": bridge.ipv6_address if bridge else "",
        "GlobalIPv6PrefixLen": bridge.ipv6_prefix_length if bridge else 0,
        "IPAddress": bridge.ip_address if bridge else "",
        "IPPrefixLen": bridge.prefix_length if bridge else 0,
        "IPv6Gateway": bridge.ipv6_gateway if bridge else "",
        "MacAddress": shown_mac(
            container.networks.get("bridge", EndpointSettings()), bridge or EndpointState()
        ),
        "Networks": networks_of(container, modern=modern),
    }
