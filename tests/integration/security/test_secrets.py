"""Passwords and environments: not in logs, not in arguments, not in files that others can read."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.raw import ask, connected
from tests.framework.host import Host, running_host
from tests.framework.images import busybox_tar


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Iterator[Host]:
    with running_host(
        tmp_path_factory.mktemp("secrets"), worker_number + 50, ["--debug"]
    ) as host:  # fmt: skip
        host.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        yield host


def _everywhere(secret: str) -> list[str]:
    """Return the processes in whose arguments or environment a secret stands."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        for name in ("cmdline", "environ", "comm"):
            with contextlib.suppress(OSError):
                if secret.encode() in (entry / name).read_bytes():
                    found.append(f"{entry.name} {name} {(entry / 'comm').read_text().strip()}")
    return found


def _readable_by_others(root: Path) -> list[Path]:
    """Return files that a user without rights could open by their path."""
    found = []
    for folder, names, files in os.walk(root):
        mode = Path(folder).stat().st_mode
        if not mode & 0o001:
            names.clear()
            continue
        for name in files:
            status = (Path(folder) / name).lstat()
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o004:
                found.append(Path(folder) / name)
    return found


def test_an_environment_is_nowhere_but_in_the_database_and_the_guest(daemon: Host) -> None:
    secret = secrets.token_hex(16)
    daemon.docker(
        *("run", "-d", "--name", "one", "--env-file", "/dev/stdin", "busybox", "sleep", "99"),
        stdin=f"PASSWORD={secret}".encode(),
    )
    daemon.docker("exec", "one", "true")
    assert secret not in daemon.log.read_text()
    assert _everywhere(secret) == []
    for path in _readable_by_others(daemon.root):
        assert secret.encode() not in path.read_bytes(), path
    daemon.docker("rm", "-f", "one")


def test_a_registrys_password_leaves_no_trace(daemon: Host) -> None:
    secret = secrets.token_hex(16)
    auth = {"username": "u", "password": secret, "serveraddress": "127.0.0.1:9"}
    status, answer = ask(daemon, "POST", "/auth", auth)
    assert status >= 400
    assert secret not in json.dumps(answer)
    header = base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()
    for broken in (header, header[:-7] + "!!!!", base64.b64encode(secret.encode()).decode()):
        with connected(daemon) as sock:
            sock.sendall(
                b"POST /images/create?fromImage=127.0.0.1:9/x&tag=y HTTP/1.1\r\nHost: d\r\n"
                b"Connection: close\r\nContent-Length: 0\r\nX-Registry-Auth: "
                + broken.encode() + b"\r\n\r\n"
            )  # fmt: skip
            text = b""
            while part := sock.recv(65536):
                text += part
        assert secret.encode() not in text
    said = daemon.log.read_text()
    assert secret not in said
    assert header[:40] not in said
    assert _everywhere(secret) == []
    for path in daemon.root.rglob("*"):
        if path.is_file() and not path.is_socket() and path.stat().st_size < 64 << 20:
            assert secret.encode() not in path.read_bytes(), path


def test_what_others_can_read_holds_no_secret(daemon: Host) -> None:
    daemon.docker("run", "-d", "--name", "two", "-v", "vol:/v", "busybox", "sleep", "99")
    daemon.docker("exec", "two", "sh", "-c", "echo secret > /v/file; chmod 666 /v/file; echo out")
    assert _readable_by_others(daemon.data_root) == [], "other users of the host can open these"
    mode = stat.S_IMODE(daemon.data_root.stat().st_mode)
    assert mode & 0o007 == 0
    for name in ("hyper.db", "hyper.db-wal", "hyper.db-shm"):
        assert stat.S_IMODE((daemon.data_root / name).stat().st_mode) == 0o600, name
    for path in (daemon.data_root / "containers").rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o007 == 0, path
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
    assert daemon.socket.stat().st_uid == 0
    for path in (daemon.exec_root / "sandboxes").glob("*/*"):
        assert path.lstat().st_mode & 0o077 == 0 or path.name.startswith("ports-"), path
    daemon.docker("rm", "-f", "two")
    daemon.docker("volume", "rm", "vol")


def test_a_database_of_an_older_daemon_is_closed_to_others(daemon: Host) -> None:
    daemon.stop()
    for name in ("hyper.db", "hyper.db-wal", "hyper.db-shm"):
        with contextlib.suppress(FileNotFoundError):
            (daemon.data_root / name).chmod(0o644)
    daemon.start()
    for name in ("hyper.db", "hyper.db-wal", "hyper.db-shm"):
        assert stat.S_IMODE((daemon.data_root / name).stat().st_mode) == 0o600, name
