"""What verbs answer in odd states and of odd wishes: statuses and sentences of dockerd 28.5."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.conformance.raw import ask
from tests.framework.host import Host
from tests.framework.images import busybox_tar
from tests.framework.trouble import eventually


def told(status: int, message: str) -> tuple[int, dict[str, str]]:
    return status, {"message": message}


def actions(host: Host, name: str, since: float) -> list[str]:
    """Return what happened to a container, in order."""
    out = host.docker(
        "events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}",
        "--filter", f"container={name}", "--format", "{{json .Action}}",
    ).out  # fmt: skip
    return [json.loads(line) for line in out.splitlines()]


def test_an_exec_of_a_paused_container_waits_for_better_times(host: Host) -> None:
    host.docker("run", "-d", "--name", "xp", "busybox", "sleep", "60")
    full = ask(host, "GET", "/containers/xp/json")[1]["Id"]
    made: dict[str, Any] = ask(host, "POST", "/containers/xp/exec", {"Cmd": ["true"]})[1]
    host.docker("pause", "xp")
    words = "Container {} is paused, unpause the container before exec"
    asked = ask(host, "POST", "/containers/xp/exec", {"Cmd": ["true"]})
    assert asked == told(409, words.format("xp"))
    for path, body in (("start", {"Detach": True}), ("start", {}), ("resize?h=1&w=1", None)):
        refused = ask(host, "POST", f"/exec/{made['Id']}/{path}", body)
        assert refused == told(409, words.format(full)), path
    host.docker("unpause", "xp")
    assert ask(host, "POST", f"/exec/{made['Id']}/start", {"Detach": True})[0] == 200


def test_the_container_of_an_exec_is_looked_for_before_its_keys(host: Host) -> None:
    keys = {"Cmd": ["true"], "DetachKeys": "x-y"}
    assert ask(host, "POST", "/containers/nosuch/exec", keys)[0] == 404
    host.docker("create", "--name", "xk", "busybox")
    assert ask(host, "POST", "/containers/xk/exec", keys)[0] == 409
    host.docker("start", "xk")


def test_variables_and_users_that_no_exec_can_have_are_refused(host: Host) -> None:
    host.docker("run", "-d", "--name", "xv", "busybox", "sleep", "60")
    user = {"Cmd": ["true"], "User": "99999999999"}
    range_ = "uids and gids must be in range 0-2147483647"
    assert ask(host, "POST", "/containers/xv/exec", user) == told(400, range_)
    made = ask(host, "POST", "/containers/xv/exec", {"Cmd": ["true"], "Env": ["=x"]})[1]
    status, answer = ask(host, "POST", f"/exec/{made['Id']}/start", {"Detach": True})
    assert status == 500
    assert answer["message"].endswith('environment variable name can\'t be empty: "=x"')
    assert ask(host, "GET", f"/exec/{made['Id']}/json")[1]["ExitCode"] == 128


def test_what_only_needs_a_container_s_state_is_told_of(host: Host) -> None:
    began = time.time()
    host.docker("run", "-d", "--name", "ev", "busybox", "sleep", "60")
    assert ask(host, "POST", "/containers/ev/attach")[0] == 200
    assert ask(host, "POST", "/containers/ev/resize?h=1&w=2")[0] == 200
    host.docker("pause", "ev")
    assert ask(host, "POST", "/containers/ev/attach")[0] == 409
    host.docker("kill", "-s", "TERM", "ev")
    assert actions(host, "ev", began) == [
        "create", "start", "attach", "resize", "pause", "kill", "unpause"
    ]  # fmt: skip


def test_wrong_wishes_are_refused_before_the_container_is_looked_for(host: Host) -> None:
    update = "/containers/nosuch/update"
    small = told(400, "Minimum memory limit allowed is 6MB")
    assert ask(host, "POST", update, {"Memory": 1}) == small
    assert ask(host, "POST", update, {"RestartPolicy": {"Name": "foo"}})[0] == 400
    assert ask(host, "POST", update, {"CpuShares": 5})[0] == 404
    assert ask(host, "POST", "/commit?container=nosuch&repo=A")[0] == 400
    checkpoint = told(400, "checkpoint is only supported in experimental mode")
    assert ask(host, "POST", "/containers/nosuch/start?checkpoint=x") == checkpoint


def test_a_running_container_loses_its_limit_of_processes_and_keeps_what_its_memory_needs(
    host: Host,
) -> None:
    host.docker(
        "run", "-d", "--name", "up", "-m", "32m", "--pids-limit", "20", "busybox", "sleep", "60"
    )
    assert host.docker("exec", "up", "cat", "/sys/fs/cgroup/pids.max").out == "20\n"
    host.docker("update", "--pids-limit", "-1", "up")
    assert host.docker("exec", "up", "cat", "/sys/fs/cgroup/pids.max").out == "max\n"
    status, answer = ask(host, "POST", "/containers/up/update", {"MemorySwap": 8 << 20})
    assert status == 500
    assert answer["message"].startswith("Cannot update container")
    weight = ask(host, "POST", "/containers/up/update", {"BlkioWeight": 500})[1]["Warnings"]
    assert weight == [
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight "
        "discarded."
    ]


def test_an_image_for_another_platform_is_warned_of(host: Host) -> None:
    host.docker("import", "--platform", "linux/s390x", "-", "other", stdin=busybox_tar())
    asked = {"Image": "other", "Cmd": ["true"]}
    status, made = ask(host, "POST", "/containers/create?name=foreign", asked)
    assert status == 201
    assert len(made["Warnings"]) == 1
    assert made["Warnings"][0].startswith(
        "The requested image's platform (linux/s390x) does not match the detected host platform ("
    )
    asked = {"Image": "busybox", "Cmd": ["true"]}
    assert ask(host, "POST", "/containers/create?name=own", asked)[1]["Warnings"] == []
    host.docker("rm", "foreign", "own")
    host.docker("rmi", "other")


def test_a_restart_is_counted_when_it_is_decided(host: Host) -> None:
    host.docker("run", "-d", "--name", "rc", "--restart", "on-failure:2", "busybox", "false")
    seen = set()

    def over() -> bool:
        found = ask(host, "GET", "/containers/rc/json")[1]
        seen.add((found["State"]["Status"], found["RestartCount"]))
        return bool(found["State"]["Status"] == "exited")

    eventually(over)
    assert ("restarting", 0) not in seen
    assert ("exited", 2) in seen


def test_a_file_is_no_working_directory(host: Host) -> None:
    done = host.docker("run", "--rm", "-w", "/etc/passwd", "busybox", "true", check=False)
    assert done.code == 125
    assert "Cannot mkdir: /etc/passwd is not a directory" in done.err


def test_verbs_that_meet_a_container_s_end_answer_for_one_that_has_ended(host: Host) -> None:
    host.docker("run", "-d", "--name", "ends", "--restart", "always", "busybox", "true")
    seen = set()
    bound = time.monotonic() + 3
    while time.monotonic() < bound:
        status, answer = ask(host, "GET", "/containers/ends/changes")
        assert status == 200, answer
        status, answer = ask(host, "POST", "/containers/ends/update", {"CpuShares": 99})
        assert status == 200, answer
        status, answer = ask(host, "POST", "/containers/ends/pause")
        assert status in (204, 409), answer
        seen.add(status)
        if status == 204:
            assert ask(host, "POST", "/containers/ends/unpause")[0] in (204, 500)
    assert 409 in seen
