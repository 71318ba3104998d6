"""Answers have all the keys and types that dockerd 28.5 gives for the same things, and no others.

``tests/golden/api/shapes-*.json`` were recorded from it by ``tests/framework/shapes.py``: a
container with a port, a volume, a bind, a tmpfs, a health check and a second network; one that was
only created; and so on, for clients of API 1.41 and 1.51.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.raw import ask
from tests.framework.host import Host
from tests.framework.shapes import FURNITURE, SETTLING, shapes

GOLDEN = Path(__file__).parents[1] / "golden" / "api"

LEFT_OUT = {
    # Of hosts with cgroup version 1, which guests are not.
    "info.KernelMemory", "info.KernelMemoryTCP",
    # There is no containerd, and no runc.
    "info.Containerd", "info.RuncCommit.Expected",
}  # fmt: skip
ADDED = {
    # Blocks that the disk takes; dockerd leaves a zero out.
    "containers[].SizeRw", "df.Containers[].SizeRw",
}  # fmt: skip
EITHER = {
    # Null or not as the host and its configuration have it.
    "info.Warnings", "info.RegistryConfig.Mirrors", "info.Labels", "info.CDISpecDirs",
    "info.DriverStatus", "container.HostConfig.OomKillDisable",
    "container_idle.HostConfig.OomKillDisable", "container_sized.HostConfig.OomKillDisable",
    # A check of its health may be under way.
    "container.ExecIDs", "container_sized.ExecIDs",
    # The images of other tests are in the lists, too.
    "images[].Labels", "df.Images[].Labels",
    # Only a registry gives digests.
    "image.RepoDigests", "images[].RepoDigests", "df.Images[].RepoDigests",
}  # fmt: skip


def differences(want: Any, got: Any, path: str) -> list[str]:
    """Return what *got* lacks, has too many or has otherwise."""
    if path in EITHER or path in LEFT_OUT:
        return []
    if isinstance(want, dict) and isinstance(got, dict):
        places = {key: f"{path}.{key}" for key in {*want, *got}}
        missing = [f"{places[key]} is missing" for key in want.keys() - got.keys()]
        more = [f"{places[key]} is too many" for key in got.keys() - want.keys()]
        known = {f"{p} is missing" for p in LEFT_OUT} | {f"{p} is too many" for p in ADDED}
        inner = [
            found
            for key in want.keys() & got.keys()
            for found in differences(want[key], got[key], places[key])
        ]
        return [found for found in (*missing, *more) if found not in known] + inner
    if isinstance(want, list) and isinstance(got, list):
        return differences(want[0], got[0], f"{path}[]") if want and got else []
    return [] if want == got else [f"{path}: {want!r} is wanted, not {got!r}"]


@pytest.fixture
def furnished(host: Host) -> Host:
    """A host with the things that the shapes were recorded of."""
    networks = host.docker("network", "ls", "--format", "{{.Name}}").out.split()
    for command in FURNITURE:
        if command[:2] != ("network", "create") or "mine" not in networks:
            host.docker(*command)
    time.sleep(SETTLING)
    return host


@pytest.mark.parametrize("version", ["1.41", "1.51"])
def test_answers_have_the_shape_of_dockerds(furnished: Host, version: str) -> None:
    def answer(path: str) -> Any:
        status, found = ask(furnished, "GET", path)
        assert status == 200, (path, found)
        return found

    golden = json.loads((GOLDEN / f"shapes-{version}.json").read_text())
    got = shapes(answer, version)
    found = [each for name in golden for each in differences(golden[name], got[name], name)]
    assert "\n".join(sorted(found)) == ""
