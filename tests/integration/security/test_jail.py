"""What a jailed program can reach: tried from within, and told by the kernel from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hyperstack.errors import InternalError
from hyperstack.platform import netns
from hyperstack.platform.cgroup import CgroupLimits, Cgroups
from hyperstack.platform.filters import Program
from hyperstack.platform.jail import Bind, Tmpfs, launch, run
from tests.integration.security.conftest import Jails

NAMESPACES = ("mnt", "pid", "ipc", "uts", "net", "cgroup")
BY_FILTER = (
    "unshare clone3 setns mount-tmpfs mount-proc umount chroot pivot-root fsopen open-tree"
    " mount-setattr socket-inet socket-inet6 socket-raw socket-netlink socket-packet socket-vsock"
    " socket-alg keyctl add-key request-key bpf perf-event-open io-uring-setup userfaultfd"
    " kexec-load kexec-file-load init-module finit-module delete-module swapon reboot sethostname"
    " setdomainname settimeofday clock-settime syslog acct quotactl iopl ioperm modify-ldt"
    " fanotify-init pidfd-getfd process-madvise kcmp move-pages migrate-pages mbind vhangup"
    " vmsplice shmget msgget semget mq-open uselib memfd-secret personality real-time tiocsti"
    " tiocsti-disguised tioclinux tiocsctty xfs-goingdown core-limit open-by-handle clone"
    " open-victim securebits set-mm write-victim set-mempolicy pidfd-send-signal move-mount fsmount"
    " fspick list-mounts"
).split()
"""Attempts that the filter itself must refuse, whatever the kernel would have said."""


@pytest.fixture
def abstract() -> Iterator[None]:
    """A listener on an abstract name in the host's network namespace."""
    with socket.socket(socket.AF_UNIX) as listening:
        for _ in range(600):  # another test worker may have it for a moment
            with contextlib.suppress(OSError):
                listening.bind("\0hyper-jail-test")
                break
            time.sleep(0.1)
        listening.listen()
        yield


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("program", list(Program), ids=str)
async def test_nothing_that_is_tried_from_within_works(
    jails: Jails, program: Program, abstract: None
) -> None:
    done = await run(jails.spec(str(os.getpid()), program=program), jails.launcher, timeout=60)
    lines = done.stdout.decode().splitlines()
    assert lines[-1:] == ["end"], (done, lines[-3:])
    results = dict(line.split(" ", 1) for line in lines[:-1])
    assert len(results) > 100
    # virtiofsd gives up its own capabilities; it has none here that could be given up or taken.
    # Git fetches by the internet's protocols; its jail has a network of its own.
    net = {"socket-inet", "socket-inet6"} if program == Program.GIT else set()
    # Root in a container may make setuid files, so its file server does.
    modes = {"make-setuid"} if program == Program.VIRTIOFSD else set()
    assert {name for name, result in results.items() if result == "DONE"} == net | modes
    asked = [name for name in BY_FILTER if name not in net]
    other = {name: results[name] for name in asked if results[name] != "refused EPERM"}
    assert other.pop("clone3") == "refused ENOSYS"
    assert other == {}
    assert results["int-0x80"] == "killed 31"
    assert results["x32"] == "killed 31"
    assert results["see-others"] == "refused ESRCH"


async def test_the_walls_stand_without_a_filter_too(jails: Jails, abstract: None) -> None:
    """Not the kernel's own calls, which the filter alone keeps away from a user's reach."""
    done = await run(jails.spec(str(os.getpid()), program=None), jails.launcher, timeout=60)
    results = dict(line.split(" ", 1) for line in done.stdout.decode().splitlines()[:-1])
    for name in (
        "see-others signal-victim trace-victim read-victim write-victim open-victim limit-victim"
        " open-host-files open-proc open-devices above-the-root open-by-handle write-root"
        " write-read-only-bind make-in-read-only-bind make-writable make-device make-device-in-bind"
        " open-device-in-bind"
        " give-away run-setuid run-what-was-written mount-tmpfs mount-proc umount chroot pivot-root"
        " setuid setresuid setgid setgroups capset ambient new-privileges socket-raw socket-packet"
        " abstract-socket init-module kexec-load swapon reboot settimeofday syslog iopl core-dump"
        " more-processes larger-files fork-on-and-on write-on-and-on"
    ).split():
        assert results[name] != "DONE", name


