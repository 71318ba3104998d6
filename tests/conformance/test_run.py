"""``docker run`` as a person uses it: output, exit codes, environment, users, limits."""

from __future__ import annotations

import json
import platform

import pytest

from tests.framework.host import Host


def test_a_container_runs_in_a_kernel_of_its_own(host: Host) -> None:
    release = host.docker("run", "--rm", "busybox", "uname", "-r").out.strip()
    assert release
    assert release != platform.release()


def test_stdout_and_stderr_stay_apart(host: Host) -> None:
    result = host.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["/no/such/program"], 127),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["/tmp"], 126),
    ],
)
def test_exit_codes_are_dockers(host: Host, command: list[str], code: int) -> None:
    # PID 1 ignores signals without a handler, as everywhere; --init gives it a parent.
    init = ["--init"] if "kill" in " ".join(command) else []
    if command == ["/tmp"] and " 20." in host.docker("--version").out:
        pytest.skip("this CLI does not know the sentence of newer runc")
    assert host.docker("run", "--rm", *init, "busybox", *command, check=False).code == code


def test_a_missing_program_is_named_in_the_error(host: Host) -> None:
    result = host.docker("run", "--rm", "busybox", "no-such-program", check=False)
    assert 'exec: "no-such-program": executable file not found in $PATH' in result.err


def test_a_missing_image_is_a_clear_error_with_125(host: Host) -> None:
    result = host.docker("run", "--rm", "--pull", "never", "nothing-here:1", check=False)
    assert result.code == 125
    assert "No such image: nothing-here:1" in result.err


def test_an_unknown_runtime_is_refused(host: Host) -> None:
    result = host.docker("run", "--rm", "--runtime", "runq", "busybox", "true", check=False)
    assert result.code == 125
    assert "unknown or invalid runtime name: runq" in result.err


def test_stdin_reaches_the_container_and_its_end_too(host: Host) -> None:
    result = host.docker(
        "run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", stdin=b"hello\n"
    )
    assert result.out == "hello\nend\n"


def test_a_megabyte_comes_back_unchanged(host: Host) -> None:
    data = bytes(range(32, 127)) * 11037
    result = host.docker("run", "--rm", "-i", "busybox", "cat", stdin=data)
    assert result.out.encode() == data


def test_environment_workdir_hostname_and_user(host: Host) -> None:
    result = host.docker(
        "run",
        "--rm",
        "-e",
        "A=b c",
        "-w",
        "/var/lib",
        "-h",
        "box",
        "-u",
        "user:users",
        "busybox",
        "sh",
        "-c",
        'echo "$A|$(pwd)|$(hostname)|$(id -u):$(id -g)|$HOME"',
    )
    assert result.out == "b c|/var/lib|box|1000:100|/home\n"


def test_an_unknown_user_is_named(host: Host) -> None:
    result = host.docker("run", "--rm", "-u", "ghost", "busybox", "true", check=False)
    assert result.code == 125 or result.code == 126
    assert "unable to find user ghost: no matching entries in passwd file" in result.err


def test_a_terminal_is_one(host: Host) -> None:
    result = host.docker("run", "--rm", "-t", "busybox", "sh", "-c", "test -t 1 && stty size")
    assert result.out.strip()


def test_the_default_capabilities_are_dockers(host: Host) -> None:
    out = host.docker("run", "--rm", "busybox", "grep", "Cap", "/proc/self/status").out
    caps = dict(line.split(":\t") for line in out.strip().split("\n"))
    assert caps["CapBnd"] == "00000000a80425fb"
    assert caps["CapEff"] == "00000000a80425fb"
    assert caps["CapAmb"] == "0000000000000000"


def test_capabilities_can_be_added_and_dropped(host: Host) -> None:
    out = host.docker(
        "run",
        "--rm",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_ADMIN",
        "busybox",
        "grep",
        "CapEff",
        "/proc/self/status",
    ).out
    assert out.split()[1] == "0000000000001000"


def test_seccomp_is_on_by_default_and_can_be_lifted(host: Host) -> None:
    query = ["busybox", "grep", "Seccomp:", "/proc/self/status"]
    assert host.docker("run", "--rm", *query).out.split()[1] == "2"
    unconfined = host.docker("run", "--rm", "--security-opt", "seccomp=unconfined", *query)
    assert unconfined.out.split()[1] == "0"


def test_a_read_only_root_is_one_and_tmpfs_is_writable(host: Host) -> None:
    result = host.docker(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m,mode=1777",
        "busybox",
        "sh",
        "-c",
        "touch /x 2>&1; touch /scratch/y && df -k /scratch | tail -1",
    )
    assert "Read-only file system" in result.out
    assert " 1024 " in result.out


def test_proc_and_sys_are_masked(host: Host) -> None:
    out = host.docker(
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo x > /proc/sys/kernel/hostname; cat /proc/kcore | wc -c; touch /sys/x",
        check=False,
    )
    assert "Read-only file system" in out.err
    assert out.out.strip() == "0"


def test_memory_limit_is_enforced_and_oom_is_told(host: Host) -> None:
    host.docker(
        "run",
        "--name",
        "hog",
        "-m",
        "32m",
        "busybox",
        "sh",
        "-c",
        "x=a; while true; do x=$x$x; done",
        check=False,
    )
    state = json.loads(host.docker("inspect", "hog").out)[0]["State"]
    assert state["ExitCode"] == 137
    assert state["OOMKilled"] is True


def test_the_pids_limit_is_enforced(host: Host) -> None:
    result = host.docker(
        "run",
        "--rm",
        "--pids-limit",
        "5",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8; do sleep 2 & done; wait",
        check=False,
    )
    assert "can't fork" in result.err


def test_ulimits_arrive(host: Host) -> None:
    result = host.docker(
        "run", "--rm", "--ulimit", "nofile=123:456", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"
    )
    assert result.out.split() == ["123", "456"]


def test_init_reaps_and_forwards(host: Host) -> None:
    result = host.docker("run", "--rm", "--init", "busybox", "sh", "-c", "echo $$")
    assert result.out.strip() != "1"


def test_labels_and_names_show_in_ps(host: Host) -> None:
    host.docker("run", "-d", "--name", "web", "--label", "tier=front", "busybox", "sleep", "60")
    rows = host.docker(
        "ps", "--filter", "label=tier=front", "--format", "{{.Names}} {{.Image}} {{.State}}"
    ).out
    assert rows == "web busybox running\n"


def test_a_name_can_be_used_once(host: Host) -> None:
    host.docker("create", "--name", "one", "busybox", "true")
    again = host.docker("create", "--name", "one", "busybox", "true", check=False)
    assert again.code == 1
    assert 'The container name "/one" is already in use by container' in again.err


def test_storage_size_is_what_was_asked(host: Host) -> None:
    out = host.docker(
        "run", "--rm", "--storage-opt", "size=200m", "busybox", "sh", "-c", "df -m / | tail -1"
    ).out
    assert 120 < int(out.split()[1]) <= 200


def test_sysctls_are_set(host: Host) -> None:
    out = host.docker(
        "run",
        "--rm",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "busybox",
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
    ).out
    assert out == "1\n"
