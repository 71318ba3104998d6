"""What a case works on: the daemon under test and, if asked for, a real dockerd beside it."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import ended, own_cpu
from tests.framework.host import DOCKER, Host, NetworkNamespace
from tests.framework.images import busybox_tar

IMAGE = "busybox"
IDLE = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done")
LINE = b"%09d the quick brown fox jumps over the lazy dog, and then it goes on to bed..."
LINES = 400_000
"""Lines in the image's ``/lines``, 80 bytes each: 32 MB."""
DOCKERD = Path("/usr/sbin/dockerd")
START_BOUND = 60.0


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A dockerd that the same clients can talk to."""

    url: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A daemon with the image ``busybox``."""

    host: Host
    reference: Reference | None = None

    def cpu(self) -> float:
        """Return the CPU seconds that the daemon, its machines and their clients have used."""
        assert self.host.process is not None
        base = 700_000 + 70_000 * self.host.number
        return own_cpu(self.host.process.pid, range(base, base + 70_000))

    def spawn(self, *words: str, url: str = "") -> subprocess.Popen[bytes]:
        """Start a docker CLI whose output goes nowhere."""
        return subprocess.Popen(
            [DOCKER, "-H", url or self.host.url, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def call(self, *words: str, url: str = "") -> None:
        """Run a docker CLI to its end. Raises RuntimeError if it fails."""
        if ended(self.spawn(*words, url=url), 300):
            raise RuntimeError(f"docker {' '.join(words)} failed:\n{self.host.log.read_text()}")

    def prepare(self) -> None:
        """Give the daemons the image."""
        root = image_tar()
        for url in [self.host.url] + ([self.reference.url] if self.reference else []):
            subprocess.run(
                [DOCKER, "-H", url, "import", "--change", 'CMD ["sh"]', "-", IMAGE],
                input=root,
                stdout=subprocess.DEVNULL,
                check=True,
            )

    @contextlib.contextmanager
    def idle(self, count: int, url: str = "") -> Iterator[list[str]]:
        """Give that many idle containers of 448 MiB (a VM of 512), started four at a time."""
        names = [f"idle{number}" for number in range(count)]
        try:
            for start in range(0, count, 4):
                group = [
                    self.spawn("run", "-d", "-m", "448m", "--name", name, IMAGE, *IDLE, url=url)
                    for name in names[start : start + 4]
                ]
                codes = [ended(process, 120) for process in group]
                if any(codes):
                    raise RuntimeError(f"a start failed:\n{self.host.log.read_text()[-4000:]}")
            yield names
        finally:
            for start in range(0, count, 20):
                self.call("rm", "-f", *names[start : start + 20], url=url)


def image_tar() -> bytes:
    """Return busybox's root file system with a file of lines."""
    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        data = b"".join(LINE % number + b"\n" for number in range(LINES))
        entry = tarfile.TarInfo("lines")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def until(true: Callable[[], bool], bound: float = 30.0) -> None:
    """Wait until something is so. Raises RuntimeError if it never is."""
    ends = time.monotonic() + bound
    while not true():
        if time.monotonic() > ends:
            raise RuntimeError("what the case waits for did not come about")
        time.sleep(0.1)


@contextlib.contextmanager
def dockerd(root: Path) -> Iterator[Reference | None]:
    """Give a real dockerd with runc in a network namespace of its own; None if there is none."""
    if not DOCKERD.exists():
        yield None
        return
    root.mkdir()
    netns = NetworkNamespace()
    url = f"unix://{root}/docker.sock"
    folders = ["--data-root", f"{root}/data", "--exec-root", f"{root}/exec"]
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*netns.enter, str(DOCKERD), *folders, "--pidfile", f"{root}/pid", "-H", url],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: _answers(url), START_BOUND)
        yield Reference(url=url)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        netns.close()
        shutil.rmtree(root, ignore_errors=True)


def _answers(url: str) -> bool:
    done = subprocess.run([DOCKER, "-H", url, "version"], capture_output=True)
    return done.returncode == 0
