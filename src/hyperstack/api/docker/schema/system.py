"""``version``."""

from __future__ import annotations

from typing import Any

from hyperstack.api.docker.request import API_VERSION, MIN_API_VERSION

_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


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
