"""``info``, ``version`` and ``system df``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperstack.api.docker.gotime import rfc3339nano
from hyperstack.api.docker.request import API_VERSION, MIN_API_VERSION
from hyperstack.api.docker.schema.inspect import STORAGE_DRIVER
from hyperstack.config import Config

if TYPE_CHECKING:
    from hyperstack.engine.system import Info

_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
INDEX = "https://index.docker.io/v1/"


def go_arch(machine: str) -> str:
    """Return Go's name of a machine type."""
    return _GO_ARCH.get(machine, machine)


def version(parts: dict[str, str], machine: str) -> dict[str, Any]:
    """Return ``version``. *parts*: versions by component, see ``SystemService.version``."""
    built = "1970-01-01T00:00:00.000000000+00:00"
    details = {
        "ApiVersion": API_VERSION,
        "Arch": go_arch(machine),
        "BuildTime": built,
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"python{parts['python']}",
        "KernelVersion": parts["kernel"],
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Hyper"},
        "Components": [
            {"Name": "Engine", "Version": parts["version"], "Details": details},
            {"Name": "kit", "Version": parts["kit"], "Details": {"GitCommit": ""}},
        ],
        "Version": parts["version"],
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": "",
        "GoVersion": f"python{parts['python']}",
        "Os": "linux",
        "Arch": go_arch(machine),
        "KernelVersion": parts["kernel"],
        "BuildTime": built,
    }


def info(
    facts: Info, config: Config, *, listeners: int, log_drivers: Iterable[str], server_version: str
) -> dict[str, Any]:
    """Return ``info``. *listeners*: clients of ``events``."""
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
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "null"],
            "Authorization": None,
            "Log": sorted(log_drivers),
        },
        **_abilities(),
        "Debug": config.debug,
        "NFd": _open_files(),
        "NGoroutines": 0,
        "SystemTime": rfc3339nano(time.time_ns()),
        "LoggingDriver": config.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(facts.cgroup_version),
        "NEventsListener": listeners,
        "KernelVersion": facts.kernel,
        "OperatingSystem": facts.operating_system,
        "OSVersion": facts.os_version,
        "OSType": "linux",
        "Architecture": facts.architecture,
        "NCPU": facts.cpus,
        "MemTotal": facts.memory,
        "IndexServerAddress": INDEX,
        "RegistryConfig": _registries(config),
        "GenericResources": None,
        "DockerRootDir": str(config.data_root),
        "HttpProxy": _proxy("HTTP_PROXY"),
        "HttpsProxy": _proxy("HTTPS_PROXY"),
        "NoProxy": os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")),
        "Name": facts.name,
        "Labels": list(config.labels),
        "ExperimentalBuild": False,
        "ServerVersion": server_version,
        "Runtimes": {name: {"path": name} for name in facts.runtimes},
        "DefaultRuntime": facts.default_runtime,
        "Swarm": _swarm(),
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "agent",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "DefaultAddressPools": [
            {"Base": base, "Size": size} for base, size in config.default_address_pools
        ],
        "Warnings": list(facts.warnings) or None,
    }


def _abilities() -> dict[str, bool]:
    """What limits containers can have: enforced by the guest's cgroups and the sandbox's own."""
    able = ("MemoryLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "PidsLimit")
    unable = ("SwapLimit", "CPUSet", "OomKillDisable")
    return {
        **dict.fromkeys(able, True),
        **dict.fromkeys(unable, False),
        "IPv4Forwarding": True,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
    }


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def _proxy(name: str) -> str:
    """Return a proxy from the environment without its credentials."""
    value = os.environ.get(name, os.environ.get(name.lower(), ""))
    scheme, separator, rest = value.rpartition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at and user else value


def _registries(config: Config) -> dict[str, Any]:
    networks = [name for name in config.insecure_registries if "/" in name]
    hosts = [name for name in config.insecure_registries if "/" not in name]
    mirrors = list(config.registry_mirrors)
    indexes = {
        "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
    }
    for host in hosts:
        indexes[host] = {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
    return {
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": networks,
        "IndexConfigs": indexes,
        "Mirrors": mirrors,
    }


def _swarm() -> dict[str, Any]:
    return {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    }
