"""The second half of ./quickstart: kit, daemon, images through a real registry, two containers.

Everything is done as a user would: by ``hyper``, ``hyperd`` and the unmodified ``docker``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import debian_image

BIN = Path(sys.executable).parent
IMAGES = ("busybox", "nginx")


def say(text: str) -> None:
    """Print one line for the user."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stop(text: str) -> SystemExit:
    """Return the end of the program with one sentence."""
    return SystemExit(f"quickstart: {text}")


class Docker:
    """The docker command, pointed at one daemon."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *words: str, stdin: Path | None = None) -> str:
        """Run docker and return what it printed; its failure ends the program."""
        with (stdin or Path(os.devnull)).open("rb") as file:
            done = subprocess.run(
                ["docker", "-H", self.url, *words], stdin=file, capture_output=True, text=True
            )
        if done.returncode:
            raise stop(f"docker {' '.join(words)} failed: {done.stderr.strip()}")
        return done.stdout

    def answers(self) -> bool:
        """Tell whether the daemon is there."""
        done = subprocess.run(["docker", "-H", self.url, "version"], capture_output=True)
        return done.returncode == 0


def build_kit(kit_dir: Path) -> None:
    """Build the guest kit unless it is there."""
    done = subprocess.run([BIN / "hyper", "kit", "build", "--kit-dir", kit_dir])
    if done.returncode:
        raise stop("the guest kit could not be built, see above")


def start_daemon(docker: Docker, options: argparse.Namespace) -> None:
    """Start hyperd in the background unless it answers."""
    if docker.answers():
        say(f"hyperd answers on {docker.url}")
        return
    root: Path = options.data_root
    root.mkdir(parents=True, exist_ok=True)
    log = root / "hyperd.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [
                BIN / "hyperd",
                "--data-root",
                root,
                "--exec-root",
                options.exec_root,
                "--kit-dir",
                options.kit_dir,
                "-H",
                docker.url,
                "--pidfile",
                options.exec_root / "hyperd.pid",
            ],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd="/",
        )
    bound = time.monotonic() + 120
    while not docker.answers():
        if process.poll() is not None or time.monotonic() > bound:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise stop(f"hyperd did not start: {''.join(last) or 'it said nothing'} (log: {log})")
        time.sleep(0.05)
    say(f"hyperd runs on {docker.url}, its log is {log}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run a real docker-registry on loopback and give its ``host:port``."""
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: "
        f"{{rootdirectory: {folder}/data}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", config],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        bound = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > bound:
                raise stop("docker-registry did not start")
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def provide_images(docker: Docker, options: argparse.Namespace) -> None:
    """Make the demo images, push them to a registry, pull them back."""
    there = set(docker("images", "--format", "{{.Repository}}:{{.Tag}}").split())
    if all(f"{name}:latest" in there for name in IMAGES):
        return
    with registry(options.data_root / "demo-registry") as address:
        for name in IMAGES:
            say(f"Making {name} from Debian packages, pushing and pulling it ...")
            recipe = debian_image.RECIPES[name]
            changes = [word for change in recipe.changes for word in ("--change", change)]
            remote = f"{address}/{name}:latest"
            docker("import", *changes, "-", remote, stdin=debian_image.make(name))
            docker("push", "-q", remote)
            docker("rmi", remote)
            docker("pull", "-q", remote)
            docker("tag", remote, f"{name}:latest")
            docker("rmi", remote)


def show(docker: Docker, options: argparse.Namespace) -> None:
    """Run the two containers and tell what they showed."""
    began = time.monotonic()
    kernel = docker("run", "--rm", "busybox", "uname", "-sr").strip()
    took = time.monotonic() - began
    say("")
    say(f"docker run --rm busybox uname -sr      {took:.2f} s")
    say(f"    in the container: {kernel}")
    say(f"    on the host:      {platform.system()} {platform.release()}")
    docker("rm", "-f", "quickstart-nginx") if _exists(docker, "quickstart-nginx") else None
    began = time.monotonic()
    docker("run", "-d", "--name", "quickstart-nginx", "-p", f"{options.port}:80", "nginx")
    try:
        page = _fetch(f"http://127.0.0.1:{options.port}/")
        took = time.monotonic() - began
        say(f"docker run -d -p {options.port}:80 nginx          {took:.2f} s to its first page")
        say(f"    http://127.0.0.1:{options.port}/ says: {page.strip()}")
    finally:
        docker("rm", "-f", "quickstart-nginx")


def _exists(docker: Docker, name: str) -> bool:
    return name in docker("ps", "-a", "--format", "{{.Names}}").split()


def _fetch(url: str) -> str:
    bound = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read(4096).decode(errors="replace"))
        except OSError as error:
            if time.monotonic() > bound:
                raise stop(f"nginx did not answer on {url}: {error}") from None
            time.sleep(0.02)


def main() -> None:
    """Set up and show."""
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__)
    parser.add_argument("--host", default="unix:///var/run/hyper.sock", help="where hyperd listens")
    parser.add_argument("--data-root", type=Path, default=Path("/var/lib/hyper"))
    parser.add_argument("--exec-root", type=Path, default=Path("/run/hyper"))
    parser.add_argument("--kit-dir", type=Path, default=Path("/var/lib/hyper/kit"))
    parser.add_argument("--port", type=int, default=8088, help="host port of the nginx container")
    options = parser.parse_args()
    build_kit(options.kit_dir)
    options.exec_root.mkdir(parents=True, exist_ok=True)
    docker = Docker(options.host)
    start_daemon(docker, options)
    provide_images(docker, options)
    show(docker, options)
    say("")
    say("Point docker at it:")
    say(f"    export DOCKER_HOST={options.host}")
    say("    docker run -it --rm busybox")
    say(f"Stop it: kill $(cat {options.exec_root / 'hyperd.pid'}); containers go on without it.")


if __name__ == "__main__":
    main()
