"""What a container's machine reads and writes on the host: its limits, its file server's end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from hyperstack.platform.blockio import Kind
from hyperstack.platform.cgroup import Cgroups
from tests.conformance.raw import ask
from tests.framework.host import Host


def group_of(host: Host, container: str) -> tuple[Cgroups, str]:
    """The cgroups of this machine, and the name of a container's sandbox in them."""
    pid = int(host.docker("inspect", "-f", "{{.State.Pid}}", container).out)
    groups = Cgroups.detect()
    found = [name for name in groups.known() if pid in groups.pids(name)]
    assert len(found) == 1
    return groups, found[0]


def test_a_limit_of_a_device_is_the_sandboxs(host: Host) -> None:
    if not Cgroups.detect().limits_devices:
        pytest.skip("this host has no cgroups for limits of block devices")
    number = host.data_root.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    node = Path(f"/dev/block/{device}")
    path = str(node) if node.exists() else str(host.root / "device")
    if not node.exists():
        os.mknod(path, 0o060600, number)
    limits = {"BlkioDeviceReadBps": [{"Path": path, "Rate": 1 << 20}],
              "BlkioDeviceWriteIOps": [{"Path": path, "Rate": 77}]}  # fmt: skip
    status, made = ask(host, "POST", "/containers/create?name=slow", {
        "Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": limits,
    })  # fmt: skip
    assert (status, made["Warnings"]) == (201, [])
    host.docker("start", "slow")
    groups, sandbox = group_of(host, "slow")
    file = Kind.READ_BPS.value[0] if groups.version == 1 else "io.max"
    (folder,) = [folder for folder in groups.folders(sandbox) if (folder / file).exists()]
    if groups.version == 1:
        assert (folder / Kind.READ_BPS.value[0]).read_text() == f"{device} {1 << 20}\n"
        assert (folder / Kind.WRITE_IOPS.value[0]).read_text() == f"{device} 77\n"
    else:
        assert (folder / "io.max").read_text() == f"{device} rbps={1 << 20} wiops=77\n"
    host.docker("rm", "-f", "slow")
    assert not folder.exists()
    wrong = {"BlkioDeviceReadBps": [{"Path": "/dev/no-such", "Rate": 1}]}
    made = ask(host, "POST", "/containers/create", {"Image": "busybox", "HostConfig": wrong})[1]
    refused = ask(host, "POST", f"/containers/{made['Id']}/start")
    assert refused == (500, {"message": "stat /dev/no-such: no such file or directory"})


def test_a_container_whose_file_server_has_died_ends_and_says_so(host: Host) -> None:
    host.docker("run", "-d", "--name", "served", "-v", "files:/v", "busybox", "sleep", "1000")
    groups, sandbox = group_of(host, "served")
    for pid in groups.pids(sandbox):
        if Path(f"/proc/{pid}/comm").read_text() == "virtiofsd\n":
            os.kill(pid, signal.SIGKILL)
    assert host.docker("wait", "served", timeout=30).out == "137\n"
    state = json.loads(host.docker("inspect", "-f", "{{json .State}}", "served").out)
    assert "the server of its volumes and binds has ended" in state["Error"]
    assert host.docker("start", "served").code == 0
    assert host.docker("exec", "served", "touch", "/v/again").code == 0
    host.docker("rm", "-f", "-v", "served")
    host.docker("volume", "rm", "files")


def test_an_adopted_container_whose_file_server_dies_ends_too(host: Host) -> None:
    host.docker("run", "-d", "--name", "kept", "-v", "files:/v", "busybox", "sleep", "1000")
    host.kill()
    host.start()
    groups, sandbox = group_of(host, "kept")
    for pid in groups.pids(sandbox):
        if Path(f"/proc/{pid}/comm").read_text() == "virtiofsd\n":
            os.kill(pid, signal.SIGKILL)
    assert host.docker("wait", "kept", timeout=30).out == "137\n"
    host.docker("rm", "-f", "-v", "kept")
    host.docker("volume", "rm", "files")
