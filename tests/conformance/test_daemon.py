"""The daemon as an operator meets it: refusals to start, signals, TLS, restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conformance.raw import ask
from tests.framework.host import DOCKER, KIT_DIR, Host, running_host
from tests.framework.pki import make_pki

HYPERD = Path(sys.executable).with_name("hyperd")


def refused(*flags: str) -> str:
    """Start a daemon that must not start; return what it says."""
    done = subprocess.run(
        [HYPERD, "--kit-dir", str(KIT_DIR), *flags],
        capture_output=True, timeout=30, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("hyperd: ")]
    assert len(lines) == 1, done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    return lines[0]


def roots(folder: Path) -> list[str]:
    return [
        "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
        "-H", f"unix://{folder / 'hyper.sock'}",
    ]  # fmt: skip


def test_every_refusal_to_start_is_one_sentence(host: Host, tmp_path: Path) -> None:
    assert "used by another hyperd (PID " in refused("--data-root", str(host.data_root))
    taken = refused("--data-root", str(tmp_path / "data"), "-H", host.url)
    assert "another process listens there already" in taken
    pid = refused(*roots(tmp_path), "--pidfile", str(host.root / "hyperd.pid"))
    assert "is still running" in pid
    missing = refused(*roots(tmp_path), "--kit-dir", str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in missing
    assert "root privileges" in refused_without_root(tmp_path)
    assert "--allow-insecure-tcp" in refused(*roots(tmp_path), "-H", "tcp://127.0.0.1:2375")
    assert not (tmp_path / "hyper.sock").exists()


def refused_without_root(folder: Path) -> str:
    # What is imported later is imported before: an interpreter in /root can't be read by others.
    script = (
        "import os, sys, shutil\n"
        "from hyperstack.cli import daemon, options\n"
        "from hyperstack.cli.hyperd import main\n"
        "options.parse([])\n"
        "os.setuid(65534)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *roots(folder)],
        capture_output=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    return done.stderr.decode()


def test_a_restart_is_not_noticed_by_containers(host: Host) -> None:
    host.docker("run", "-d", "--name", "stays", "busybox", "sleep", "100")
    before = json.loads(host.docker("inspect", "stays").out)[0]["State"]
    host.stop()
    assert not host.socket.exists()
    assert not (host.root / "hyperd.pid").exists()
    host.start()
    after = json.loads(host.docker("inspect", "stays").out)[0]["State"]
    assert after == before
    assert host.docker("exec", "stays", "echo", "here").out == "here\n"


def test_hangup_reloads_what_can_be_reloaded(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"labels": ["a=b"]}')
    with running_host(tmp_path / "h", 3, ["--config-file", str(file)]) as other:
        assert ask(other, "GET", "/info")[1]["Labels"] == ["a=b"]
        pid = int((other.root / "hyperd.pid").read_text())
        file.write_text('{"labels": ["c=d"], "debug": true}')
        os.kill(pid, signal.SIGHUP)
        for _ in range(50):
            found = ask(other, "GET", "/info")[1]
            if found["Labels"] == ["c=d"]:
                break
            time.sleep(0.05)
        assert (found["Labels"], found["Debug"]) == (["c=d"], True)
        file.write_text('{"labels": [')
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.3)
        assert ask(other, "GET", "/info")[1]["Labels"] == ["c=d"]
        assert "the configuration was not reloaded" in other.log.read_text()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, and certificates of a server and a client, named as the CLI wants them."""
    return make_pki(tmp_path_factory.mktemp("pki"))


def test_the_cli_over_mutual_tls_gets_output_after_the_end_of_input(
    host: Host, pki: Path, tmp_path: Path
) -> None:
    flags = [
        "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", str(pki / "ca.pem"),
        "--tlscert", str(pki / "server-cert.pem"), "--tlskey", str(pki / "server-key.pem"),
    ]  # fmt: skip
    from tests.framework.images import busybox_tar

    with running_host(tmp_path / "h", 3, flags) as other:
        other.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        client = [
            *other.netns.enter, DOCKER, "-H", "tcp://127.0.0.1:2376", "--tlsverify",
            "--tlscacert", str(pki / "ca.pem"), "--tlscert", str(pki / "cert.pem"),
            "--tlskey", str(pki / "key.pem"),
        ]  # fmt: skip
        done = subprocess.run(
            [*client, "run", "--rm", "-i", "busybox", "sh", "-c", "cat; sleep 0.5; echo end"],
            input=b"in\n", capture_output=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"in\nend\n"), done.stderr
        plain = other.inside(DOCKER, "-H", "tcp://127.0.0.1:2376", "version")
        assert plain.code != 0


def test_sockets_that_systemd_opened_are_taken(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "given.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        script = (
            "import os, sys\n"
            "os.dup2(int(sys.argv[1]), 3)\nos.set_inheritable(3, True)\n"
            "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}\n"
            "os.execv(sys.argv[2], sys.argv[2:])\n"
        )
        child = subprocess.Popen(
            [*host.netns.enter, sys.executable, "-c", script, str(listening.fileno()), str(HYPERD),
             "--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "exec"),
             "--kit-dir", str(KIT_DIR), "--uid-base", "910000", "-H", "fd://"],
            pass_fds=[listening.fileno()], stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(str(path))
                client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
        finally:
            child.terminate()
            _, err = child.communicate(timeout=30)
        assert child.returncode == 0, err
        assert path.exists()
