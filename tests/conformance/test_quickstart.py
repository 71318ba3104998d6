"""What ./quickstart shows a newcomer, and what it says where it can't."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import KIT_DIR, NetworkNamespace
from tools import debian_image, kit

QUICKSTART = Path(__file__).parents[2] / "tools" / "quickstart.py"
BOUND = 300


class Newcomer:
    """Somebody who runs quickstart, in a network of their own."""

    def __init__(self, folder: Path, worker: int) -> None:
        self.netns = NetworkNamespace()
        self.folder = folder
        self.url = f"unix://{folder}/s"
        self._daemon = ["--", "--uid-base", str(700_000 + 70_000 * (worker + 10))]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        words = ("--host", self.url, "--data-root", f"{self.folder}/d", *words)
        more = ("--exec-root", f"{self.folder}/e", "--kit-dir", f"{self.folder}/k", *self._daemon)
        return subprocess.run(
            [*self.netns.enter, sys.executable, QUICKSTART, *words, *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND,
        )

    def docker(self, *words: str) -> str:
        """Run docker as quickstart says that one can."""
        done = subprocess.run(
            ["docker", "-H", self.url, *words], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Stop the daemon as quickstart says that one can."""
        pid = self.folder / "e" / "hyperd.pid"
        if pid.exists():
            subprocess.run(["kill", f"-{signal.SIGTERM.value}", pid.read_text()], check=True)
            end = time.monotonic() + 30
            while pid.exists() and time.monotonic() < end:
                time.sleep(0.05)
            assert not pid.exists()
        self.netns.close()


def _borrow_kit(folder: Path) -> None:
    """Make a folder of kits whose current one is the one that all tests use."""
    current = (KIT_DIR / "current").resolve()
    folder.mkdir()
    (folder / "current").symlink_to(current)
    (folder / kit.STAMP).write_text(f"{current.name} {kit.code()}\n")
    if why := kit.outdated(folder):
        pytest.skip(f"tools/kit.py has to be run first: {why}")


@pytest.fixture
def newcomer(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Iterator[Newcomer]:
    for name in ("busybox", "nginx"):
        debian_image.make(name)  # made once per machine
    folder = tmp_path_factory.mktemp("q")  # short: sockets are named in it
    _borrow_kit(folder / "k")
    made = Newcomer(folder, worker_number)
    try:
        yield made
    finally:
        made.close()


def test_quickstart_shows_two_machines_and_again_takes_seconds(newcomer: Newcomer) -> None:
    first = newcomer.run("--port", "8099")
    assert first.returncode == 0, first.stdout + first.stderr
    shown = re.search(
        r"in the container: Linux (\S+)\n *kernel of the host: *Linux (\S+)", first.stdout
    )
    assert shown is not None, first.stdout
    assert shown[1] != shown[2]
    assert "Welcome to nginx" in first.stdout
    assert len(re.findall(r"\d+\.\d\d s", first.stdout)) == 2
    assert f"export DOCKER_HOST={newcomer.url}\n" in first.stdout
    assert newcomer.docker("ps", "-aq") == ""
    tags = newcomer.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert sorted(tags) == ["busybox:latest", "nginx:latest"]

    newcomer.docker("tag", "nginx", "127.0.0.1:4/nginx:latest")  # as an interrupted run leaves it
    newcomer.docker("create", "--name", "quickstart-nginx", "-p", "8099:80", "nginx")
    began = time.monotonic()
    again = newcomer.run("--port", "8099")
    assert again.returncode == 0, again.stdout + again.stderr
    assert time.monotonic() - began < 15
    assert "hyperd runs already" in again.stdout
    assert "Making" not in again.stdout
    assert newcomer.docker("ps", "-aq") == ""
    assert len(newcomer.docker("images", "--format", "{{.ID}} {{.Tag}}").splitlines()) == 2


def test_a_port_in_use_is_one_sentence(newcomer: Newcomer) -> None:
    script = "import socket; s = socket.create_server(('', 8099)); print('up', flush=True); input()"
    with subprocess.Popen(
        [*newcomer.netns.enter, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        done = newcomer.run("--port", "8099")
        other.kill()
    assert done.returncode == 1
    assert done.stderr == (
        "quickstart: port 8099 can't be used (Address already in use): name another one by --port\n"
    )


def test_what_keeps_the_daemon_from_starting_is_told(newcomer: Newcomer) -> None:
    (newcomer.folder / "s").write_text("no socket")
    done = newcomer.run("--port", "8099")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "hyperd did not start: " in line
    assert "the path exists and is no socket" in line
