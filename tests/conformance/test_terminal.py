"""An editor's way with containers: terminals that change size, files both ways, forwarded ports."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host

BOUND = 60.0


class Terminal:
    """The docker CLI on a terminal of its own, with what it has written so far."""

    def __init__(self, host: Host, *words: str, rows: int = 24, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)  # nothing is echoed by this side
        self._size(slave, rows, columns)
        self.process = subprocess.Popen(
            [DOCKER, "-H", host.url, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={"PATH": os.environ["PATH"], "HOME": str(host.root), "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = b""

    @staticmethod
    def _size(descriptor: int, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)

    def resize(self, rows: int, columns: int) -> None:
        """Make the window another size, and tell the CLI, which may just not have listened."""
        self._size(self._master, rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def until(self, word: bytes) -> bytes:
        """Read until *word* has come; return all up to its end and forget it."""
        end = time.monotonic() + BOUND
        while word not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self._master], [], [], 1)[0]:
                try:
                    self.seen += os.read(self._master, 65536)
                except OSError:  # the other side is closed
                    raise AssertionError(self.seen) from None
        found, _, self.seen = self.seen.partition(word)
        return found + word

    def end(self) -> int:
        """Wait for the CLI's end; return its code."""
        end = time.monotonic() + BOUND
        with contextlib.suppress(OSError):
            while self.process.poll() is None:
                assert time.monotonic() < end, self.seen
                if select.select([self._master], [], [], 0.1)[0]:
                    self.seen += os.read(self._master, 65536)
        return self.process.wait(BOUND)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextlib.contextmanager
def terminal(host: Host, *words: str) -> Iterator[Terminal]:
    opened = Terminal(host, *words)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def workspace(host: Host, tmp_path: Path) -> Path:
    """A folder that container ``dev`` has as /work, with port 80 forwarded."""
    (tmp_path / "index.html").write_text("first\n")
    host.docker("run", "-d", "--name", "dev", "-v", f"{tmp_path}:/work", "-w", "/work", "-p",
                "127.0.0.1:18090:80", "-l", "devcontainer=1", "busybox", "sh", "-c",
                "httpd -p 80 -h /work; exec sleep 600")  # fmt: skip
    return tmp_path


def test_a_shell_in_a_container_follows_the_size_of_its_window(host: Host, workspace: Path) -> None:
    with terminal(host, "exec", "-it", "-e", "PS1=ready: ", "-w", "/work", "dev", "sh") as shell:
        shell.until(b"ready: ")
        for rows, columns in ((24, 80), (50, 132), (10, 40)):
            end = time.monotonic() + BOUND
            while True:  # the size is told on its own way, beside what is typed
                shell.resize(rows, columns)
                shell.type(b"stty size\r")
                if f"{rows} {columns}".encode() in shell.until(b"ready: "):
                    break
                assert time.monotonic() < end
        shell.type(b"echo $((6 * 7)).; sleep 100\r")
        shell.until(b"42.")
        shell.type(b"\x03")
        shell.until(b"ready: ")
        shell.type("echo \u00fc > caf\u00e9\r".encode())
        shell.until(b"ready: ")
        shell.type(b"exit 7\r")
        assert shell.end() == 7
    assert (workspace / "caf\u00e9").read_text() == "\u00fc\n"


def test_a_container_of_a_terminal_is_left_and_found_again(host: Host) -> None:
    with terminal(host, "run", "-it", "--name", "tty", "-e", "PS1=ready: ", "busybox") as first:
        first.until(b"ready: ")
        first.type(b"kept=yes\r")
        first.until(b"ready: ")
        first.type(b"\x10\x11")  # ctrl-p ctrl-q
        assert first.end() == 0
    assert host.docker("inspect", "-f", "{{.State.Running}}", "tty").out == "true\n"
    with terminal(host, "attach", "--detach-keys", "ctrl-x,q", "tty") as second:
        second.type(b"echo $kept.\r")
        second.until(b"yes.")
        second.type(b"\x18q")
        second.end()
    with terminal(host, "attach", "tty") as third:
        third.type(b"exit 5\r")
        assert third.end() == 5
    assert "yes." in host.docker("logs", "tty").out


def test_files_go_both_ways_and_ports_lead_inside(host: Host, workspace: Path) -> None:
    fetch = ("busybox", "wget", "-qO-", "http://127.0.0.1:18090/")
    end = time.monotonic() + BOUND
    while host.inside(*fetch).code:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert host.inside(*fetch).out == "first\n"
    (workspace / "index.html").write_text("edited\n")  # an edit is seen at once
    assert host.inside(*fetch).out == "edited\n"
    host.docker("exec", "dev", "sh", "-c", "mkdir out; echo made > out/file; chmod 600 out/file")
    assert (workspace / "out" / "file").read_text() == "made\n"
    server = workspace / "server.sh"
    server.write_text("#!/bin/sh\necho pid $$\nexec sleep 60\n")
    server.chmod(0o755)
    host.docker("cp", str(server), "dev:/tmp/")
    host.docker("exec", "-d", "dev", "sh", "-c", "exec /tmp/server.sh > /tmp/log")
    while not (log := host.docker("exec", "dev", "cat", "/tmp/log", check=False).out):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert log.startswith("pid ")
    assert "sleep 60" in host.docker("top", "dev").out
    host.docker("cp", "dev:/tmp/log", str(workspace / "log"))
    assert (workspace / "log").read_text() == log
    assert host.docker("port", "dev").out == "80/tcp -> 127.0.0.1:18090\n"
    found = host.docker("ps", "--filter", "label=devcontainer=1", "--format", "{{.Names}}")
    assert found.out == "dev\n"
    host.docker("restart", "-t", "0", "dev")
    while host.inside(*fetch).code:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert host.inside(*fetch).out == "edited\n"
