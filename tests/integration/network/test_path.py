"""The data path: a guest's frames through tap, rules, veth and bridge, and the walls around it."""

from __future__ import annotations

import pytest

from tests.integration.network.world import HOST, OUTSIDE, Server, World, ask, shell


def test_a_guest_reaches_the_outside_under_the_hosts_address(world: World) -> None:
    held = world.plug()
    server = Server(world.outside, OUTSIDE, 80, "outside")
    assert ask(held.guest.path, OUTSIDE, 80) == f"outside {HOST}"
    server.close()


def test_the_host_reaches_a_guest(world: World) -> None:
    held = world.plug()
    server = Server(held.guest.path, "0.0.0.0", 80, "guest")
    assert ask(world.host, held.endpoint.ipv4, 80) == "guest 172.17.0.1"
    server.close()


def test_guests_of_a_network_reach_each_other(world: World) -> None:
    one, two = world.plug(), world.plug()
    server = Server(two.guest.path, "0.0.0.0", 80, "two")
    assert ask(one.guest.path, two.endpoint.ipv4, 80) == f"two {one.endpoint.ipv4}"
    server.close()


def test_a_guest_can_not_reach_a_service_of_the_host(world: World) -> None:
    held = world.plug()
    server = Server(world.host, "0.0.0.0", 2375, "daemon")
    for address in ("172.17.0.1", HOST):
        with pytest.raises(OSError):
            ask(held.guest.path, address, 2375, timeout=1.0)
    assert ask(world.outside, HOST, 2375).startswith("daemon")
    server.close()


def test_a_neighbour_of_the_host_can_not_route_into_the_bridge(world: World) -> None:
    held = world.plug()
    server = Server(held.guest.path, "0.0.0.0", 80, "guest")
    shell(world.outside, f"ip route add 172.17.0.0/16 via {HOST}")
    with pytest.raises(OSError):
        ask(world.outside, held.endpoint.ipv4, 80, timeout=1.0)
    server.close()