async def test_the_kernel_agrees_from_outside(jails: Jails) -> None:
    process = await jails.hold(oom_score=500)
    found = status(process.pid)
    uid = str(jails.uid)
    assert found["Uid"].split() == [uid] * 4
    assert found["Gid"].split() == [uid] * 4
    assert found["Groups"] == ""
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[kind], 16) == 0, kind
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert found["Seccomp_filters"] == "1"
    assert found["NSpid"].split()[-1] == "1"
    assert found["SigIgn"].strip("0") in ("", "1")
    for name in NAMESPACES:
        theirs, ours = (Path(f"/proc/{pid}/ns/{name}") for pid in (process.pid, "self"))
        assert theirs.readlink() != ours.readlink(), name
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "500"
    assert os.getsid(process.pid) == process.pid


async def test_every_mount_is_read_only_or_named(jails: Jails) -> None:
    process = await jails.hold()
    mounts = {}
    for line in Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines():
        fields = line.split()
        mounts[fields[4]] = set(fields[5].split(","))
    assert set(mounts) == {"/", "/dev", "/tmp", "/ro", "/rw"}
    for path, options in mounts.items():
        assert "nosuid" in options, path
        assert ("ro" in options) == (path not in ("/tmp", "/rw")), path
        assert ("nodev" in options) == (path != "/dev"), path
    assert "noexec" in mounts["/dev"] & mounts["/tmp"]
    root = Path(f"/proc/{process.pid}/root")
    assert sorted(p.name for p in (root / "dev").iterdir()) == ["null", "urandom"]
    assert not stat.S_IMODE((root / "tmp").stat().st_mode) & 0o077


async def test_limits_are_what_was_asked_and_cores_are_never_dumped(jails: Jails) -> None:
    process = await jails.hold()
    text = Path(f"/proc/{process.pid}/limits").read_text()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()[1:]}
    assert limits["Max open files"] == ["1024", "1024"]
    assert limits["Max processes"] == ["64", "64"]
    assert limits["Max file size"] == [str(1 << 20)] * 2
    # 1, not 0: with 0 a program of core_pattern would still get the memory.
    assert limits["Max core file size"] in (["1", "1"], ["0", "0"])


async def test_only_named_descriptors_are_open(jails: Jails) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_inheritable(read, True)
    try:
        spec = jails.spec("fds", fds={7: read, 5: write, 0: read})
        done = await run(spec, jails.launcher, timeout=20)
        process = await jails.hold(fds={9: read})
        folder = Path(f"/proc/{process.pid}/fd")
        open_ones = sorted((entry.name for entry in folder.iterdir()), key=int)
        null = str((folder / "0").readlink())
    finally:
        os.close(read)
        os.close(write)
    assert done.stdout.split() == [b"0", b"1", b"2", b"5", b"7"]
    assert open_ones == ["0", "1", "2", "9"]
    assert null == "/dev/null"


async def test_a_jail_without_devices_has_null_at_its_standard_descriptors(jails: Jails) -> None:
    done = await run(jails.spec("fds", devices=()), jails.launcher, timeout=20)
    assert done.stdout.split() == [b"0", b"1", b"2"]


async def test_it_lives_in_the_named_cgroup_and_network(jails: Jails, folder: Path) -> None:
    groups, sandbox = Cgroups.detect(), f"jailtest{jails.uid:08x}" + "0" * 40
    path = folder / "net"
    netns.create(path)
    folders = groups.create(sandbox, CgroupLimits(pids=50))
    try:
        process = await jails.hold(netns=path, cgroups=folders)
        assert groups.pids(sandbox) == {process.pid}
        assert Path(f"/proc/{process.pid}/ns/net").stat().st_ino == path.stat().st_ino
        await groups.kill(sandbox)
        await asyncio.wait_for(process.wait(), 5)
    finally:
        await groups.remove(sandbox)
        netns.delete(path)
    assert not any(entry.exists() for entry in folders)


