"""A daemon under test: with roots and a network namespace of its own, the real CLI beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KIT_DIR = Path(os.environ.get("HYPER_KIT_DIR", "/var/lib/hyper/kit"))
DOCKER = os.environ.get("HYPER_TEST_DOCKER", "docker")
START_BOUND = 60.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command left: exit code, text of stdout and stderr."""

    code: int
    out: str
    err: str


class NetworkNamespace:
    """A network namespace with loopback up, held by a sleeping process and named by its path."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--",
                "sh",
                "-c",
                "ip link set lo up && echo up && exec sleep infinity",
            ],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            raise RuntimeError("no network namespace could be made")
        self._holder.stdout.close()

    @property
    def enter(self) -> list[str]:
        """The words that put a command into the namespace."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]

    def close(self) -> None:
        """Let the namespace go."""
        self._holder.kill()
        self._holder.wait()


def _short_folder() -> Path:
    """Make a folder with a short name where ``./check`` keeps what a run leaves."""
    folder = Path(tempfile.mkdtemp(prefix="x", dir=os.environ.get("HYPER_CHECK_RUN")))
    folder.chmod(0o710)
    return folder


@dataclass
class Host:
    """One daemon and the ways to talk to it."""

    root: Path
    netns: NetworkNamespace
    number: int = 0
    flags: list[str] = field(default_factory=list)
    before: tuple[str, ...] = ()
    """Words in front of the daemon's command line."""
    process: subprocess.Popen[bytes] | None = None
    exec_root: Path = field(default_factory=_short_folder)
    """Apart from ``root``: the names of sockets below it have to be short (unix(7))."""

    @property
    def socket(self) -> Path:
        return self.root / "hyper.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "hyperd.log"

    def argv(self) -> list[str]:
        """The daemon's command line."""
        hyperd = Path(sys.executable).with_name("hyperd")
        return [
            *self.netns.enter,
            *self.before,
            str(hyperd),
            "--data-root",
            str(self.data_root),
            "--exec-root",
            str(self.exec_root),
            "--pidfile",
            str(self.root / "hyperd.pid"),
            "--kit-dir",
            str(KIT_DIR),
            "--uid-base",
            str(700_000 + 70_000 * self.number),
            "-H",
            self.url,
            *self.flags,
        ]

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        bound = time.monotonic() + START_BOUND
        while not self.ping():
            if self.process.poll() is not None or time.monotonic() > bound:
                raise RuntimeError(f"hyperd did not come up:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def ping(self) -> bool:
        """Tell whether the daemon answers."""
        import socket

        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(5)
            try:
                sock.connect(str(self.socket))
                sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
                return sock.recv(64).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

    def stop(self) -> None:
        """Ask the daemon to end; its sandboxes go on."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            finally:
                self.process.kill()
                self.process.wait()
            self.process = None

    def kill(self) -> None:
        """kill -9 the daemon."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def docker(
        self,
        *args: str,
        stdin: bytes | None = None,
        timeout: float = 120.0,
        check: bool = True,
    ) -> Result:
        """Run the real docker CLI against the daemon."""
        done = subprocess.run(
            [DOCKER, "-H", self.url, *args],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8"},
        )
        result = Result(
            code=done.returncode,
            out=done.stdout.decode(errors="replace"),
            err=done.stderr.decode(errors="replace"),
        )
        if check and result.code:
            raise AssertionError(
                f"docker {' '.join(args)} -> {result.code}\n{result.out}\n{result.err}\n"
                f"--- hyperd\n{self.log.read_text()[-3000:]}"
            )
        return result

    def inside(self, *argv: str, timeout: float = 60.0) -> Result:
        """Run a program in the daemon's network namespace."""
        done = subprocess.run(
            [*self.netns.enter, *argv],
            capture_output=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        return Result(
            code=done.returncode,
            out=done.stdout.decode(errors="replace"),
            err=done.stderr.decode(errors="replace"),
        )

    def remove_everything(self) -> None:
        """Remove all containers, so that the next test finds none."""
        ids = self.docker("ps", "-aq").out.split()
        if ids:
            self.docker("rm", "-f", "-v", *ids)

    def close(self) -> None:
        """End the daemon and all that it ran."""
        if self.process is not None and self.ping():
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.remove_everything()
        clean = self.process is not None and self.process.poll() is None
        self.stop()
        if not clean:
            self._sweep()
        self.netns.close()
        for folder in (self.root, self.exec_root):
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Clear away what a daemon that did not come up again left, so that other tests go on."""
        base = 700_000 + 70_000 * self.number
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if base <= entry.stat().st_uid < base + 70_000:
                    os.kill(int(entry.name), signal.SIGKILL)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount = line.split()[4]
            if mount.startswith((f"{self.root}/", f"{self.exec_root}/")):
                subprocess.run(["umount", "-l", mount], check=False)


@contextlib.contextmanager
def running_host(
    root: Path, number: int = 0, flags: Sequence[str] = (), before: tuple[str, ...] = ()
) -> Iterator[Host]:
    """Give a daemon that answers, and end it and everything of it afterwards."""
    root.mkdir(parents=True, exist_ok=True)
    host = Host(
        root=root, netns=NetworkNamespace(), number=number, flags=list(flags), before=before
    )
    try:
        host.start()
        yield host
    finally:
        host.close()
