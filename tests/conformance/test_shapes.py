"""Answers have the keys and types that dockerd 20.10 gives for the same things (API 1.41).

``tests/golden/api/shapes-1.41.json`` was recorded from it: a container with a port, a volume, a
bind, a tmpfs, a health check and a second network; one that was only created; and so on. Keys may
be more (newer API versions have more), never fewer, and never of another type.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.raw import ask
from tests.framework.host import Host

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "api" / "shapes-1.41.json").read_text()
)
KINDS = {"str": str, "int": int, "bool": bool, "float": float}

OURS = {
    # Limits of cgroup v1, which guests do not have.
    ".KernelMemory",
    ".KernelMemoryTCP",
    # Nullable both ways: which one depends on what the client sent.
    ".NetworkSettings.Networks.mine.IPAMConfig",
    ".NetworkSettings.Networks.mine.DriverOpts",
    ".IPAM.Options",
    ".RepoDigests",
}


def differences(want: Any, got: Any, path: str = "") -> list[str]:
    """Return what *got* lacks or has otherwise."""
    if path in OURS or path.removeprefix("[0]") in OURS:
        return []
    if isinstance(want, dict):
        if not isinstance(got, dict):
            return [f"{path}: an object is wanted, not {got!r}"]
        return [
            found
            for key, value in want.items()
            for found in (
                differences(value, got[key], f"{path}.{key}")
                if key in got
                else []
                if f"{path}.{key}" in OURS
                else [f"{path}.{key} is missing"]
            )
        ]
    if isinstance(want, list):
        if not isinstance(got, list):
            return [f"{path}: a list is wanted, not {got!r}"]
        return differences(want[0], got[0], f"{path}[0]") if want and got else []
    if want is None:
        return [] if got is None or isinstance(got, dict | list) else [f"{path}: null is wanted"]
    return [] if type(got) is KINDS[want] else [f"{path}: {want} is wanted, not {got!r}"]


@pytest.fixture
def furnished(host: Host) -> Host:
    """A host with the things that the shapes were recorded of."""
    host.docker("run", "-d", "--name", "web", "--label", "a=b", "-p", "127.0.0.1:8080:80",
                "-v", "vol:/data", "-v", "/tmp:/host:ro", "--tmpfs", "/scratch",
                "--health-cmd", "true", "--health-interval", "1s",
                "busybox", "sleep", "1000")  # fmt: skip
    host.docker("create", "--name", "idle", "busybox", "true")
    if "mine" not in host.docker("network", "ls", "--format", "{{.Name}}").out.split():
        host.docker("network", "create", "--subnet", "10.9.0.0/24", "--label", "n=1", "mine")
    host.docker("network", "connect", "--alias", "al", "mine", "web")
    time.sleep(1.5)
    return host


PATHS = {
    "container": "/containers/web/json",
    "container_idle": "/containers/idle/json",
    "containers": "/containers/json?size=1",
    "image": "/images/busybox/json",
    "images": "/images/json",
    "history": "/images/busybox/history",
    "network": "/networks/mine",
    "volumes": "/volumes",
    "info": "/info",
    "version": "/version",
    "top": "/containers/web/top",
}


def test_answers_have_the_shape_of_dockerds(furnished: Host) -> None:
    found = []
    for name, path in PATHS.items():
        status, answer = ask(furnished, "GET", f"/v1.41{path}")
        assert status == 200, (path, answer)
        if name in ("container", "containers"):  # older clients send mounts in any order
            first = answer if name == "container" else answer[0]
            first["Mounts"].sort(key=lambda mount: mount["Type"], reverse=True)
        if name == "network":
            answer["Containers"] = {"ID": next(iter(answer["Containers"].values()))}
        found += [f"{name}{each}" for each in differences(GOLDEN[name], answer)]
    assert found == []
