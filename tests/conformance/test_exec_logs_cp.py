"""``exec``, ``logs``, ``cp``, ``diff``, ``export``, ``commit``."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

from tests.conformance.raw import ask
from tests.framework.host import Host


def test_exec_runs_beside_and_returns_its_code(host: Host) -> None:
    host.docker("run", "-d", "--name", "xx", "-e", "V=1", "busybox", "sleep", "60")
    assert host.docker("exec", "xx", "sh", "-c", "echo $V; echo e >&2").out == "1\n"
    assert host.docker("exec", "xx", "sh", "-c", "exit 5", check=False).code == 5
    assert host.docker("exec", "xx", "nothing", check=False).code == 127
    assert host.docker("exec", "-i", "xx", "cat", stdin=b"in").out == "in"
    assert (
        host.docker(
            "exec", "-u", "1000", "-w", "/tmp", "-e", "V=2", "xx", "sh", "-c", "id -u; pwd; echo $V"
        ).out
        == "1000\n/tmp\n2\n"
    )
    assert host.docker("exec", "-t", "xx", "tty").out.startswith("/dev/pts/")


def test_exec_needs_a_running_container(host: Host) -> None:
    host.docker("create", "--name", "idle", "busybox", "true")
    refused = host.docker("exec", "idle", "true", check=False)
    assert "is not running" in refused.err


def test_logs_with_tail_timestamps_and_follow(host: Host) -> None:
    host.docker(
        "run",
        "--name",
        "ll",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2",
    )
    assert host.docker("logs", "ll").out == "".join(f"line {i}\n" for i in range(1, 6))
    assert host.docker("logs", "ll").err == "bad\n"
    assert host.docker("logs", "--tail", "2", "ll").out == "line 5\n"
    stamped = host.docker("logs", "-t", "--tail", "3", "ll").out.splitlines()[0]
    assert stamped.split()[0].endswith("Z")
    host.docker(
        "run",
        "-d",
        "--name",
        "ff",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i; sleep 0.2; done",
    )
    assert host.docker("logs", "-f", "ff").out == "1\n2\n3\n"


def test_log_rotation_keeps_what_it_should(host: Host) -> None:
    host.docker(
        "run",
        "--name",
        "rot",
        "--log-opt",
        "max-size=10k",
        "--log-opt",
        "max-file=2",
        "busybox",
        "sh",
        "-c",
        "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done",
    )
    lines = host.docker("logs", "rot").out.split()
    assert lines[-1] == "1999"
    assert 10 < len(lines) < 1000


def test_cp_both_ways_running_and_stopped(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("from the host\n")
    host.docker("run", "-d", "--name", "cc", "busybox", "sleep", "60")
    for state in ("running", "stopped"):
        host.docker("cp", str(source), f"cc:/tmp/{state}.txt")
        target = tmp_path / f"{state}.out"
        host.docker("cp", f"cc:/tmp/{state}.txt", str(target))
        assert target.read_text() == "from the host\n"
        host.docker("stop", "-t", "0", "cc")
    folder = tmp_path / "tree"
    host.docker("cp", "cc:/etc", str(folder))
    assert (folder / "passwd").exists()
    missing = host.docker("cp", "cc:/no/such", str(tmp_path), check=False)
    # The CLI of 20.10 words a 404 by itself.
    assert (
        "Could not find the file /no/such in container" in missing.err
        or "No such container:path: cc:/no/such" in missing.err
    )


def test_diff_and_export_show_the_changes(host: Host) -> None:
    host.docker(
        "run",
        "--name",
        "dd",
        "busybox",
        "sh",
        "-c",
        "echo x > /new; rm /etc/group; echo y >> /etc/passwd",
    )
    out = host.docker("diff", "dd").out.splitlines()
    assert "A /new" in out
    assert "D /etc/group" in out
    assert "C /etc/passwd" in out


def test_export_is_a_tar_of_the_root(host: Host, tmp_path: Path) -> None:
    host.docker("create", "--name", "ex", "busybox", "true")
    target = tmp_path / "root.tar"
    host.docker("export", "-o", str(target), "ex")
    with tarfile.open(fileobj=io.BytesIO(target.read_bytes())) as tar:
        assert "bin/busybox" in tar.getnames()


def test_commit_makes_an_image_that_runs(host: Host) -> None:
    host.docker("run", "--name", "base", "busybox", "sh", "-c", "echo kept > /kept; rm /etc/group")
    host.docker("commit", "-c", 'CMD ["cat", "/kept"]', "base", "derived:1")
    assert host.docker("run", "--rm", "derived:1").out == "kept\n"
    assert (
        host.docker("run", "--rm", "derived:1", "ls", "/etc").out == "hostname\nhosts\nmtab\n"
        "passwd\nresolv.conf\n"
    )
    host.docker("rmi", "-f", "derived:1")


def test_the_daemon_may_die_and_nothing_is_lost(host: Host) -> None:
    host.docker(
        "run",
        "-d",
        "--name",
        "tick",
        "busybox",
        "sh",
        "-c",
        "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 6",
    )
    for _ in range(3):
        time.sleep(0.4)
        host.kill()
        time.sleep(0.2)
        host.start()
    assert host.docker("wait", "tick").out == "6\n"
    assert host.docker("logs", "tick").out.split() == [str(i) for i in range(400)]


def test_an_exec_answers_in_each_state_as_dockerd_28(host: Host) -> None:
    host.docker("run", "-d", "--name", "xs", "busybox", "sleep", "60")
    keys = {"Cmd": ["true"], "DetachKeys": "a,b"}
    status, made = ask(host, "POST", "/containers/xs/exec", keys)
    assert status == 201
    exec_id = made["Id"]
    assert ask(host, "GET", "/containers/xs/json")[1]["ExecIDs"] == [exec_id]
    assert ask(host, "GET", f"/exec/{exec_id}/json")[1]["DetachKeys"] == "YWI="
    assert ask(host, "POST", f"/exec/{exec_id}/start", {"Detach": True})[0] == 200
    for _ in range(100):
        if not ask(host, "GET", f"/exec/{exec_id}/json")[1]["Running"]:
            break
        time.sleep(0.05)
    gone = {"message": f"NotFound: process does not exist {exec_id}: not found"}
    assert ask(host, "POST", f"/exec/{exec_id}/resize?h=1&w=1") == (404, gone)
    again = {"message": f"exec command {exec_id} has already run"}
    assert ask(host, "POST", f"/exec/{exec_id}/start", {"Detach": True}) == (409, again)
    assert ask(host, "GET", "/containers/xs/json")[1]["ExecIDs"] is None
    _, later = ask(host, "POST", "/containers/xs/exec", {"Cmd": ["sleep", "60"]})
    ask(host, "POST", f"/exec/{later['Id']}/start", {"Detach": True})
    assert ask(host, "POST", f"/exec/{later['Id']}/resize?h=1&w=1")[0] == 200


def test_a_user_that_is_not_there_is_refused_before_anything_runs(host: Host) -> None:
    host.docker("run", "-d", "--name", "xu", "busybox", "sleep", "60")
    for user, words in (
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("0:nosuch", "unable to find group nosuch: no matching entries in group file"),
    ):
        asked = ask(host, "POST", "/containers/xu/exec", {"Cmd": ["true"], "User": user})
        assert asked == (400, {"message": words})
    assert host.docker("exec", "-w", "rel", "xu", "true", check=False).code == 128
    assert host.docker("exec", "-w", "/nope", "xu", "true", check=False).code == 127
    assert host.docker("exec", "-u", "0:0", "xu", "id", "-u").out == "0\n"


def test_attaching_to_what_cannot_be_attached_to_is_said_in_plain_text(host: Host) -> None:
    host.docker("run", "-d", "--name", "pp", "busybox", "sleep", "60")
    host.docker("pause", "pp")
    for name, status, words in (
        ("pp", 409, b"container pp is paused, unpause the container before attach\r\n"),
        ("nosuch", 404, b"No such container: nosuch\r\n"),
    ):
        assert ask(host, "POST", f"/containers/{name}/attach?stream=1") == (status, words)
    bad = ask(host, "POST", "/containers/pp/attach?stream=1&detachKeys=ctrl-!")
    assert bad == (400, b"Invalid detach keys (ctrl-!) provided\r\n")
