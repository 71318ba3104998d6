"""The port helper under load and under clients that misbehave."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperstack.platform import netns
from tests.integration.network.test_publish import want
from tests.integration.network.world import UID, Held, Server, World, ask

RESET = struct.pack("ii", 1, 0)


def pid(world: World, held: Held) -> int:
    helper = world.manager.publisher._helper.find(held.endpoint.sandbox, held.endpoint.id)
    assert helper is not None
    helper.close()
    return helper.pid


def cpu(number: int) -> float:
    fields = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(world: World) -> socket.socket:
    sock = netns.socket_in(world.host, socket.AF_INET6, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(("::1", 8080))
    return sock


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_helper_has_no_privileges(world: World) -> None:
    held = world.plug(wants=want(80, "8080"))
    status = Path(f"/proc/{pid(world, held)}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    assert lines["Uid"].split() == [str(UID)] * 4
    assert lines["Gid"].split() == [str(UID)] * 4
    assert lines["Groups"].split() == []
    assert int(lines["CapPrm"], 16) == int(lines["CapEff"], 16) == 0
    assert lines["NoNewPrivs"].strip() == "1"
    assert lines["Seccomp"].strip() == "2"
    assert int(lines["VmRSS"].split()[0]) < 1500


def test_more_connections_than_it_takes_wait_and_are_served(world: World, many_files: None) -> None:
    held = world.plug(wants=want(80, "8080"))
    with netns.socket_in(held.guest.path, socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("0.0.0.0", 80))
        listening.listen(1024)
        clients = [connect(world) for _ in range(560)]
        served = []
        listening.settimeout(5)
        for _ in range(512):
            served.append(listening.accept()[0])
        for sock in served:
            sock.sendall(b"x")
            sock.close()
        assert all(client.recv(1) == b"x" for client in clients[:512])
        for client in clients[:512]:
            client.close()
        for client in clients[512:]:
            accepted, _ = listening.accept()
            accepted.sendall(b"y")
            accepted.close()
            assert client.recv(1) == b"y"
            client.close()


def test_resets_and_stalls_cost_nothing_once_they_are_over(world: World) -> None:
    held = world.plug(wants=want(80, "8080"))
    number = pid(world, held)
    with netns.socket_in(held.guest.path, socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("0.0.0.0", 80))
        listening.listen(64)
        kept = []
        for step in range(30):
            client = connect(world)
            accepted, _ = listening.accept()
            kept.append(accepted)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(bytes(1 << 16))  # nobody reads: all buffers are full
            if step % 3 == 0:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif step % 3 == 1:
                client.shutdown(socket.SHUT_WR)
                kept.append(client)
                continue
            client.close()
        time.sleep(0.3)
        before = cpu(number)
        time.sleep(1.0)
        assert cpu(number) - before < 0.1, "the helper spins"
        for sock in kept:
            sock.close()
        bound = time.monotonic() + 5
        while len(list(Path(f"/proc/{number}/fd").iterdir())) > 8:
            assert time.monotonic() < bound, "connections were left open"
            time.sleep(0.05)
    server = Server(held.guest.path, "0.0.0.0", 80, "still")
    assert ask(world.host, "::1", 8080).startswith("still")
    server.close()


def test_a_port_where_nobody_listens_closes_the_connection(world: World) -> None:
    world.plug(wants=want(80, "8080"))
    with pytest.raises(OSError):
        ask(world.host, "::1", 8080)


def test_what_goes_in_comes_out_the_same_both_ways_at_once(world: World) -> None:
    held = world.plug(wants=want(80, "8080"))
    data = os.urandom(1 << 22)
    with netns.socket_in(held.guest.path, socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("0.0.0.0", 80))
        listening.listen()
        client = connect(world)
        accepted, _ = listening.accept()

        def send(sock: socket.socket, what: bytes) -> None:
            sock.sendall(what)
            sock.shutdown(socket.SHUT_WR)

        def receive(sock: socket.socket) -> bytes:
            got = bytearray()
            while part := sock.recv(1 << 16):
                got += part
            return bytes(got)

        threads = [
            threading.Thread(target=send, args=(client, data)),
            threading.Thread(target=send, args=(accepted, data[::-1])),
        ]
        got: list[bytes] = []
        threads.append(threading.Thread(target=lambda: got.append(receive(accepted))))
        for thread in threads:
            thread.start()
        assert receive(client) == data[::-1]
        for thread in threads:
            thread.join(10)
        assert got == [data]
        client.close()
        accepted.close()


def test_many_udp_clients_are_served_and_the_oldest_flows_give_way(
    world: World, many_files: None
) -> None:
    held = world.plug(wants=want(53, "5353", protocol="udp"))
    server = Server(held.guest.path, "0.0.0.0", 53, "dns", udp=True)
    sockets = []
    for _ in range(600):
        sock = netns.socket_in(world.host, socket.AF_INET6, socket.SOCK_DGRAM)
        sock.settimeout(3)
        sock.connect(("::1", 5353))
        sock.send(b"?")
        assert sock.recv(99).startswith(b"dns")
        sockets.append(sock)
    sockets[0].send(b"?")
    assert sockets[0].recv(99).startswith(b"dns")
    for sock in sockets:
        sock.close()
    server.close()
