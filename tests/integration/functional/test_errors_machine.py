"""Machines that die, hang or are lied to: one sentence, bounded waits, nobody else harmed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.framework.host import KIT_DIR, Host, Result, running_host
from tests.framework.trouble import (
    eventually,
    folder_of,
    inspect,
    load_busybox,
    signal_machine,
    state,
)

ENDED = "the container's virtual machine ended unexpectedly"


def test_a_killed_machine_leaves_137_and_a_reason(host: Host) -> None:
    host.docker("run", "-d", "--name", "victim", "busybox", "sleep", "1000")
    signal_machine(host, "victim", signal.SIGKILL)
    assert host.docker("wait", "victim").out == "137\n"
    assert state(host, "victim")["Error"].startswith(ENDED)


def test_a_killed_machine_is_started_again_by_its_restart_policy(host: Host) -> None:
    host.docker("run", "-d", "--name", "up", "--restart", "always", "busybox", "sleep", "1000")
    before = state(host, "up")["Pid"]
    signal_machine(host, "up", signal.SIGKILL)
    eventually(lambda: state(host, "up")["Pid"] not in (0, before))
    assert inspect(host, "up")["RestartCount"] == 1


def test_a_killed_machine_of_an_auto_removed_container_goes_with_it(host: Host) -> None:
    host.docker("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1000")
    signal_machine(host, "gone", signal.SIGKILL)
    eventually(lambda: not host.docker("ps", "-aq").out)


def test_a_panic_of_the_guest_is_told(host: Host) -> None:
    crash = "sleep 0.2; echo c > /proc/sysrq-trigger; sleep 9"
    done = host.docker(
        "run", "--privileged", "--name", "crash", "busybox", "sh", "-c", crash, check=False
    )
    assert done.code
    found = state(host, "crash")
    assert found["ExitCode"] == 137
    assert "Kernel panic - not syncing: sysrq triggered crash" in found["Error"]
    assert len(found["Error"]) < 1000


@pytest.mark.parametrize(
    "attack",
    ["kill -9 1; kill -9 -1; echo alive", "kill -STOP 1; kill -SEGV 1; echo alive"],
)
def test_the_agent_survives_what_a_privileged_container_sends_it(host: Host, attack: str) -> None:
    done = host.docker(
        "run", "--rm", "--privileged", "--pid", "host", "busybox", "sh", "-c", attack
    )
    assert done.out == "alive\n"


def test_a_fork_bomb_harms_its_own_machine_alone(host: Host) -> None:
    bomb = "b() { b | b & b; }; b; sleep 1000"
    host.docker("run", "-d", "--name", "bomb", "busybox", "sh", "-c", bomb)
    time.sleep(2)
    began = time.monotonic()
    assert host.docker("run", "--rm", "busybox", "echo", "other").out == "other\n"
    assert time.monotonic() - began < 5
    host.docker("rm", "-f", "bomb", timeout=60)


class Frozen:
    """Commands on a container whose machine stands still, run at the same time."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name
        self.results: dict[str, tuple[Result, float]] = {}
        self._threads: list[threading.Thread] = []

    def _run(self, words: tuple[str, ...]) -> None:
        began = time.monotonic()
        result = self._host.docker(*words, check=False, timeout=100)
        self.results[words[0]] = result, time.monotonic() - began

    def begin(self, *commands: tuple[str, ...]) -> None:
        """Start the commands."""
        for words in commands:
            thread = threading.Thread(target=self._run, args=(words,))
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Wait for all of them."""
        for thread in self._threads:
            thread.join()


def test_a_frozen_machine_keeps_nobody_waiting_for_ever(host: Host) -> None:
    host.docker("run", "-d", "--name", "ice", "busybox", "sleep", "1000")
    pid = state(host, "ice")["Pid"]
    signal_machine(host, "ice", signal.SIGSTOP)
    frozen = Frozen(host, "ice")
    frozen.begin(
        ("exec", "ice", "true"), ("top", "ice"), ("cp", "ice:/etc/passwd", "-"), ("logs", "ice")
    )
    slowest = 0.0
    for _ in range(10):
        began = time.monotonic()
        assert "ice" in host.docker("ps").out
        assert state(host, "ice")["Pid"] == pid
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2
    assert host.docker("run", "--rm", "busybox", "echo", "other").out == "other\n"
    frozen.end()
    assert frozen.results["exec"][0].code == 126
    assert "did not answer EXEC within 30 s" in frozen.results["exec"][0].out
    assert "did not answer TOP within 30 s" in frozen.results["top"][0].err
    assert "did not answer" in frozen.results["cp"][0].err
    assert frozen.results["logs"][0].code == 0
    assert max(took for _, took in frozen.results.values()) < 45
    began = time.monotonic()
    host.docker("rm", "-f", "ice")
    assert time.monotonic() - began < 20
    assert not Path(f"/proc/{pid}").exists()


def test_a_frozen_machine_can_be_stopped(host: Host) -> None:
    host.docker("run", "-d", "--name", "ice", "busybox", "sleep", "1000")
    signal_machine(host, "ice", signal.SIGSTOP)
    began = time.monotonic()
    host.docker("stop", "-t", "1", "ice")
    assert time.monotonic() - began < 40
    assert state(host, "ice")["ExitCode"] == 137


def test_a_lost_or_damaged_layer_is_named_and_no_guest_boots(host: Host) -> None:
    host.docker("create", "--name", "cc", "busybox", "echo", "hi")
    (layer,) = (host.data_root / "layers").glob("*.erofs")
    kept = layer.with_suffix(".kept")
    layer.rename(kept)
    try:
        whole = kept.read_bytes()
        for content in (None, whole[:4096], b"x" * len(whole), whole + bytes(4096)):
            if content is not None:
                layer.write_bytes(content)
            refused = host.docker("start", "-a", "cc", check=False)
            assert refused.code
            wanted = f"layer {layer.stem[:12]} of the image is missing or damaged; pull or load"
            assert wanted in refused.err
    finally:
        kept.rename(layer)
    assert host.docker("start", "-a", "cc").out == "hi\n"


def test_a_lost_or_damaged_disk_is_named(host: Host) -> None:
    host.docker("create", "--name", "cc", "busybox", "echo", "hi")
    disk = folder_of(host, "cc") / "disk.img"
    size = disk.stat().st_size
    disk.unlink()
    assert "disk of container cc is missing" in host.docker("start", "cc", check=False).err
    assert "disk of container cc is missing" in host.docker("cp", "cc:/x", "-", check=False).err
    disk.write_bytes(b"garbage" * 1000)
    assert "has 7000 bytes and not" in host.docker("start", "cc", check=False).err
    with disk.open("r+b") as file:
        file.truncate(size)
    assert "the container's disk is damaged" in host.docker("start", "cc", check=False).err
    disk.unlink()
    disk.symlink_to("/etc/passwd")
    assert "is not a file" in host.docker("start", "cc", check=False).err
    host.docker("rm", "cc")


def test_a_log_that_was_deleted_is_begun_anew(host: Host) -> None:
    host.docker("run", "-d", "--name", "ll", "busybox", "sh", "-c", "echo one; sleep 1000")
    log = next(folder_of(host, "ll").glob("*-json.log"))
    eventually(lambda: log.stat().st_size > 0)
    log.unlink()
    assert host.docker("logs", "ll").out == ""
    host.docker("restart", "-t", "0", "ll")
    eventually(lambda: host.docker("logs", "ll").out == "one\n")
    host.docker("stop", "-t", "0", "ll")
    log.unlink()
    log.mkdir()
    assert host.docker("logs", "ll", check=False).code
    assert "log can't be opened: Is a directory" in host.docker("start", "ll", check=False).err
    assert "Traceback" not in host.log.read_text()


def test_a_sandbox_whose_namespace_file_was_removed_lives_on(host: Host) -> None:
    host.docker("run", "-d", "--name", "nn", "busybox", "sleep", "1000")
    pid = state(host, "nn")["Pid"]
    for path in (host.exec_root / "netns").iterdir():
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.unlink()
    assert host.docker("exec", "nn", "echo", "up").out == "up\n"
    host.kill()
    host.start()
    assert state(host, "nn")["Pid"] == pid
    assert host.docker("exec", "nn", "echo", "up").out == "up\n"


def test_a_guest_that_dies_at_boot_is_told_with_its_last_words(
    tmp_path: Path, worker_number: int
) -> None:
    kit = tmp_path / "kit"
    shutil.copytree((KIT_DIR / "current").resolve(), kit / "k", symlinks=True)
    (kit / "current").symlink_to("k")
    agent = kit / "k" / "guest" / "agent"
    agent.write_bytes(agent.read_bytes()[:4096].ljust(agent.stat().st_size, b"\0"))
    with running_host(tmp_path / "h", worker_number + 30, ["--kit-dir", str(kit)]) as bad:
        load_busybox(bad)
        began = time.monotonic()
        refused = bad.docker("run", "busybox", "true", check=False)
        assert time.monotonic() - began < 120
        assert refused.code == 125
        assert "the virtual machine ended before its agent answered" in refused.err
        assert "Kernel panic" in refused.err
        assert "Traceback" not in bad.log.read_text()
