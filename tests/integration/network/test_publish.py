"""Published ports: from outside, from the host, from guests; conflicts; life without a daemon."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from hyperstack.errors import InternalError
from hyperstack.model import PortBinding
from hyperstack.network import ports
from hyperstack.network.ports import Want
from hyperstack.platform import netns
from tests.integration.network.world import (
    HOST,
    HOST6,
    OUTSIDE,
    Held,
    Server,
    World,
    ask,
    shell,
)


def want(port: int, host_port: str, host_ip: str = "", protocol: str = "tcp") -> list[Want]:
    return ports.wants(
        {f"{port}/{protocol}": (PortBinding(host_ip=host_ip, host_port=host_port),)},
        (f"{port}/{protocol}",),
        publish_all=False,
        default_address="0.0.0.0",
        ipv6=True,
    )


def served(world: World, wants: list[Want], **more: Any) -> tuple[Held, Server]:
    held = world.plug(wants=wants, **more)
    return held, Server(held.guest.path, "0.0.0.0", 80, "web")


def test_a_published_port_is_reached_from_outside_with_the_callers_address(world: World) -> None:
    _, server = served(world, want(80, "8080"))
    assert ask(world.outside, HOST, 8080) == f"web {OUTSIDE}"
    server.close()


def test_a_published_port_is_reached_from_the_host_by_every_address(world: World) -> None:
    _, server = served(world, want(80, "8080"))
    for address in ("127.0.0.1", "127.0.0.2", HOST, "172.17.0.1"):
        assert ask(world.host, address, 8080).startswith("web "), address
    server.close()


def test_ipv6_reaches_a_container_that_has_only_ipv4(world: World) -> None:
    _, server = served(world, want(80, "8080"))
    assert ask(world.host, "::1", 8080) == "web 172.17.0.1"
    assert ask(world.outside, HOST6, 8080) == "web 172.17.0.1"
    server.close()


def test_udp_is_published_on_ipv4_and_ipv6(world: World) -> None:
    held = world.plug(wants=want(53, "5353", protocol="udp"))
    server = Server(held.guest.path, "0.0.0.0", 53, "dns", udp=True)
    assert ask(world.outside, HOST, 5353, udp=True) == f"dns {OUTSIDE}"
    assert ask(world.host, "127.0.0.1", 5353, udp=True).startswith("dns ")
    assert ask(world.outside, HOST6, 5353, udp=True) == "dns 172.17.0.1"
    server.close()


def test_a_port_published_at_loopback_is_not_reached_from_outside_or_from_guests(
    world: World,
) -> None:
    _, server = served(world, want(80, "8080", "127.0.0.1"))
    other = world.plug()
    assert ask(world.host, "127.0.0.1", 8080).startswith("web ")
    with pytest.raises(OSError):
        ask(world.outside, HOST, 8080, timeout=1.0)
    shell(
        world.outside,
        f"ip route add 127.0.0.1/32 via {HOST} dev eth1 table 5; "
        "echo 1 > /proc/sys/net/ipv4/conf/eth1/route_localnet; "
        "ip rule add pref 0 lookup 5; ip rule del lookup local; ip rule add pref 9 lookup local",
    )
    with pytest.raises(OSError):
        ask(world.outside, "127.0.0.1", 8080, timeout=1.0)
    with pytest.raises(OSError):
        ask(other.guest.path, "172.17.0.1", 8080, timeout=1.0)
    server.close()


def test_guests_reach_a_published_port_by_the_hosts_address_even_their_own(world: World) -> None:
    held, server = served(world, want(80, "8080"))
    other = world.plug()
    assert ask(other.guest.path, HOST, 8080).startswith("web ")
    assert ask(other.guest.path, "172.17.0.1", 8080).startswith("web ")
    assert ask(held.guest.path, HOST, 8080).startswith("web ")
    server.close()


def test_a_port_that_is_taken_says_so_in_dockers_words(world: World) -> None:
    served(world, want(80, "8080"))
    with pytest.raises(InternalError) as caught:
        world.plug(wants=want(80, "8080"), name="second")
    text = caught.value.message
    assert "programming external connectivity on endpoint second (" in text
    assert text.endswith("): Bind for 0.0.0.0:8080 failed: port is already allocated")
    assert len(world.manager.book.endpoints()) == 1


def test_a_port_of_a_program_of_the_host_is_not_taken_from_it(world: World) -> None:
    with netns.socket_in(world.host, socket.AF_INET, socket.SOCK_STREAM) as mine:
        mine.bind((HOST, 8080))
        mine.listen()
        with pytest.raises(InternalError, match=r"failed to bind host port for 0\.0\.0\.0:8080:"):
            world.plug(wants=want(80, "8080"))


def test_a_published_port_is_taken_for_programs_of_the_host(world: World) -> None:
    held, server = served(world, want(80, "8080"))
    with netns.socket_in(world.host, socket.AF_INET, socket.SOCK_STREAM) as mine:
        with pytest.raises(OSError):
            mine.bind(("0.0.0.0", 8080))
        server.close()
        world.unplug(held)
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        mine.bind(("0.0.0.0", 8080))


def test_random_ports_come_from_the_ephemeral_range_one_after_the_other(world: World) -> None:
    first, second = world.plug(wants=want(80, "")), world.plug(wants=want(80, ""))
    numbers = [h.endpoint.publications[0].host_port for h in (first, second)]
    assert numbers == [32768, 32769]
    assert {p.host_port for p in first.endpoint.publications} == {32768}


def test_a_range_gives_its_first_free_port(world: World) -> None:
    one, two = (world.plug(wants=want(80, "8000-8001")) for _ in range(2))
    assert one.endpoint.publications[0].host_port == 8000
    assert two.endpoint.publications[0].host_port == 8001
    with pytest.raises(InternalError, match="all ports are allocated"):
        world.plug(wants=want(80, "8000-8001"))


def test_a_closed_port_is_closed_for_ipv4_and_ipv6(world: World) -> None:
    held, server = served(world, want(80, "8080"))
    server.close()
    world.unplug(held)
    for address in (HOST, HOST6):
        with pytest.raises(ConnectionRefusedError):
            ask(world.outside, address, 8080)


def test_ports_live_without_the_daemon_and_under_the_next_one(world: World) -> None:
    held, server = served(world, want(80, "8080"))
    long = netns.socket_in(world.outside, socket.AF_INET, socket.SOCK_STREAM)
    echo = netns.socket_in(held.guest.path, socket.AF_INET, socket.SOCK_STREAM)
    echo.bind(("0.0.0.0", 81))
    world.crash()
    for address in ("127.0.0.1", "::1"):
        assert ask(world.host, address, 8080).startswith("web "), address
    assert ask(world.outside, HOST6, 8080).startswith("web ")
    world.start()
    endpoints = world.run(world.manager.adopt(held.endpoint.container, 700_123))
    assert endpoints == [held.endpoint]
    world.run(world.manager.reconcile({held.endpoint.id}))
    for path, address in ((world.outside, HOST), (world.host, "127.0.0.1"), (world.host, "::1")):
        assert ask(path, address, 8080).startswith("web "), address
    with pytest.raises(InternalError, match="port is already allocated"):
        world.plug(wants=want(80, "8080"))
    server.close()
    long.close()
    echo.close()


def test_a_connection_goes_on_while_daemons_come_and_go(world: World) -> None:
    held = world.plug(wants=want(80, "8080"))
    with netns.socket_in(held.guest.path, socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("0.0.0.0", 80))
        listening.listen()
        with netns.socket_in(world.outside, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((HOST, 8080))
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(5)
                for number in range(3):
                    world.crash()
                    world.start()
                    world.run(world.manager.adopt(held.endpoint.container, 700_123))
                    world.run(world.manager.reconcile({held.endpoint.id}))
                    client.sendall(bytes([number]))
                    assert accepted.recv(1) == bytes([number])
                    accepted.sendall(b"ok")
                    assert client.recv(2) == b"ok"


def test_the_helper_is_started_again_if_it_was_killed(world: World) -> None:
    held, server = served(world, want(80, "8080"))
    helper = world.manager.publisher._helper.find(held.endpoint.sandbox, held.endpoint.id)
    assert helper is not None
    helper.signal(9)
    world.crash()
    time.sleep(0.05)
    world.start()
    world.run(world.manager.adopt(held.endpoint.container, 700_123))
    helper.close()
    assert ask(world.host, "::1", 8080).startswith("web ")
    server.close()


def test_a_flushed_firewall_is_written_again(world: World) -> None:
    _, server = served(world, want(80, "8080"))
    shell(world.host, "nft flush ruleset")
    bound = time.monotonic() + 5
    while True:
        try:
            assert ask(world.outside, HOST, 8080, timeout=0.3) == f"web {OUTSIDE}"
            break
        except (OSError, AssertionError):
            assert time.monotonic() < bound
            time.sleep(0.05)
    server.close()


def test_a_udp_client_that_never_stops_reaches_the_next_container(world: World) -> None:
    held = world.plug(wants=want(53, "5353", protocol="udp"))
    server = Server(held.guest.path, "0.0.0.0", 53, "old", udp=True)
    with netns.socket_in(world.outside, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.connect((HOST, 5353))
        client.send(b"?")
        assert client.recv(99).startswith(b"old")
        server.close()
        world.unplug(held)
        world.plug()  # takes the old address
        new = world.plug(wants=want(53, "5353", protocol="udp"))
        server = Server(new.guest.path, "0.0.0.0", 53, "new", udp=True)
        client.send(b"?")
        assert client.recv(99).startswith(b"new")
    server.close()


def test_the_helper_carries_bulk_and_half_closed_connections(world: World) -> None:
    held = world.plug(wants=want(80, "8080"))
    total = 64 << 20
    with netns.socket_in(held.guest.path, socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("0.0.0.0", 80))
        listening.listen()
        with netns.socket_in(world.host, socket.AF_INET6, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            client.connect(("::1", 8080))
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(20)
                client.shutdown(socket.SHUT_WR)
                assert accepted.recv(1) == b""
                import threading

                def send() -> None:
                    accepted.sendall(bytes(total))
                    accepted.shutdown(socket.SHUT_WR)

                thread = threading.Thread(target=send)
                begun = time.monotonic()
                thread.start()
                got = 0
                while part := client.recv(1 << 18):
                    got += len(part)
                thread.join()
    assert got == total
    print(f"helper: {total / (time.monotonic() - begun) / 1e6:.0f} MB/s")
