"""The second half of ./quickstart: kit, daemon, images through a real registry, two containers.

Everything is done as a user would: by ``hyper``, ``hyperd`` and the unmodified ``docker``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
IMAGES = ("busybox", "nginx")
NGINX = "quickstart-nginx"


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

    def answers(self) -> str:
        """Return the name of the daemon that answers, or nothing if there is none."""
        form = "{{.Server.Platform.Name}}"
        done = subprocess.run(
            ["docker", "-H", self.url, "version", "--format", form], capture_output=True, text=True
        )
        return done.stdout.strip() or "Docker" if done.returncode == 0 else ""


def check_host(docker: Docker, options: argparse.Namespace) -> None:
    """Find out what can't work before anything is built: the port, the socket."""
    name = docker.answers()
    if name not in ("", "Hyper"):
        raise stop(f"another daemon ({name}) answers on {docker.url}: name another one by --host")
    if name and NGINX in docker("ps", "-a", "--format", "{{.Names}}").split():
        docker("rm", "-f", NGINX)  # an interrupted run left it
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", options.port))
        except OSError as error:
            raise stop(
                f"port {options.port} can't be used ({error.strerror}): name another one by --port"
            ) from None


def build_kit(kit_dir: Path) -> None:
    """Build the guest kit unless it is there."""
    if subprocess.run([sys.executable, HERE / "kit.py", kit_dir]).returncode:
        raise stop("the guest kit could not be built, see above")


def start_daemon(docker: Docker, options: argparse.Namespace) -> None:
    """Start hyperd in the background unless it answers."""
    if docker.answers():
        say(f"hyperd runs already on {docker.url}")
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
                *options.daemon,
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
    say(f"Started hyperd on {docker.url}, its log is {log}")


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
    sys.path.insert(0, str(HERE.parent))
    from tools import debian_image

    there = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    left = [
        name for name in there if re.fullmatch(r"127\.0\.0\.1:\d+/(busybox|nginx):latest", name)
    ]
    if left:  # an interrupted run did not come to it
        docker("rmi", *left)
    wanted = [name for name in IMAGES if f"{name}:latest" not in there]
    if not wanted:
        return
    with registry(options.data_root / "demo-registry") as address:
        for name in wanted:
            say(f"Making the image {name} from Debian packages ...")
            recipe = debian_image.RECIPES[name]
            changes = [word for change in recipe.changes for word in ("--change", change)]
            remote = f"{address}/{name}:latest"
            docker("import", *changes, "-", remote, stdin=debian_image.make(name))
            say(f"Pushing {name} to a registry on {address} and pulling it back ...")
            docker("push", "-q", remote)
            docker("rmi", remote)
            docker("pull", "-q", remote)
            docker("tag", remote, f"{name}:latest")
            docker("rmi", remote)
    shutil.rmtree(options.data_root / "demo-registry", ignore_errors=True)


def show(docker: Docker, options: argparse.Namespace) -> None:
    """Run the two containers and tell what they showed."""
    words = ["run", "--rm", "busybox", "sh", "-c", "uname -sr"]
    began = time.monotonic()
    kernel = docker(*words).strip()
    took = time.monotonic() - began
    say("")
    say(f"docker run --rm busybox sh -c 'uname -sr'    {took:.2f} s")
    say(f"    kernel in the container: {kernel}")
    say(f"    kernel of the host:      {platform.system()} {platform.release()}")
    publish = f"{options.port}:80"
    began = time.monotonic()
    docker("run", "-d", "--name", NGINX, "-p", publish, "nginx")
    try:
        page = _fetch(f"http://127.0.0.1:{options.port}/")
        took = time.monotonic() - began
        say(f"docker run -d -p {publish} nginx".ljust(44) + f" {took:.2f} s to its first page")
        say(f"    http://127.0.0.1:{options.port}/ says: {page.strip()}")
    finally:
        docker("rm", "-f", NGINX)


def _port(word: str) -> int:
    if not word.isdecimal() or not 0 < int(word) < 65536:
        raise argparse.ArgumentTypeError(f"{word} is not a port: 1 to 65535 is wanted")
    return int(word)


def _fetch(url: str) -> str:
    bound = time.monotonic() + 30
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with direct.open(url, timeout=5) as answer:
                return str(answer.read(4096).decode(errors="replace"))
        except OSError as error:
            if time.monotonic() > bound:
                raise stop(f"nginx did not answer on {url}: {error}") from None
            time.sleep(0.02)


def tell(docker: Docker, options: argparse.Namespace) -> None:
    """Say how to go on by hand."""
    say("")
    say("Point docker at it:")
    if Path(shutil.which("docker") or "").is_relative_to(HERE.parent):
        say(f'    export PATH="$PATH:{HERE.parent}/.cache/bin"    # the docker fetched here')
    say(f"    export DOCKER_HOST={docker.url}")
    say("    docker run -it --rm busybox")
    say(f"Stop it: kill $(cat {options.exec_root / 'hyperd.pid'}); containers go on without it.")


def main() -> None:
    """Set up and show."""
    parser = argparse.ArgumentParser(
        prog="quickstart",
        description="Set up Hyper on this machine and show two containers, each in a virtual "
        "machine of its own. Run again it takes seconds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="unix:///var/run/hyper.sock", help="where hyperd listens")
    parser.add_argument(
        "--data-root", type=Path, default=Path("/var/lib/hyper"), help="images, disks"
    )
    parser.add_argument("--exec-root", type=Path, default=Path("/run/hyper"), help="run-time files")
    parser.add_argument(
        "--kit-dir", type=Path, default=Path("/var/lib/hyper/kit"), help="guest kits"
    )
    parser.add_argument("--port", type=_port, default=8088, help="host port of the nginx container")
    parser.add_argument(
        "daemon", nargs="*", metavar="-- OPTION", help="options for hyperd, if it has to be started"
    )
    options = parser.parse_args()
    docker = Docker(options.host)
    check_host(docker, options)
    build_kit(options.kit_dir)
    start_daemon(docker, options)
    provide_images(docker, options)
    show(docker, options)
    tell(docker, options)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("quickstart: interrupted; run it again, it goes on from here") from None
    except OSError as error:
        raise SystemExit(f"quickstart: {error}") from None
