"""Real clients of Docker against this engine: the programs of ``clients``, unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.test_real_images import provide
from tests.framework.host import DOCKER, Host
from tests.integration.registry.servers import REGISTRY, running_registry
from tests.integration.registry.test_auth import HTPASSWD

ROOT = Path(__file__).parents[2]
DOCKERODE = Path(__file__).with_name("clients") / "dockerode"


def _use(host: Host, *words: str, **environment: str) -> None:
    """Run a client where published ports are the engine's; a failure shows what it said."""
    done = subprocess.run(
        [*host.netns.enter, *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(host.root), "DOCKER_HOST": host.url}
        | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"{done.stdout}\n--- hyperd\n{host.log.read_text()[-3000:]}")


def _module(host: Host, name: str, *words: str, **environment: str) -> None:
    _use(host, sys.executable, "-m", f"tests.conformance.clients.{name}", *words, **environment)


def test_testcontainers_finds_what_it_needs(host: Host) -> None:
    for image in ("redis", "postgres"):
        provide(host, image)
    # Its reaper is an image of the hub's, which there is no way to here.
    _module(
        host,
        "with_testcontainers",
        TESTCONTAINERS_RYUK_DISABLED="true",
        TESTCONTAINERS_HOST_OVERRIDE="127.0.0.1",
    )


def test_aiodocker_finds_what_it_needs(host: Host) -> None:
    _module(host, "with_aiodocker")


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("auto", ()),
        ("1.24", ("the_system", "a_container", "output", "volumes")),
        ("1.41", ("files", "networks")),
        ("1.47", ("events", "volumes")),
    ],
)
def test_docker_py_finds_what_it_needs(host: Host, version: str, parts: tuple[str, ...]) -> None:
    _module(host, "with_docker_py", version, *parts)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Dockerode with what it needs, as the lock file has it, kept for the next run."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed: dockerode can't be tried")
    lock = DOCKERODE / "package-lock.json"
    folder = ROOT / ".cache" / "dockerode"
    stamp = folder / "package-lock.json"
    if not (folder / "complete").exists() or stamp.read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(DOCKERODE / name, folder)
        words = "npm ci --ignore-scripts --no-audit --no-fund --omit=optional".split()
        done = subprocess.run(words, cwd=folder, capture_output=True, timeout=300, text=True)
        if done.returncode:
            pytest.skip(f"npm's registry does not give dockerode: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return folder / "node_modules"


def test_dockerode_finds_what_it_needs(host: Host, node_modules: Path) -> None:
    _use(host, "node", str(DOCKERODE / "use.js"), NODE_PATH=str(node_modules))


def test_a_ci_runner_finds_what_it_needs(host: Host, tmp_path: Path) -> None:
    if shutil.which(REGISTRY) is None:
        pytest.skip("docker-registry is not installed: nothing to push to")
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with running_registry(tmp_path, host.netns.enter, auth=auth) as registry:
        script = Path(__file__).with_name("clients") / "ci_job.sh"
        _use(host, "bash", str(script), REGISTRY=registry.host, DOCKER=DOCKER)