async def test_it_outlives_its_launcher_and_its_parent(jails: Jails) -> None:
    program = (
        "import sys, pathlib\n"
        "from hyperstack.platform.jail import JailSpec, launch_blocking\n"
        "root, launcher, uid = sys.argv[1:]\n"
        "spec = JailSpec(root=pathlib.Path(root), argv=('/breakout', 'hold'), program=None,\n"
        "                uid=int(uid), gid=int(uid))\n"
        "print(launch_blocking(spec, pathlib.Path(launcher)).pid, flush=True)\n"
    )
    with _python(program, jails.root, jails.launcher, jails.uid) as started:
        pid = int(started.communicate()[0])
    assert jails.processes() == [pid]
    os.kill(pid, signal.SIGKILL)
    await _gone(jails)


async def test_what_runs_to_its_end_dies_with_who_started_it(jails: Jails) -> None:
    program = (
        "import asyncio, sys, pathlib\n"
        "from hyperstack.platform.jail import JailSpec, run\n"
        "root, launcher, uid = sys.argv[1:]\n"
        "spec = JailSpec(root=pathlib.Path(root), argv=('/breakout', 'hold'), program=None,\n"
        "                uid=int(uid), gid=int(uid))\n"
        "asyncio.run(run(spec, pathlib.Path(launcher), timeout=60))\n"
    )
    for delay in (0.3, 0.4, 0.5, 1.0):
        with _python(program, jails.root, jails.launcher, jails.uid) as started:
            await asyncio.sleep(delay)
            started.kill()
        await _gone(jails)


