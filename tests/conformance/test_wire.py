"""What the wire must hold against the real engine: early heads, half-close, clients that vanish."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path

from tests.conformance.raw import ask, connected
from tests.framework.host import Host


def _head(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(1)
        assert part, data
        data += part
    return data


def _upgrade(host: Host, path: str) -> socket.socket:
    sock = connected(host)
    sock.sendall(
        f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
    )
    assert _head(sock).startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    return sock


def _connections(host: Host) -> int:
    """Count the daemon's accepted connections, which the kernel lists where the clients are."""
    pid = int((host.root / "hyperd.pid").read_text())
    lines = Path("/proc/self/net/unix").read_text().splitlines()
    inodes = {line.split()[6] for line in lines if line.endswith(f" {host.socket}")}
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        # The daemon closes descriptors while they are listed.
        with contextlib.suppress(FileNotFoundError):
            links.append(str(fd.readlink()))
    return sum(f"socket:[{inode}]" in links for inode in inodes)


def _settled(host: Host, count: int = 0) -> None:
    bound = time.monotonic() + 10
    while _connections(host) != count:
        assert time.monotonic() < bound, f"{_connections(host)} connections are left"
        time.sleep(0.05)


def test_a_wait_says_that_it_waits_before_the_container_ends(host: Host) -> None:
    host.docker("create", "--name", "waited", "busybox", "sh", "-c", "exit 5")
    sock = connected(host)
    sock.sendall(b"POST /containers/waited/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
    assert _head(sock).startswith(b"HTTP/1.1 200 OK")
    host.docker("start", "waited")
    answer = b""
    while not answer.endswith(b"0\r\n\r\n"):
        answer += sock.recv(100)
    assert json.loads(answer.split(b"\r\n")[1]) == {"StatusCode": 5}
    sock.close()


def test_the_end_of_input_ends_the_program_and_its_answer_comes(host: Host) -> None:
    host.docker("create", "-i", "--name", "sum", "busybox", "md5sum")
    sock = _upgrade(host, "/containers/sum/attach?stream=1&stdin=1&stdout=1&stderr=1")
    host.docker("start", "sum")
    sock.sendall(b"abc")
    sock.shutdown(socket.SHUT_WR)
    answer = b""
    while part := sock.recv(1000):
        answer += part
    assert answer == b"\x01\0\0\0\0\0\0\x24900150983cd24fb0d6963f7d28e17f72  -\n"
    sock.close()


def test_clients_that_vanish_in_any_state_leave_no_connection(host: Host) -> None:
    host.docker("run", "-d", "-i", "--name", "vv", "busybox", "sleep", "60")
    host.docker("run", "-d", "--name", "noisy", "busybox", "sh", "-c", "yes")
    wish = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}
    execution = ask(host, "POST", "/containers/vv/exec", wish)[1]["Id"]
    _settled(host)
    paths = [
        b"GET /events",
        b"GET /containers/vv/logs?stdout=1&follow=1",
        b"GET /containers/noisy/logs?stdout=1&follow=1",
        b"GET /containers/vv/stats",
        b"POST /containers/vv/wait",
        b"GET /containers/vv/export",
    ]
    socks = []
    for path in paths:
        sock = connected(host)
        sock.sendall(path + b" HTTP/1.1\r\nHost: d\r\n\r\n")
        _head(sock)
        socks.append(sock)
    socks.append(_upgrade(host, "/containers/vv/attach?stream=1&stdin=1&stdout=1"))
    socks.append(_upgrade(host, "/containers/noisy/attach?stream=1&stdout=1"))
    sock = connected(host)
    body = b'{"Detach":false}'
    sock.sendall(
        b"POST /exec/%s/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (execution.encode(), len(body), body)
    )
    _head(sock)
    socks.append(sock)
    time.sleep(0.5)
    assert _connections(host) >= len(socks) - 1  # the export may have ended
    for sock in socks:
        sock.close()
    _settled(host)
    assert host.docker("inspect", "-f", "{{.State.Running}}", "vv").out == "true\n"
    assert host.docker("exec", "noisy", "echo", "alive").out == "alive\n"


def test_a_slow_client_holds_the_program_back_and_loses_nothing(host: Host) -> None:
    host.docker("create", "--name", "much", "busybox", "sh", "-c",
                "head -c 20000000 /dev/zero | tr '\\0' x")  # fmt: skip
    sock = _upgrade(host, "/containers/much/attach?stream=1&stdout=1")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    starting = threading.Thread(target=lambda: host.docker("start", "much"))
    starting.start()
    time.sleep(2)
    got = 0
    while head := _exactly(sock, 8):
        size = int.from_bytes(head[4:], "big")
        data = _exactly(sock, size)
        assert data == b"x" * size
        got += size
    starting.join()
    assert got == 20_000_000
    sock.close()


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return bytes(data)


def test_detach_keys_leave_the_container_running(host: Host) -> None:
    host.docker("run", "-d", "-i", "-t", "--name", "tty", "busybox", "cat")
    sock = _upgrade(
        host, "/containers/tty/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,ctrl-b"
    )
    sock.sendall(b"hi\n")
    assert _exactly(sock, 4) == b"hi\r\n"
    sock.sendall(b"\x01\x02")
    while sock.recv(100):
        pass
    assert host.docker("inspect", "-f", "{{.State.Running}}", "tty").out == "true\n"
    sock.close()


def test_system_prune_takes_everything_that_is_unused(host: Host) -> None:
    host.docker("run", "--name", "done", "busybox", "true")
    host.docker("network", "create", "unused")
    out = host.docker("system", "prune", "-f").out
    assert "Deleted Containers:" in out
    assert "unused" in out
    assert host.docker("ps", "-aq").out == ""
