"""What a hostile guest can't do, and what keeps networks apart."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

import pytest

from hyperstack.network.rows import ICC, Subnet
from hyperstack.network.settle import NetworkSpec
from hyperstack.platform import netns
from tests.integration.network.test_publish import want
from tests.integration.network.world import HOST, OUTSIDE, Held, Server, World, ask, shell

ETH_P_ALL = 0x0003
BROADCAST = b"\xff" * 6
OTHER_MAC = bytes.fromhex("0242deadbeef")


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target))  # fmt: skip
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(source: str, target: str, next_header: int, payload: bytes) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(payload), next_header, 255) + b"".join(
        socket.inet_pton(socket.AF_INET6, address) for address in (source, target)
    ) + payload  # fmt: skip


def icmp6(source: str, target: str, kind: int, body: bytes) -> bytes:
    payload = struct.pack(">BBH", kind, 0, 0) + body
    pseudo = b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (source, target))
    pseudo += struct.pack(">II", len(payload), 58)
    total = checksum(pseudo + payload + b"\0" * (len(payload) % 2))
    return ipv6(source, target, 58, struct.pack(">BBH", kind, 0, total) + body)


def udp(source: int, target: int, payload: bytes = b"spoof") -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def arp(sender_mac: bytes, sender: str, target: str) -> bytes:
    return struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, sender_mac, socket.inet_aton(sender),
                       b"\0" * 6, socket.inet_aton(target))  # fmt: skip


def seen(world: World, held: Held, frame: bytes, mark: Callable[[bytes], bool]) -> bool:
    """Tell whether a frame that the guest sends arrives at the bridge."""
    sniffer = netns.in_netns(
        world.host,
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)),
    )
    with sniffer:
        sniffer.bind((held.endpoint.veth, 0))
        sniffer.settimeout(0.15)
        held.guest.send_raw(frame)
        bound = time.monotonic() + 0.3
        while time.monotonic() < bound:
            try:
                if mark(sniffer.recv(65536)):
                    return True
            except TimeoutError:
                return False
        return False


def frame(source: bytes, kind: int, payload: bytes, target: bytes = BROADCAST) -> bytes:
    return target + source + struct.pack(">H", kind) + payload


def test_a_guest_can_not_forge_what_it_is(world: World) -> None:
    held = world.plug()
    mine, address = mac(held.endpoint.mac), held.endpoint.ipv4

    def passes(sent: bytes) -> bool:
        return seen(world, held, sent, lambda got: got[12:] == sent[12:])

    good = ipv4(address, "172.17.255.255", 17, udp(1000, 1000))
    assert passes(frame(mine, 0x0800, good))
    assert passes(frame(mine, 0x0806, arp(mine, address, "172.17.0.1")))
    forged = {
        "MAC": frame(OTHER_MAC, 0x0800, good),
        "IPv4": frame(mine, 0x0800, ipv4("172.17.0.1", "172.17.255.255", 17, udp(1, 1))),
        "no IPv4": frame(mine, 0x0800, ipv4("0.0.0.0", "255.255.255.255", 17, udp(68, 67))),
        "ARP address": frame(mine, 0x0806, arp(mine, "172.17.0.1", "172.17.0.1")),
        "ARP MAC": frame(mine, 0x0806, arp(OTHER_MAC, address, "172.17.0.1")),
        "DHCP server": frame(mine, 0x0800, ipv4(address, "255.255.255.255", 17, udp(67, 68))),
        "VLAN": frame(mine, 0x8100, struct.pack(">HH", 5, 0x0800) + good),
        "IPv6": frame(mine, 0x86DD, ipv6("fe80::42:acff:fe11:2", "ff02::1", 17, udp(1, 1))),
        "spanning tree": bytes.fromhex("0180c2000000") + mine + b"\x00\x26\x42\x42\x03" + bytes(38),
        "LLDP": frame(mine, 0x88CC, bytes(46)),
    }
    for what, sent in forged.items():
        assert not passes(sent), what


def test_a_guest_can_not_forge_ipv6_neighbours_or_routers(world: World) -> None:
    spec = NetworkSpec(name="six", enable_ipv6=True, subnets=(Subnet(subnet="fd00:1::/64"),))
    world.run(world.manager.create(spec))
    held = world.plug("six")
    mine = mac(held.endpoint.mac)
    address = held.endpoint.ipv6

    def passes(payload: bytes) -> bool:
        sent = frame(mine, 0x86DD, payload, bytes.fromhex("333300000001"))
        return seen(world, held, sent, lambda got: got[14:] == payload)

    def advert(target: str, source: str = address) -> bytes:
        body = bytes([0x20, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, target)
        return icmp6(source, "ff02::1", 136, body + b"\x02\x01" + mine)

    assert passes(advert(address))
    assert not passes(advert("fd00:1::1")), "neighbour advertisement of the gateway"
    assert not passes(advert(address, "fd00:1::1")), "source"
    assert not passes(icmp6(address, "ff02::1", 134, bytes(12))), "router advertisement"
    assert not passes(icmp6(address, "ff02::1", 137, bytes(36))), "redirect"
    hidden = ipv6(address, "ff02::1", 0, bytes([58, 0, 1, 4, 0, 0, 0, 0])
                  + icmp6(address, "ff02::1", 134, bytes(12))[40:])  # fmt: skip
    assert not passes(hidden), "router advertisement behind an extension header"
    assert not passes(ipv6(address, "ff02::1", 17, udp(547, 546))), "DHCPv6 server"


def test_what_a_guest_sends_does_not_come_back_to_it_or_to_those_it_is_not_for(
    world: World,
) -> None:
    one, two = world.plug(), world.plug()
    stray = frame(mac(one.endpoint.mac), 0x0800,
                  ipv4(one.endpoint.ipv4, "172.17.0.99", 17, udp(7, 7)), OTHER_MAC)  # fmt: skip
    for held in (one, two):
        sniffer = netns.in_netns(
            held.guest.path,
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)),
        )
        with sniffer:
            sniffer.settimeout(0.3)
            one.guest.send_raw(stray)
            bound = time.monotonic() + 0.3
            while time.monotonic() < bound:
                try:
                    assert sniffer.recv(65536)[12:] != stray[12:]
                except TimeoutError:
                    break


def test_the_agents_link_carries_nothing_but_the_agents_connection(world: World) -> None:
    held = world.plug()
    sandbox = world.sandboxes.path(held.endpoint.sandbox)
    text = shell(sandbox, "ip -o addr; cat /proc/sys/net/ipv4/ip_forward; ip neigh show dev agent0")
    assert "169.254.77.1/30" in text
    assert "\n0\n" in text
    assert "169.254.77.2 lladdr 02:48:59:50:00:01 PERMANENT" in text
    assert "inet6" not in text.replace("inet6 ::1/128", "")
    server = Server(sandbox, "0.0.0.0", 4000, "daemon's side")
    with pytest.raises(OSError):
        ask(held.guest.path, "169.254.77.1", 4000, timeout=0.5)
    server.close()


def test_networks_are_kept_apart_but_published_ports_are_for_all(world: World) -> None:
    world.run(world.manager.create(NetworkSpec(name="blue")))
    red = world.plug(wants=want(80, "8080"))
    blue = world.plug("blue")
    server = Server(red.guest.path, "0.0.0.0", 80, "red")
    with pytest.raises(OSError):
        ask(blue.guest.path, red.endpoint.ipv4, 80, timeout=0.7)
    assert ask(blue.guest.path, HOST, 8080).startswith("red ")
    assert ask(blue.guest.path, "172.17.0.1", 8080).startswith("red ")
    server.close()


def test_an_internal_network_leads_nowhere(world: World) -> None:
    world.run(world.manager.create(NetworkSpec(name="inner", internal=True)))
    one, two = world.plug("inner"), world.plug("inner")
    published = world.plug(wants=want(80, "8080"))
    outside = Server(world.outside, OUTSIDE, 80, "outside")
    inner = Server(two.guest.path, "0.0.0.0", 80, "two")
    web = Server(published.guest.path, "0.0.0.0", 80, "web")
    assert ask(one.guest.path, two.endpoint.ipv4, 80).startswith("two")
    for address, port in ((OUTSIDE, 80), (HOST, 8080), (published.endpoint.ipv4, 80)):
        with pytest.raises(OSError):
            ask(one.guest.path, address, port, timeout=0.5)
    for server in (outside, inner, web):
        server.close()


def test_without_icc_containers_reach_the_outside_but_not_each_other(world: World) -> None:
    world.run(world.manager.create(NetworkSpec(name="lone", options={ICC: "false"})))
    one, two = world.plug("lone"), world.plug("lone")
    outside = Server(world.outside, OUTSIDE, 80, "outside")
    inner = Server(two.guest.path, "0.0.0.0", 80, "two")
    assert ask(one.guest.path, OUTSIDE, 80).startswith("outside")
    gateway = world.manager.get("lone").subnets[0].gateway
    with pytest.raises(OSError):
        ask(one.guest.path, two.endpoint.ipv4, 80, timeout=0.5)
    shell(one.guest.path, f"ip route add {two.endpoint.ipv4}/32 via {gateway}")
    with pytest.raises(OSError):
        ask(one.guest.path, two.endpoint.ipv4, 80, timeout=0.5)
    for server in (outside, inner):
        server.close()


def test_nobody_asks_a_cloud_for_the_hosts_credentials(world: World) -> None:
    held = world.plug()
    shell(world.outside, "ip addr add 169.254.169.254/32 dev lo")
    shell(world.host, f"ip route add 169.254.169.254/32 via {OUTSIDE}")
    server = Server(world.outside, "169.254.169.254", 80, "metadata")
    assert ask(world.host, "169.254.169.254", 80).startswith("metadata")
    with pytest.raises(OSError):
        ask(held.guest.path, "169.254.169.254", 80, timeout=0.5)
    server.close()


def test_a_host_that_routed_for_nobody_routes_for_containers_only(world: World) -> None:
    other = world.namespace("other")
    shell(
        world.host,
        "ip link add lan type veth peer name peer; ip addr add 10.9.0.1/24 dev lan; "
        "ip link set lan up",
    )
    world.move("peer", other)
    shell(
        other,
        "ip addr add 10.9.0.2/24 dev peer; ip link set peer up; ip route add default via 10.9.0.1",
    )
    shell(world.outside, f"ip route add 10.9.0.0/24 via {HOST}")
    server = Server(world.outside, OUTSIDE, 80, "outside")
    with pytest.raises(OSError):
        ask(other, OUTSIDE, 80, timeout=0.7)
    shell(world.host, "nft delete table inet hyper")  # so it was the table and nothing else
    assert ask(other, OUTSIDE, 80, timeout=0.7).startswith("outside")
    server.close()


def test_a_dual_stack_network_works_in_ipv6_too(world: World) -> None:
    spec = NetworkSpec(name="six", enable_ipv6=True)
    network = world.run(world.manager.create(spec))
    assert [s.version for s in network.subnets] == [4, 6]
    held = world.plug("six", wants=want(80, "8080"))
    other = world.plug("six")
    server = Server(held.guest.path, "::", 80, "six")
    outside = Server(world.outside, "2001:db8::2", 80, "outside")
    assert ask(other.guest.path, held.endpoint.ipv6, 80) == f"six {other.endpoint.ipv6}"
    assert ask(held.guest.path, "2001:db8::2", 80) == "outside 2001:db8::1"
    assert ask(world.outside, "2001:db8::1", 8080) == "six 2001:db8::2"
    assert ask(world.host, "::1", 8080).startswith("six ")
    server.close()
    outside.close()
