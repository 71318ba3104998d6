"""Gateway modes, bridges that were there before, and several containers with ports in a sandbox."""

from __future__ import annotations

import pytest

from hyperstack.errors import InternalError
from hyperstack.ids import ContainerId, new_id
from hyperstack.model import PortBinding
from hyperstack.network import ports
from hyperstack.network.manager import Attachment
from hyperstack.network.ports import Want
from hyperstack.network.rows import BRIDGE_NAME, GATEWAY_MODES, Network, Subnet
from hyperstack.network.settle import NetworkSpec
from tests.integration.network.world import HOST, OUTSIDE, UID, Server, World, ask, shell

SUBNET = "10.44.0.0/24"


def made(world: World, **options: str) -> Network:
    """Make a network; the outside knows a route to it."""
    spec = NetworkSpec(name="made", subnets=(Subnet(subnet=SUBNET),), options=options)
    network = world.run(world.manager.create(spec))
    shell(world.outside, f"ip route add {SUBNET} via {HOST}")
    return network


def wanted(host_port: str, *routed: int) -> list[Want]:
    return ports.wants(
        {"80/tcp": (PortBinding(host_port=host_port),)},
        ("80/tcp",),
        publish_all=False,
        default_address="0.0.0.0",
        ipv6=False,
        routed=routed,
    )


def test_a_routed_networks_published_ports_are_open_at_the_containers_address(
    world: World,
) -> None:
    made(world, **{GATEWAY_MODES[4]: "routed"})
    held, other = world.plug("made", wants=wanted("8080", 4)), world.plug()
    (publication,) = held.endpoint.publications
    assert publication.host_port == 0
    servers = [Server(held.guest.path, "0.0.0.0", port, "routed") for port in (80, 81)]
    address = held.endpoint.ipv4
    assert ask(world.outside, address, 80) == f"routed {OUTSIDE}"
    assert ask(other.guest.path, address, 80).startswith("routed ")
    assert shell(world.outside, f"busybox ping -c 1 -w 2 {address}").count("bytes from") == 1
    with pytest.raises(OSError):
        ask(world.outside, address, 81, timeout=0.7)
    with pytest.raises(OSError):
        ask(world.outside, HOST, 8080, timeout=0.7)
    server = Server(world.outside, OUTSIDE, 88, "outside")
    assert ask(held.guest.path, OUTSIDE, 88) == f"outside {address}"
    world.unplug(held)
    for one in (*servers, server):
        one.close()


def test_an_unprotected_networks_ports_are_open_to_the_outside_and_not_to_other_networks(
    world: World,
) -> None:
    made(world, **{GATEWAY_MODES[4]: "nat-unprotected"})
    held, other = world.plug("made", wants=wanted("8080")), world.plug()
    servers = [Server(held.guest.path, "0.0.0.0", port, "bare") for port in (80, 81)]
    for address, port in ((held.endpoint.ipv4, 80), (held.endpoint.ipv4, 81), (HOST, 8080)):
        assert ask(world.outside, address, port).startswith("bare ")
    with pytest.raises(OSError):
        ask(other.guest.path, held.endpoint.ipv4, 81, timeout=0.7)
    for server in servers:
        server.close()


def test_interfaces_of_the_host_are_not_removed_with_a_network(world: World) -> None:
    shell(
        world.host, "ip link add theirs type veth peer name peer; ip link add br-theirs type bridge"
    )
    with pytest.raises(InternalError, match="existing interface theirs is not a bridge"):
        made(world, **{BRIDGE_NAME: "theirs"})
    assert world.manager.book.find("made") is None
    made(world, **{BRIDGE_NAME: "br-theirs"})
    world.run(world.manager.remove("made", {}))
    assert shell(world.host, "ip -o link show theirs; ip -o link show br-theirs").count("\n") == 2


def test_containers_that_share_a_sandbox_have_their_ports_apart(world: World) -> None:
    one = world.plug(wants=wanted("8080"))
    second = ContainerId(new_id())
    wish = Attachment(
        network=world.manager.get("bridge"),
        container=second,
        container_name="second",
        sandbox=one.endpoint.sandbox,
        uid=UID,
        wants=wanted("8081"),
    )
    endpoint = world.run(world.manager.attach(wish))
    world.run(world.manager.publish(second, UID))
    find = world.manager.publisher._helper.find
    helpers = [find(one.endpoint.sandbox, e.id) for e in (one.endpoint, endpoint)]
    assert all(helper is not None and helper.alive() for helper in helpers)
    world.run(world.manager.detach(second))
    left = find(one.endpoint.sandbox, one.endpoint.id)
    assert left is not None
    assert left.alive()
    for helper in (*helpers, left):
        assert helper is not None
        helper.close()