def _python(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def _gone(jails: Jails) -> None:
    deadline = time.monotonic() + 5
    while jails.processes():
        assert time.monotonic() < deadline, "a jailed process lives on"
        await asyncio.sleep(0.01)


async def test_a_timeout_and_a_cancellation_leave_nothing(jails: Jails) -> None:
    before = descriptors()
    with pytest.raises(InternalError, match=r"breakout did not end within 0 s"):
        await run(jails.spec("hold"), jails.launcher, timeout=0.4)
    assert not jails.processes()
    for delay in (0, 0.001, 0.005, 0.01, 0.05, 0.2):
        task = asyncio.create_task(run(jails.spec("hold"), jails.launcher, timeout=20))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _gone(jails)
    assert descriptors() == before


async def test_an_exit_status_a_signal_and_long_output_come_back(jails: Jails) -> None:
    assert (await run(jails.spec("euid"), jails.launcher, timeout=20)).returncode == (
        jails.uid & 0x7F
    )
    cut = await run(jails.spec("0"), jails.launcher, timeout=60, limit=10)
    assert len(cut.stdout) == 10
    task = asyncio.create_task(run(jails.spec("hold"), jails.launcher, timeout=20))
    while not (pids := jails.processes()):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    os.kill(pids[0], signal.SIGTERM)
    os.kill(pids[0], signal.SIGKILL)
    assert (await task).returncode == 128 + signal.SIGKILL


async def test_a_wall_that_cannot_be_built_is_one_sentence_and_nothing_is_left(
    jails: Jails, folder: Path
) -> None:
    spec = jails.spec("hold")
    cases = {
        "root /none/x: No such file or directory": replace(spec, root=Path("/none/x")),
        "exec /none: No such file or directory": replace(spec, argv=("/none",)),
        "exec /ro/file: Permission denied": replace(spec, argv=("/ro/file",)),
        "a jail without a uid of its own needs --caps": replace(spec, uid=0),
        "number out of range after --uid": replace(spec, uid=1 << 32),
        "not a number: -1": replace(spec, uid=-1),
        "network namespace /none/net: No such file": replace(spec, netns=Path("/none/net")),
        "write /none/cg/cgroup.procs: No such file": replace(spec, cgroups=(Path("/none/cg"),)),
        "bind source /none/src: No such file": replace(
            spec, binds=(Bind(source=Path("/none/src"), target="/ro"),)
        ),
        "mount point none: Read-only file system": replace(
            spec, binds=(Bind(source=folder, target="/none"),)
        ),
        "mount /tmp: Invalid argument": replace(spec, tmpfs=(Tmpfs(target="/tmp", size=-5),)),
        "device /dev/none: No such file": replace(spec, devices=("/dev/none",)),
        "not a character device: /dev": replace(spec, devices=("/dev",)),
        "descriptor to keep: Bad file descriptor": replace(spec, fds={3: 999_999}),
        "number out of range after --fd": replace(spec, fds={256: 1}),
        "number out of range after --limit": replace(spec, limits={99: 1}),
        "too many of --device": replace(spec, devices=("/dev/null",) * 17),
    }
    before = descriptors()
    for words, bad in cases.items():
        for how in (launch(bad, jails.launcher), run(bad, jails.launcher, timeout=20)):
            if "to keep" in words:
                how.close()
                continue
            with pytest.raises(InternalError) as caught:
                await how
            assert caught.value.message.startswith("the jail of "), caught.value.message
            assert words in caught.value.message
    assert descriptors() == before
    assert not jails.processes()


async def test_a_launcher_that_is_missing_is_told(jails: Jails) -> None:
    before = descriptors()
    for how in (
        launch(jails.spec("hold"), Path("/none/jail")),
        run(jails.spec("hold"), Path("/none/jail"), timeout=20),
    ):
        with pytest.raises(InternalError, match="is the kit complete"):
            await how
    assert descriptors() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no program to run after --"),
        (["--"], "no program to run after --"),
        (["--", "/breakout"], "missing option --root"),
        (["--root"], "a value is missing after --root"),
        (["--nonsense", "--", "x"], "unknown option --nonsense"),
        (["--root", "/", "--uid", "5x", "--", "x"], "not a number: 5x"),
        (["--root", "/", "--uid", "", "--", "x"], "not a number: "),
        (
            ["--root", "/", "--bind", "/", "/", "rx", "--", "x"],
            "a bind is ro, ro-top or rw, not rx",
        ),
        (["--root", "/", "--uid", "9", "--filter", "/dev/null", "--", "x"], "not a system call"),
        (["--root", "/", "--limit", "7", "99999999999999999999", "--", "x"], "not a number"),
    ],
)
def test_bad_options_end_the_launcher(built: Path, options: list[str], words: str) -> None:
    done = subprocess.run([built / "jail", *options], capture_output=True, check=False, timeout=20)
    # What the jailed process says comes after its pid.
    assert f"error: {words}" in done.stderr.decode()
    assert done.returncode in (0, 1)


async def test_a_filter_of_nonsense_is_refused_by_the_kernel(built: Path, jails: Jails) -> None:
    (jails.folder / "bad").write_bytes(b"\xff" * 16)
    done = subprocess.run(
        [built / "jail", "--root", jails.root, "--uid", "9", "--gid", "9", "--filter",
         jails.folder / "bad", "--wait", "--", "/breakout", "euid"],
        capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert b"error: seccomp filter: Invalid argument" in done.stderr
    assert done.returncode == 1


async def test_a_hundred_launches_leak_nothing(jails: Jails) -> None:
    before = descriptors()
    for _ in range(100):
        process = await launch(jails.spec("hold"), jails.launcher)
        await process.kill()
        process.close()
    assert descriptors() == before
    await _gone(jails)


async def test_memory_of_a_machine_may_be_executed_and_no_other(jails: Jails) -> None:
    shm = Tmpfs(target="/tmp", size=4 << 20, executable=True)
    process = await jails.hold(tmpfs=(shm,))
    lines = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
    options = {line.split()[4]: line.split()[5] for line in lines}
    assert "noexec" not in options["/tmp"]
    assert "noexec" in options["/dev"]
