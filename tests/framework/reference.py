"""The reference: a real dockerd in a network namespace of its own, with containerd and runc."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, NetworkNamespace, Result

START_BOUND = 60.0


class Reference:
    """A running dockerd and the ways to talk to it, as those of ``Host``."""

    def __init__(self, root: Path, netns: NetworkNamespace, dockerd: str) -> None:
        self.socket = root / "s.sock"
        self._log = root / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*netns.enter, dockerd, "--data-root", f"{root}/data", "--exec-root",
                 f"{root}/exec", "--pidfile", f"{root}/pid", "-H", f"unix://{self.socket}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def wait(self) -> None:
        """Wait until it answers; skip the test, with its last words, if it never does."""
        bound = time.monotonic() + START_BOUND
        while self.docker("version", check=False).code:
            if self.process.poll() is not None or time.monotonic() > bound:
                words = self._log.read_text(errors="replace").strip().splitlines()
                pytest.skip(f"dockerd does not run here: {words[-1] if words else 'no word'}")
            time.sleep(0.2)

    def docker(self, *args: str, stdin: bytes = b"", check: bool = True) -> Result:
        """Run the docker CLI against it."""
        done = subprocess.run(
            [DOCKER, "-H", self.url, *args], input=stdin, capture_output=True, timeout=120
        )
        result = Result(
            code=done.returncode,
            out=done.stdout.decode(errors="replace"),
            err=done.stderr.decode(errors="replace"),
        )
        assert not (check and result.code), result
        return result

    def remove_everything(self) -> None:
        """Remove all containers and volumes."""
        if ids := self.docker("ps", "-aq").out.split():
            self.docker("rm", "-f", "-v", *ids)
        if names := self.docker("volume", "ls", "-q").out.split():
            self.docker("volume", "rm", *names)

    def close(self) -> None:
        """End it and what it ran."""
        if self.process.poll() is None:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.remove_everything()
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running_reference(root: Path) -> Iterator[Reference]:
    """Give a dockerd that answers; skips the test where there is none."""
    path = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
    dockerd = shutil.which("dockerd", path=path)
    if dockerd is None:
        pytest.skip("dockerd is not installed (Debian: docker.io): nothing to compare with")
    netns = NetworkNamespace()
    reference = Reference(root, netns, dockerd)
    try:
        reference.wait()
        yield reference
    finally:
        reference.close()
        netns.close()
