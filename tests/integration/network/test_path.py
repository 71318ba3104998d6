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


@pytest.mark.parametrize("mac", ["", "02:42:00:00:00:77"], ids=["same MAC", "another MAC"])
def test_the_next_holder_of_an_address_is_reached_at_once(world: World, mac: str) -> None:
    """While what its former holder leaves behind is still there, as a machine that ends slowly."""
    first, other = world.plug(mac=mac), world.plug()
    server = Server(first.guest.path, "0.0.0.0", 80, "first")
    for path in (world.host, other.guest.path):
        assert ask(path, first.endpoint.ipv4, 80).startswith("first "), path
    server.close()
    world.run(world.manager.detach(first.endpoint.container))
    second = world.plug()
    assert second.endpoint.ipv4 == first.endpoint.ipv4
    server = Server(second.guest.path, "0.0.0.0", 80, "second")
    assert ask(world.host, second.endpoint.ipv4, 80, timeout=2.5).startswith("second ")
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
