"""Unix sockets of the host as bind mounts: the docker CLI in a container, other servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host

SOURCE = Path(__file__).parents[3] / "native" / "agent" / "tests" / "unixcat.c"
BOUND = 30.0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that talks to a unix socket as a pipe."""
    built = tmp_path_factory.mktemp("unixcat") / "unixcat"
    subprocess.run(["gcc", "-O1", "-static", "-o", built, SOURCE], check=True)
    return built


class Server:
    """A server on the host with a thread for each connection."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        self.path = path
        self.count = 0
        self._serve = serve
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                self.count += 1
                threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            self._serve(sock)

    def close(self) -> None:
        """Take no more connections, and leave the socket's file without a server."""
        with contextlib.suppress(OSError):  # closed already
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def echo(sock: socket.socket) -> None:
    """Send everything back once all of it is here."""
    data = bytearray()
    while piece := sock.recv(1 << 16):
        data += piece
    sock.sendall(b"got " + data)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    running = Server(place, echo)
    yield running
    running.close()


def cat(host: Host, client: Path, place: Path, *words: str, mode: str = "") -> list[str]:
    """Return the words of a run that has the client and the socket."""
    binds = ["-v", f"{client}:/bin/unixcat:ro", "-v", f"{place}:/run/s{mode}"]
    return ["run", "--rm", "-i", *binds, "busybox", *words]


def test_the_docker_cli_in_a_container_drives_its_own_daemon(host: Host) -> None:
    docker = shutil.which(DOCKER)
    assert docker is not None
    binds = ["-v", f"{host.socket}:/var/run/docker.sock", "-v", f"{docker}:/bin/docker:ro"]
    ran = host.docker(
        "run", "--rm", "--name", "outer", *binds, "busybox", "sh", "-ec",
        "docker -H unix:///var/run/docker.sock ps --format '{{.Names}}'; "
        "echo said | docker run -i --rm busybox cat",
    )  # fmt: skip
    assert ran.out.split() == ["outer", "said"]
    listed = host.docker("run", "--rm", *binds, "busybox", "ls", "-ln", "/var/run/docker.sock")
    assert listed.out.split()[0].rstrip(".") == "srw-rw----"
    assert listed.out.split()[2:4] == [
        str(host.socket.stat().st_uid),
        str(host.socket.stat().st_gid),
    ]


@pytest.mark.parametrize("mode", ["", ":ro"])
def test_a_connection_carries_both_directions_and_their_ends(
    host: Host, client: Path, server: Server, mode: str
) -> None:
    """A read-only mount keeps nobody from connecting, as with Docker."""
    sent = os.urandom(300_000)
    done = subprocess.run(
        [DOCKER, "-H", host.url, *cat(host, client, server.path, "unixcat", "/run/s", mode=mode)],
        input=sent,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"got " + sent


def test_many_connections_at_once_are_kept_apart(host: Host, client: Path, server: Server) -> None:
    script = (
        "for i in $(seq 1 40); do echo n$i | unixcat /run/s > /tmp/$i & done; wait; "
        "for i in $(seq 1 40); do cat /tmp/$i; done"
    )
    ran = host.docker(*cat(host, client, server.path, "sh", "-c", script))
    assert ran.out.split() == [word for i in range(1, 41) for word in ("got", f"n{i}")]
    assert server.count == 40


def test_what_a_container_said_last_arrives(host: Host, client: Path, place: Path) -> None:
    heard = bytearray()

    def listen(sock: socket.socket) -> None:
        while piece := sock.recv(1 << 16):
            heard.extend(piece)

    server = Server(place, listen)
    host.docker(*cat(host, client, place, "sh", "-c", "echo last words | unixcat /run/s &"))
    server.close()
    assert bytes(heard) in (
        b"last words\n",
        b"",
    )  # its first process may have ended before it connected
    server.path.unlink()


def test_only_a_server_that_is_there_answers_and_a_new_one_is_found(
    host: Host, client: Path, server: Server
) -> None:
    words = cat(host, client, server.path, "sleep", "600")
    host.docker("run", "-d", "--name", "caller", *words[3:])
    server.close()
    refused = host.docker("exec", "caller", "sh", "-c", "echo x | unixcat /run/s", check=False)
    assert refused.out == ""
    server.path.unlink()
    again = Server(server.path, echo)
    assert host.docker("exec", "caller", "sh", "-c", "echo x | unixcat /run/s").out == "got x\n"
    again.close()


def test_a_link_in_the_sockets_place_leads_nowhere(
    host: Host, client: Path, server: Server, tmp_path: Path
) -> None:
    """A container that may write to the socket's folder must not choose another socket."""
    folder = tmp_path / "shared"
    folder.mkdir()
    own = Server(folder / "s", echo)
    words = cat(host, client, own.path, "sleep", "600")
    host.docker("run", "-d", "--name", "caller", "-v", f"{folder}:/shared", *words[3:])
    host.docker("exec", "caller", "sh", "-c", f"rm /shared/s && ln -s {server.path} /shared/s")
    assert (folder / "s").is_symlink()
    refused = host.docker("exec", "caller", "sh", "-c", "echo x | unixcat /run/s", check=False)
    assert refused.out == ""
    assert server.count == own.count == 0
    own.close()


def test_after_the_daemons_death_new_connections_work_again(
    host: Host, client: Path, server: Server
) -> None:
    words = cat(host, client, server.path, "sleep", "600")
    host.docker("run", "-d", "--name", "caller", *words[3:])
    say = ["exec", "caller", "sh", "-c", "echo x | unixcat /run/s"]
    assert host.docker(*say).out == "got x\n"
    host.kill()
    host.start()
    assert host.docker(*say).out == "got x\n"


def test_a_host_that_does_not_read_holds_the_container_back_and_nobody_else(
    host: Host, client: Path, place: Path
) -> None:
    release = threading.Event()

    def slow(sock: socket.socket) -> None:
        release.wait(BOUND)
        count = 0
        while piece := sock.recv(1 << 20):
            count += len(piece)
        sock.sendall(str(count).encode())

    server = Server(place, slow)
    words = cat(host, client, place, "sh", "-c", "dd if=/dev/zero bs=1M count=30 | unixcat /run/s")
    command = [DOCKER, "-H", host.url, *words]
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    bound = time.monotonic() + BOUND
    while not server.count and time.monotonic() < bound:
        time.sleep(0.02)
    time.sleep(0.5)
    memory = resident(host)
    assert host.docker("ps", "-q").out
    assert memory < 250 << 20
    release.set()
    assert sender.communicate(timeout=60)[0] == str(30 << 20).encode()
    server.close()


def resident(host: Host) -> int:
    assert host.process is not None
    return int(Path(f"/proc/{host.process.pid}/statm").read_text().split()[1]) * 4096


def test_a_stopped_container_with_a_socket_can_be_copied_from(
    host: Host, client: Path, server: Server
) -> None:
    host.docker("create", "--name", "caller", *cat(host, client, server.path, "true")[3:])
    host.docker("start", "-a", "caller")
    assert host.docker("cp", "caller:/etc/hostname", "-").code == 0
    assert "run/s" in host.docker("diff", "caller").out
