"""Verbs that meet on one container: whoever wins, what is told is true and no machine is left over.

Each race is run with several delays, since nobody knows where it hurts. The daemon is the real one,
the clients are the docker CLI and raw connections.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.raw import ask, connected
from tests.framework.host import DOCKER, Host, running_host
from tests.framework.images import busybox_tar
from tests.framework.leaks import leftovers

DELAYS = (0.0, 0.03, 0.08, 0.15)
"""Seconds by which the second verb comes later; a start takes about a tenth of one."""


class Verb:
    """One docker command under way."""

    def __init__(self, host: Host, *words: str) -> None:
        self._process = subprocess.Popen(
            [DOCKER, "-H", host.url, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def end(self, timeout: float = 60.0) -> tuple[int, str]:
        """Wait for it; return exit code and all that it said."""
        out, _ = self._process.communicate(timeout=timeout)
        return self._process.returncode, out.decode(errors="replace")


def state(host: Host, name: str) -> dict[str, Any] | None:
    code, answer = ask(host, "GET", f"/containers/{name}/json")
    return answer["State"] if code == 200 else None


def assert_settled(host: Host) -> None:
    """Every running container has a machine, every machine a running container."""
    bound = time.monotonic() + 20
    folder = host.data_root / "sandboxes"
    while True:
        running = host.docker("ps", "-q", "--no-trunc").out.split()
        machines = list(folder.iterdir()) if folder.is_dir() else []
        if len(running) == len(machines):
            break
        assert time.monotonic() < bound, f"{len(running)} run, {len(machines)} machines are there"
        time.sleep(0.1)
    for identifier in running:
        assert host.docker("exec", identifier, "true", check=False).code == 0


def created(host: Host, *options: str) -> str:
    words = options or ("busybox", "sleep", "600")
    return host.docker("create", *words).out.strip()


@pytest.mark.parametrize("delay", DELAYS)
def test_a_removal_during_a_start_never_removes_what_runs(host: Host, delay: float) -> None:
    name = created(host)
    start = Verb(host, "start", name)
    time.sleep(delay)
    removal = Verb(host, "rm", name)
    (started, _), (removed, said) = start.end(), removal.end()
    if removed == 0:
        assert state(host, name) is None
    else:
        assert "before removing or force remove" in said
        assert started == 0
        found = state(host, name)
        assert found is not None
        assert found["Running"]
    assert_settled(host)


@pytest.mark.parametrize("delay", DELAYS)
def test_a_forced_removal_during_a_start_leaves_nothing(host: Host, delay: float) -> None:
    name = created(host)
    start = Verb(host, "start", name)
    time.sleep(delay)
    assert host.docker("rm", "-f", name).code == 0
    start.end()
    assert state(host, name) is None
    assert_settled(host)


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_what_ends_a_container_waits_for_its_start(host: Host, verb: str, delay: float) -> None:
    name = created(host, "--stop-signal", "KILL", "busybox", "sleep", "600")
    start = Verb(host, "start", name)
    time.sleep(delay)
    ended = Verb(host, verb, name).end()
    start.end()
    found = state(host, name)
    assert found is not None
    if found["Running"]:  # the verb came before the start, and said so
        assert delay < 0.05
        assert verb == "stop" or ended[0] != 0
        host.docker("kill", name)
    assert_settled(host)


def test_two_starts_make_one_machine(host: Host) -> None:
    name = created(host)
    verbs = [Verb(host, "start", name) for _ in range(4)]
    assert [verb.end()[0] for verb in verbs] == [0, 0, 0, 0]
    assert_settled(host)
    assert len(list((host.data_root / "sandboxes").iterdir())) == 1


@pytest.mark.parametrize("delay", DELAYS)
def test_a_restart_while_the_process_ends_lets_it_run_again(host: Host, delay: float) -> None:
    command = "if [ -e /again ]; then sleep 600; fi; touch /again; sleep 0.1"
    name = host.docker("run", "-d", "busybox", "sh", "-c", command).out.strip()
    time.sleep(delay)
    assert host.docker("restart", "-t", "5", name).code == 0
    bound = time.monotonic() + 10
    while (found := state(host, name)) is None or not found["Running"]:
        # The restart may have met the first run before its file was there: then it ran twice.
        assert time.monotonic() < bound
        host.docker("start", name)
        time.sleep(0.1)
    assert_settled(host)


def test_restarts_and_starts_beside_each_other_all_succeed(host: Host) -> None:
    name = host.docker("run", "-d", "busybox", "sleep", "600").out.strip()
    verbs = [Verb(host, verb, *more, name) for verb, *more in
             (("restart", "-t", "0"), ("start",), ("restart", "-t", "0"), ("start",))]  # fmt: skip
    assert [verb.end() for verb in verbs] == [(0, f"{name}\n")] * 4
    found = state(host, name)
    assert found is not None
    assert found["Running"]
    assert_settled(host)


def test_a_restart_keeps_a_container_that_its_end_would_remove(host: Host) -> None:
    name = host.docker("run", "-d", "--rm", "busybox", "sleep", "600").out.strip()
    host.docker("restart", "-t", "0", name)
    found = state(host, name)
    assert found is not None
    assert found["Running"]
    host.docker("kill", name)
    assert state(host, name) is None
    assert_settled(host)


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.25, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("verb", ["stop", "kill", "rm -f"])
def test_a_policy_that_starts_again_loses_against_the_user(
    host: Host, verb: str, delay: float
) -> None:
    name = host.docker("run", "-d", "--restart", "always", "busybox", "sh", "-c", "exit 1")
    identifier = name.out.strip()
    time.sleep(delay)
    code, said = Verb(host, *verb.split(), identifier).end()
    found = state(host, identifier)
    if verb == "rm -f":
        assert code == 0, said
        assert found is None
    else:
        time.sleep(0.5)
        found = state(host, identifier)
        assert found is not None
        assert not found["Running"], said
        assert not found["Restarting"], said
    assert_settled(host)


@pytest.mark.parametrize("delay", DELAYS)
def test_an_exec_while_the_container_ends_gets_an_end_too(host: Host, delay: float) -> None:
    name = host.docker("run", "-d", "busybox", "sleep", "600").out.strip()
    execs = [Verb(host, "exec", name, "sleep", "500") for _ in range(3)]
    time.sleep(delay)
    host.docker("kill", name)
    assert all(verb.end(20)[0] != 0 for verb in execs)
    found = state(host, name)
    assert found is not None
    assert not found["Running"]
    assert_settled(host)


def test_an_exec_right_after_a_start_waits_for_it(host: Host) -> None:
    name = created(host)
    start = Verb(host, "start", name)
    bound = time.monotonic() + 5
    while Verb(host, "exec", name, "true").end()[0] != 0:
        assert time.monotonic() < bound
    assert start.end()[0] == 0


def attached(host: Host, name: str, query: str) -> Iterator[bytes]:
    """Attach by the API; the first item says that it is done, the second is all output."""
    with connected(host) as sock:
        path = f"/containers/{name}/attach?{query}"
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        data = sock.recv(65536)
        yield b""
        while part := sock.recv(65536):
            data += part
    frames, text = data.partition(b"\r\n\r\n")[2], b""
    while frames:
        size = int.from_bytes(frames[4:8], "big")
        text, frames = text + frames[8 : 8 + size], frames[8 + size :]
    yield text


def test_a_client_attached_before_the_start_gets_all_output(host: Host) -> None:
    name = created(host, "busybox", "sh", "-c", "seq 1 500; sleep 0.2; echo end")
    client = attached(host, name, "stream=1&stdout=1")
    next(client)
    host.docker("start", name)
    assert next(client).split() == [*(b"%d" % n for n in range(1, 501)), b"end"]


def test_an_attachment_with_the_log_gets_each_line_once(host: Host) -> None:
    command = "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done"
    name = host.docker("run", "-d", "busybox", "sh", "-c", command).out.strip()
    client = attached(host, name, "logs=1&stream=1&stdout=1")
    next(client)
    assert next(client).split() == [b"%d" % n for n in range(2000)]


@pytest.mark.parametrize("verb", ["kill", "stop", "rm -f"])
def test_a_paused_container_can_be_ended(host: Host, verb: str) -> None:
    since = str(time.time())
    name = host.docker(
        "run", "-d", "--name", "frozen", "--stop-signal", "KILL", "busybox", "sleep", "600"
    ).out.strip()
    host.docker("pause", name)
    assert Verb(host, *verb.split(), name).end(30)[0] == 0
    found = state(host, name)
    assert found is None or found["Status"] == "exited"
    events = host.docker(
        "events", "--since", since, "--until", str(time.time() + 0.1), "--filter",
        "container=frozen", "--format", "{{.Action}}",
    ).out.split()  # fmt: skip
    assert events.count("die") == 1
    assert_settled(host)


def test_pauses_and_kills_beside_each_other_end_in_an_end(host: Host) -> None:
    for _ in range(4):
        name = host.docker("run", "-d", "busybox", "sleep", "600").out.strip()
        verbs = [Verb(host, verb, name) for verb in ("pause", "kill", "unpause")]
        for verb in verbs:
            verb.end(40)
        found = state(host, name)
        assert found is not None
        assert found["Status"] == "exited"
    assert_settled(host)


def waiting(host: Host, name: str, condition: str) -> Iterator[int]:
    """Wait by the API; the first item says that the wait is registered, the second is the code."""
    with connected(host) as sock:
        path = f"/containers/{name}/wait?condition={condition}"
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        data = sock.recv(4096)
        yield -1
        while b"}" not in data:
            data += sock.recv(4096)
    yield int(data.partition(b'"StatusCode":')[2].split(b"}")[0])


def test_waits_come_back_in_every_state(host: Host) -> None:
    name = created(host, "busybox", "sh", "-c", "sleep 0.3; exit 7")
    assert host.docker("wait", name).out.strip() == "0"  # created: it does not run
    next_exit, removed = waiting(host, name, "next-exit"), waiting(host, name, "removed")
    assert (next(next_exit), next(removed)) == (-1, -1)
    host.docker("start", name)
    assert host.docker("wait", name).out.strip() == "7"
    assert next(next_exit) == 7
    host.docker("rm", name)
    assert next(removed) == 7


def test_a_wait_for_a_restarting_container_ends_when_it_is_stopped(host: Host) -> None:
    name = host.docker("run", "-d", "--restart", "always", "busybox", "false").out.strip()
    time.sleep(1.0)
    waiting = Verb(host, "wait", name)
    time.sleep(0.3)
    host.docker("stop", name)
    assert waiting.end(20)[0] == 0


def test_a_name_given_during_a_removal_is_free_afterwards(host: Host) -> None:
    for _ in range(5):
        name = created(host)
        verbs = [Verb(host, "rm", name), Verb(host, "rename", name, "nextname")]
        for verb in verbs:
            verb.end()
        if state(host, name) is not None:
            host.docker("rm", name)
        host.docker("create", "--name", "nextname", "busybox")
        host.docker("rm", "nextname")


def test_a_client_that_leaves_before_its_archive_holds_nobody_up(host: Host) -> None:
    name = created(host)
    for _ in range(6):
        with connected(host) as sock:
            sock.sendall(
                f"GET /containers/{name}/archive?path=/ HTTP/1.1\r\nHost: d\r\n\r\n".encode()
            )
    host.docker("start", name, timeout=60)
    assert_settled(host)


def test_archives_that_are_given_up_do_not_use_up_the_guest(host: Host) -> None:
    name = host.docker(
        "run", "-d", "busybox", "sh", "-c",
        "dd if=/dev/zero of=/big bs=1M count=20 2>/dev/null; sleep 600",
    ).out.strip()  # fmt: skip
    time.sleep(0.5)
    for _ in range(40):  # the agent has room for 32 at once
        with connected(host) as sock:
            sock.sendall(
                f"GET /containers/{name}/archive?path=/big HTTP/1.1\r\nHost: d\r\n\r\n".encode()
            )
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert host.docker("cp", f"{name}:/etc/hostname", "-").code == 0


def test_a_container_that_was_made_has_its_image_whatever_was_removed_meanwhile(host: Host) -> None:
    for _ in range(3):
        host.docker("import", "-", "passing:1", stdin=busybox_tar())
        create, removal = Verb(host, "create", "passing:1", "true"), Verb(host, "rmi", "passing:1")
        (made, said), _ = create.end(), removal.end()
        if made:
            assert "No such image: passing:1" in said or "Unable to find image" in said
        else:
            host.docker("start", "-a", said.strip())
            host.docker("rm", said.strip())
        host.docker("rmi", "-f", "passing:1", check=False)
        host.docker("image", "prune", "-f")


@pytest.fixture
def own(tmp_path: Path, worker_number: int) -> Iterator[Host]:
    with running_host(tmp_path / "h", worker_number + 40) as host:
        host.docker("import", "--change", 'CMD ["sh"]', "-", "busybox", stdin=busybox_tar())
        yield host


@pytest.mark.parametrize("delay", DELAYS)
def test_a_daemon_that_is_told_to_end_leaves_nothing_half_done(own: Host, delay: float) -> None:
    policy = own.docker("run", "-d", "--restart", "on-failure", "busybox", "false").out.strip()
    runner = own.docker("run", "-d", "busybox", "sleep", "600").out.strip()
    starting = own.docker("create", "busybox", "sleep", "600").out.strip()
    verbs = [
        Verb(own, "start", starting),
        Verb(own, "exec", runner, "sleep", "600"),
        Verb(own, "kill", runner),
        Verb(own, "run", "--rm", "busybox", "true"),
    ]
    time.sleep(delay)
    own.stop()
    for verb in verbs:
        verb.end()
    own.start()
    time.sleep(1.0)
    found = state(own, policy)
    assert found is not None
    assert found["Running"]  # which Docker says of restarting ones too
    own.docker("rm", "-f", policy)
    assert_settled(own)
    own.remove_everything()
    own.docker("rmi", "-f", "busybox")
    bound = time.monotonic() + 10
    while (left := leftovers(own)) and time.monotonic() < bound:
        time.sleep(0.2)  # the kernel ends a network namespace, and its links, in its own time
    assert left == []


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.04, 0.06])
def test_an_export_after_one_that_was_left_half_read_finds_the_disk_free(
    host: Host, pause: float
) -> None:
    """A client that ends its half and then the connection has told twice that it leaves."""
    host.docker("create", "--name", "idle", "busybox", "true")
    with connected(host) as sock:
        sock.sendall(b"GET /containers/idle/export HTTP/1.1\r\nHost: d\r\n\r\n")
        assert len(sock.recv(8000)) > 0
        sock.shutdown(socket.SHUT_WR)
        time.sleep(pause)
    status, answer = ask(host, "GET", "/containers/idle/export")
    assert status == 200, answer
