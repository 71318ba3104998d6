"""Log drivers with a daemon: a syslog server gets each line, ``docker logs`` still reads them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hyperstack.engine.logging.journald import SOCKET
from tests.framework.host import Host

SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 5514))
print("ready", flush=True)
while True:
    print(server.recv(65536).decode().rstrip(), flush=True)
"""


@contextlib.contextmanager
def _server(host: Host, path: Path) -> Iterator[Path]:
    """Give the file into which a server of UDP in the daemon's network writes what it gets."""
    with path.open("wb") as out:
        command = [*host.netns.enter, sys.executable, "-c", SERVER]
        process = subprocess.Popen(command, stdout=out)
    try:
        _wait_for(path, "ready")
        yield path
    finally:
        process.kill()
        process.wait()


def _wait_for(path: Path, word: str) -> list[str]:
    for _ in range(200):
        if word in (text := path.read_text()):
            return text.splitlines()[1:]
        time.sleep(0.05)
    raise AssertionError(f"{word!r} did not come: {path.read_text()!r}")


def test_syslog_gets_each_line_once_though_the_daemon_is_killed(host: Host, tmp_path: Path) -> None:
    options = {"syslog-address": "udp://127.0.0.1:5514", "tag": "{{.Name}}", "syslog-facility": "1"}
    flags = [word for key, value in options.items() for word in ("--log-opt", f"{key}={value}")]
    script = "echo one; echo two >&2; sleep 2; echo three; echo last"
    with _server(host, tmp_path / "got") as got:
        host.docker(
            "run", "-d", "--name", "sy", "--log-driver", "syslog", *flags, "busybox", "sh", "-c",
            script,
        )  # fmt: skip
        _wait_for(got, "two")
        host.kill()
        host.start()
        lines = _wait_for(got, "last")
    assert sorted((line[:4], line.split(": ")[1]) for line in lines) == [
        ("<11>", "two"), ("<14>", "last"), ("<14>", "one"), ("<14>", "three"),
    ]  # fmt: skip
    assert all(" sy[" in line for line in lines)
    assert host.docker("logs", "sy").out == "one\nthree\nlast\n"
    assert host.docker("inspect", "-f", "{{.LogPath}}", "sy").out == "\n"


def test_a_driver_that_cannot_start_fails_the_start_in_dockers_words(host: Host) -> None:
    prefix = "failed to create task for container: failed to initialize logging driver: "
    without = {} if SOCKET.exists() else {"journald": "journald is not enabled on this host"}
    for driver, options, words in (
        *((driver, {}, words) for driver, words in without.items()),
        (
            "syslog",
            {"syslog-address": "tcp://127.0.0.1:1"},
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            "syslog",
            {"syslog-address": "tcp+tls://127.0.0.1:1", "syslog-tls-ca-cert": "/nosuch"},
            'could not read CA certificate "/nosuch": open /nosuch: no such file or directory',
        ),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
    ):
        flags = [word for key, value in options.items() for word in ("--log-opt", f"{key}={value}")]
        refused = host.docker(
            "run", "--rm", "--log-driver", driver, *flags, "busybox", "true", check=False
        )
        assert refused.code == (127 if "no such file" in words else 125)
        assert prefix + words in refused.err


def test_a_container_without_a_log_has_none_to_read(host: Host) -> None:
    for flags in (
        ["none"],
        [
            "syslog",
            "--log-opt",
            "syslog-address=udp://127.0.0.1:9",
            "--log-opt",
            "cache-disabled=true",
        ],
    ):
        host.docker("run", "--name", "nn", "--log-driver", *flags, "busybox", "echo", "x")
        refused = host.docker("logs", "nn", check=False)
        assert "configured logging driver does not support reading" in refused.err
        host.docker("rm", "nn")
