"""``info``: what the engine is, what it can do, and on what host.

Follows moby's ``system.Info`` and what ``getInfo`` (``api/server/router/system``) leaves out for
older API versions.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperstack.api.docker.gotime import rfc3339nano
from hyperstack.api.docker.schema.inspect import STORAGE_DRIVER
from hyperstack.config import Config

if TYPE_CHECKING:
    from hyperstack.engine.system import Info

INDEX = "https://index.docker.io/v1/"
_SECURITY = ("name=seccomp,profile=builtin", "name=cgroupns")


def info(
    facts: Info,
    config: Config,
    *,
    listeners: int,
    log_drivers: Iterable[str],
    server_version: str,
    version: tuple[int, int],
) -> dict[str, Any]:
    """Return ``info`` for a client of an API *version*. *listeners*: clients of ``events``."""
    return {
        **_contents(facts),
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": sorted(log_drivers),
        },
        **_abilities(version),
        **_daemon(config, listeners),
        **_host(facts),
        "RegistryConfig": _registries(config, version),
        "ServerVersion": server_version,
        **_runtimes(facts),
        "Swarm": _swarm(),
        **_security(version),
        **_pools(config),
        **({"FirewallBackend": {"Driver": "nftables"}} if version >= (1, 49) else {}),
        "Warnings": list(facts.warnings) or None,
    }


def _pools(config: Config) -> dict[str, Any]:
    """Return the pools that the operator chose; nothing is shown of the default ones."""
    if config.default_address_pools == Config().default_address_pools:
        return {}
    pools = [{"Base": base, "Size": size} for base, size in config.default_address_pools]
    return {"DefaultAddressPools": pools}


def _contents(facts: Info) -> dict[str, Any]:
    return {
        "ID": facts.id,
        "Containers": facts.containers,
        "ContainersRunning": facts.running,
        "ContainersPaused": facts.paused,
        "ContainersStopped": facts.stopped,
        "Images": facts.images,
        "Driver": STORAGE_DRIVER,
        "DriverStatus": [
            ["Writable disks", "ext4"],
            ["Guest kit", facts.kit_version],
            ["Default machine", facts.default_driver],
            *(["Machine note", note] for note in facts.runtime_notes),
        ],
    }


def _abilities(version: tuple[int, int]) -> dict[str, bool]:
    """What limits containers can have: enforced by the guest's cgroups and the sandbox's own.

    A limit of swap holds because guests have none.
    """
    able = ("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet",
            "PidsLimit", "IPv4Forwarding")  # fmt: skip
    unable = ["OomKillDisable"]
    if version < (1, 50):
        unable += ["BridgeNfIptables", "BridgeNfIp6tables"]
    return {**dict.fromkeys(able, True), **dict.fromkeys(unable, False)}


def _daemon(config: Config, listeners: int) -> dict[str, Any]:
    return {
        "Debug": config.debug,
        "NFd": _open_files(),
        "NGoroutines": 0,
        "SystemTime": rfc3339nano(time.time_ns()),
        "LoggingDriver": config.log_driver,
        "CgroupDriver": "cgroupfs",
        "NEventsListener": listeners,
        "IndexServerAddress": INDEX,
        "DockerRootDir": str(config.data_root),
        "HttpProxy": _proxy("HTTP_PROXY"),
        "HttpsProxy": _proxy("HTTPS_PROXY"),
        "NoProxy": os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")),
        "Labels": list(config.labels),
        "ExperimentalBuild": False,
        "LiveRestoreEnabled": True,
        "CDISpecDirs": [],
    }


def _host(facts: Info) -> dict[str, Any]:
    return {
        "CgroupVersion": str(facts.cgroup_version),
        "KernelVersion": facts.kernel,
        "OperatingSystem": facts.operating_system,
        "OSVersion": facts.os_version,
        "OSType": "linux",
        "Architecture": facts.architecture,
        "NCPU": facts.cpus,
        "MemTotal": facts.memory,
        "Name": facts.name,
        "GenericResources": None,
    }


def _runtimes(facts: Info) -> dict[str, Any]:
    return {
        "Runtimes": {name: {"path": name} for name in facts.runtimes},
        "DefaultRuntime": facts.default_runtime,
        "InitBinary": "agent",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
    }


def _security(version: tuple[int, int]) -> dict[str, Any]:
    """Clients before 1.25 know names alone, and none of what came later."""
    options = list(_SECURITY) if version >= (1, 25) else ["seccomp"]
    return {"Isolation": "", "SecurityOptions": options}


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def _proxy(name: str) -> str:
    """Return a proxy from the environment without its credentials."""
    value = os.environ.get(name, os.environ.get(name.lower(), ""))
    scheme, separator, rest = value.rpartition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at and user else value


def _registries(config: Config, version: tuple[int, int]) -> dict[str, Any]:
    networks = [name for name in config.insecure_registries if "/" in name]
    hosts = [name for name in config.insecure_registries if "/" not in name]
    mirrors = list(config.registry_mirrors)
    indexes = {
        "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
    }
    for host in hosts:
        indexes[host] = {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
    made: dict[str, Any] = {
        "InsecureRegistryCIDRs": sorted(networks, key=lambda name: ":" not in name),
        "IndexConfigs": indexes,
        "Mirrors": mirrors or None,
    }
    if version < (1, 47):
        for key in ("CIDRs", "Hostnames"):
            made[f"AllowNondistributableArtifacts{key}"] = None
    return made


def _swarm() -> dict[str, Any]:
    return {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    }
