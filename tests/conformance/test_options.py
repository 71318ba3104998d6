"""Options of ``docker run`` that mean a part of the host: what a guest makes of them.

Statuses and sentences were compared with dockerd 28.5, side by side.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hyperstack.api.docker.schema.versions import MAC_MOVED
from tests.conformance.raw import ask
from tests.framework.host import Host


def test_devices_are_those_of_the_guests_kernel_and_work(host: Host) -> None:
    done = host.docker(
        "run", "--rm", "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN",
        "--device", "/dev/net/tun", "--device", "/dev/fuse", "--device", "/dev/loop-control",
        "--device", "/dev/loop0", "--device", "/dev/zero:/dev/deep/z:r", "busybox", "sh", "-c",
        "ls -l /dev/net/tun /dev/fuse /dev/loop0 /dev/deep/z | cut -c1-10,34-; "
        "dd if=/dev/zero of=/image bs=1k count=64 2> /dev/null; losetup /dev/loop0 /image; "
        "losetup -a; grep -E 'tun|fuse|loop' /proc/misc | wc -l; head -c 3 /dev/deep/z | wc -c",
    )  # fmt: skip
    lines = done.out.split("\n")
    kinds = {line.split()[-1]: line[:10] for line in lines[:4]}
    assert kinds == {
        "/dev/net/tun": "crw-rw-rw-",
        "/dev/fuse": "crw-rw-rw-",
        "/dev/loop0": "brw-rw-rw-",
        "/dev/deep/z": "cr--r--r--",
    }
    assert lines[4] == "/dev/loop0: 0 /image"
    assert lines[5:7] == ["2", "3"] or lines[5:7] == ["3", "3"]
    assert "no device controller: /dev/zero gets the mode for r" in done.err


def test_a_container_sees_its_limits_and_their_changes(host: Host) -> None:
    files = [f"/sys/fs/cgroup/{name}.max" for name in ("cpu", "memory", "memory.swap", "pids")]
    host.docker("run", "-d", "--name", "bounded", "--cpus", "0.5", "-m", "64m", "--pids-limit",
                "33", "busybox", "sleep", "1000")  # fmt: skip
    seen = host.docker("exec", "bounded", "cat", *files).out.split()
    assert seen == ["50000", "100000", str(64 << 20), str(64 << 20), "33"]
    host.docker("update", "--cpus", "1.5", "-m", "48m", "--memory-swap", "48m", "bounded")
    seen = host.docker("exec", "bounded", "cat", *files).out.split()
    assert seen == ["150000", "100000", str(48 << 20), "0", "33"]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU leaves no choice")
def test_a_machine_runs_where_cpuset_says_and_moves_with_an_update(host: Host) -> None:
    def cpus() -> str:
        pid = host.docker("inspect", "-f", "{{.State.Pid}}", "pinned").out.strip()
        status = Path("/proc", pid, "status").read_text()
        return status.partition("Cpus_allowed_list:")[2].split()[0]

    host.docker("run", "-d", "--name", "pinned", "--cpuset-cpus", "1", "busybox", "sleep", "100")
    assert cpus() == "1"
    host.docker("update", "--cpuset-cpus", "0", "pinned")
    assert cpus() == "0"
    host.docker("rm", "-f", "pinned")
    host.docker("run", "-d", "--name", "pinned", "busybox", "sleep", "100")
    free = cpus()
    host.docker("update", "--cpuset-cpus", "0", "pinned")
    assert (free, cpus()) != ("0", "0")
    assert cpus() == "0"


@pytest.mark.parametrize("options", [(), ("--privileged",)], ids=["plain", "privileged"])
def test_a_profile_of_system_calls_is_in_force(
    host: Host, tmp_path: Path, options: tuple[str, ...]
) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW",'
        ' "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    done = host.docker(
        "run", "--rm", *options, "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/x",
        check=False,
    )  # fmt: skip
    assert "Operation not permitted" in done.err


def test_what_no_guest_has_is_dropped_with_dockers_warning(host: Host) -> None:
    done = host.docker(
        "run", "--rm", "--blkio-weight", "300", "--oom-kill-disable", "--memory-swappiness", "5",
        "--device-cgroup-rule", "c 1:3 rwm", "--security-opt", "apparmor=mine",
        "busybox", "echo", "ran",
    )  # fmt: skip
    assert done.out == "ran\n"
    said = done.err.splitlines()
    assert sorted(said) == [
        "WARNING: AppArmor is not in force in a guest. Profile mine discarded.",
        "WARNING: Your kernel does not support Block I/O weight or the cgroup is not mounted. "
        "Weight discarded.",
        "WARNING: Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        "WARNING: Your kernel does not support memory swappiness capabilities or the cgroup is not "
        "mounted. Memory swappiness discarded.",
    ]


RUNC = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: "
)
INIT = f"{RUNC}unable to start container process: error during container init: "


@pytest.mark.parametrize(
    ("host_config", "config", "sentence"),
    [
        (
            {"Devices": [{"PathOnHost": "/dev/nosuch", "CgroupPermissions": "rwm"}]}, {},
            'error gathering device information while adding custom device "/dev/nosuch": no such '
            "file or directory",
        ),
        (
            {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}, {},
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        (
            {"Ulimits": [{"Name": "nofile", "Soft": 3, "Hard": 2}]}, {},
            f"{INIT}error setting rlimits for ready process: error setting rlimit type 7: invalid "
            "argument",
        ),
        (
            {"Sysctls": {"net.ipv4.ip_forward": "x"}}, {},
            f"{INIT}write /proc/sys/net/ipv4/ip_forward: invalid argument",
        ),
        (
            {"Sysctls": {"vm.swappiness": "1"}}, {},
            f'{RUNC}sysctl "vm.swappiness" is not in a separate kernel namespace',
        ),
        ({}, {"Hostname": "h" * 65}, f"{INIT}sethostname: invalid argument"),
        ({}, {"User": "nosuch"}, "unable to find user nosuch: no matching entries in passwd file"),
    ],
)  # fmt: skip
def test_what_only_a_start_finds_out_is_told_as_by_dockerd(
    host: Host, host_config: dict[str, Any], config: dict[str, Any], sentence: str
) -> None:
    body = {"Image": "busybox", **config, "HostConfig": host_config}
    status, made = ask(host, "POST", "/v1.51/containers/create", body)
    assert status == 201, made
    assert ask(host, "POST", f"/v1.51/containers/{made['Id']}/start") == (
        500,
        {"message": sentence},
    )


def test_a_create_body_means_what_its_api_version_knew(host: Host) -> None:
    def made(version: str, **body: Any) -> tuple[dict[str, Any], list[str]]:
        path = f"/v{version}/containers/create?platform=linux/s390x"
        if version > "1.40":
            path = path.partition("?")[0]
        status, answer = ask(host, "POST", path, {"Image": "busybox", "Cmd": ["x"], **body})
        assert status == 201, answer
        return ask(host, "GET", f"/v1.51/containers/{answer['Id']}/json")[1], answer["Warnings"]

    old, _ = made("1.24", HostConfig={"AutoRemove": True, "Annotations": {"a": "b"}})
    assert old["HostConfig"]["AutoRemove"] is False
    assert old["HostConfig"]["IpcMode"] == "shareable"
    assert "Annotations" not in old["HostConfig"]
    check = {"Test": ["CMD", "x"], "StartInterval": 10**9}
    assert "StartInterval" not in made("1.43", Healthcheck=check)[0]["Config"]["Healthcheck"]
    assert made("1.44", Healthcheck=check)[0]["Config"]["Healthcheck"] == check
    for version, told in (("1.43", []), ("1.51", [MAC_MOVED])):
        moved, warnings = made(version, MacAddress="02:42:ac:11:00:77")
        bridge = moved["NetworkSettings"]["Networks"]["bridge"]
        assert (bridge["MacAddress"], warnings) == ("02:42:ac:11:00:77", told)
    two: dict[str, Any] = {"EndpointsConfig": {"bridge": {}, "x": {}}}
    body = {"Image": "busybox", "NetworkingConfig": two}
    assert ask(host, "POST", "/v1.43/containers/create", body) == (
        400,
        {"message": "Container cannot be created with multiple network endpoints: bridge, x"},
    )


def test_requests_about_a_container_are_refused_in_dockerds_words(host: Host) -> None:
    host.docker("run", "-d", "--name", "cc", "busybox", "sleep", "100")
    for method, path, status, sentence in (
        ("POST", "stop?t=x", 500, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("POST", "stop?signal=FOO", 500, "cannot stop container: cc: invalid signal: FOO"),
        ("POST", "restart?signal=FOO", 500, "Cannot restart container cc: invalid signal: FOO"),
        ("POST", "kill?signal=FOO", 400, "cannot kill container: cc: invalid signal: FOO"),
        (
            "POST", "kill?signal=65", 400,
            "cannot kill container: cc: the linux daemon does not support signal 65",
        ),
        ("POST", "wait?condition=foo", 400, 'invalid condition: "foo"'),
        ("POST", "rename", 400, "Neither old nor new names may be empty"),
        ("POST", "resize?h=x&w=1", 400, 'invalid resize height "x": invalid syntax'),
        ("POST", "resize?h=1&w=4294967296", 400,
         'invalid resize width "4294967296": value out of range'),
        ("DELETE", "", 409,
         'cannot remove container "cc": container is running: stop the container before removing '
         "or force remove"),
        ("DELETE", "?link=1", 500,
         "Conflict, cannot remove the default link name of the container"),
    ):  # fmt: skip
        where = f"/v1.51/containers/cc{'/' if path and path[0] != '?' else ''}{path}"
        assert ask(host, method, where) == (status, {"message": sentence}), path
    identifier = host.docker("inspect", "-f", "{{.Id}}", "cc").out.strip()
    assert ask(host, "POST", "/v1.51/containers/cc/unpause") == (
        500,
        {"message": f"Container {identifier} is not paused"},
    )
    assert ask(host, "POST", "/v1.51/containers/cc/resize?h=1&w=70000")[0] == 200
