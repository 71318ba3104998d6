"""The text of the rules: what the table and a NIC's guard are made of."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from hyperstack.ids import NetworkId
from hyperstack.network import firewall, guard
from hyperstack.network.firewall import Policy, Published
from hyperstack.network.guard import Guarded
from hyperstack.network.rows import (
    HOST_ACCESS,
    HOST_IPV4,
    ICC,
    MASQUERADE,
    Network,
    Publication,
    Subnet,
)
from hyperstack.network.table import removes_ours


def network(name: str, subnet: str, **more: object) -> Network:
    return Network(
        id=NetworkId(name),
        name=name,
        created_ns=0,
        bridge=f"br-{name}",
        subnets=(Subnet(subnet=subnet, gateway=subnet.replace("0/16", "1")),),
        **more,  # type: ignore[arg-type]  # fields of the row
    )


def published(host_ip: str, address: str, protocol: str = "tcp") -> Published:
    return Published(
        publication=Publication(protocol=protocol, port=80, host_ip=host_ip, host_port=8080),
        address=address,
    )


def line(text: str, begin: str) -> str:
    return next(line.strip() for line in text.splitlines() if line.strip().startswith(begin))


def test_the_table_replaces_itself_in_one_transaction() -> None:
    text = firewall.table(Policy())
    assert text.splitlines()[:3] == [
        "table inet hyper { }",
        "delete table inet hyper",
        "table inet hyper {",
    ]


def test_sets_name_the_bridges_by_what_they_may() -> None:
    text = firewall.table(
        Policy(
            networks=[
                network("plain", "10.1.0.0/16"),
                network("inner", "10.2.0.0/16", internal=True),
                network("lone", "10.3.0.0/16", options={ICC: "false"}),
                network("open", "10.4.0.0/16", options={HOST_ACCESS: "true"}),
            ]
        )
    )
    assert '"br-plain", "br-inner", "br-lone", "br-open"' in line(text, "set bridges")
    assert 'elements = { "br-inner" }' in line(text, "set internal")
    assert 'elements = { "br-open" }' in line(text, "set open")
    assert "br-lone" not in line(text, "set same")


def test_only_networks_that_lead_outside_are_masqueraded() -> None:
    networks = [
        network("plain", "10.1.0.0/16"),
        network("inner", "10.2.0.0/16", internal=True),
        network("routed", "10.3.0.0/16", options={MASQUERADE: "false"}),
    ]
    text = firewall.table(Policy(networks=networks))
    assert 'ip saddr 10.1.0.0/16 oifname != "br-plain" masquerade' in text
    assert "10.2.0.0/16 oifname" not in text
    assert "10.3.0.0/16 oifname" not in text


def test_the_daemon_lets_the_host_route_for_nobody_else_if_it_made_it_a_router() -> None:
    def last(guarded: bool) -> str:
        return firewall.table(Policy(guarded=guarded)).splitlines()[-3].strip()

    assert last(True) == "drop"
    assert last(False) == "oifname @bridges goto forwarded"


def test_ports_become_elements_of_the_map_of_their_kind() -> None:
    many = (
        published("0.0.0.0", "172.17.0.2"),
        published("127.0.0.1", "172.17.0.2", "udp"),
        published("::", "fd00::2"),
        published("2001:db8::1", "fd00::2"),
    )
    assert firewall.publish(many).splitlines() == [
        "add element inet hyper any4 { tcp . 8080 : 172.17.0.2 . 80 }",
        "add element inet hyper at4 { 127.0.0.1 . udp . 8080 : 172.17.0.2 . 80 }",
        "add element inet hyper any6 { tcp . 8080 : fd00::2 . 80 }",
        "add element inet hyper at6 { 2001:db8::1 . tcp . 8080 : fd00::2 . 80 }",
    ]
    assert firewall.withdraw(many) == firewall.publish(many).replace("add", "delete")
    text = firewall.table(Policy(published=many))
    assert "elements = { tcp . 8080 : 172.17.0.2 . 80 }" in line(text, "map any4")


def test_what_no_rule_can_carry_has_none() -> None:
    others = (
        published("::", "172.17.0.2"),
        published("::1", "fd00::2"),
        published("0.0.0.0", "fd00::2"),
    )
    assert firewall.publish(others) == ""


def test_a_nics_guard_lets_its_own_addresses_pass_and_drops_the_rest() -> None:
    text = guard.text(
        Guarded(tap="nic1", veth="net1", mac="02:42:ac:11:00:02",
                ipv4=[IPv4Address("172.17.0.2")])
    )  # fmt: skip
    assert text.count("policy drop;") == 2
    assert text.startswith("table netdev nic1 {")
    assert "ether saddr != 02:42:ac:11:00:02 drop" in text
    assert 'ip saddr { 172.17.0.2 } fwd to "net1"' in text
    assert "ip6" not in text
    assert guard.removal("nic1") == "delete table netdev nic1"


def test_ipv6_passes_only_where_the_nic_has_it() -> None:
    text = guard.text(
        Guarded(tap="nic1", veth="net1", mac="02:42:ac:11:00:02", ipv6=[IPv6Address("fd00::2")])
    )
    assert "fe80::42:acff:fe11:2" in text
    assert "nd-router-advert, nd-redirect } drop" in text
    assert "arp" not in text


def test_a_nic_without_addresses_passes_nothing() -> None:
    assert "fwd" not in guard.text(Guarded(tap="a", veth="b", mac="02:42:ac:11:00:02"))


def test_link_local_addresses_are_made_from_macs() -> None:
    assert guard.link_local("00:1b:21:aa:bb:cc") == IPv6Address("fe80::21b:21ff:feaa:bbcc")


def test_only_the_removal_of_our_table_is_heard() -> None:
    def message(kind: int, name: bytes) -> bytes:
        body = b"\1\0\0\0" + struct.pack("HH", 5 + len(name), 1) + name + b"\0"
        body += b"\0" * (-len(body) % 4)
        return struct.pack("IHHII", 16 + len(body), kind, 0, 0, 0) + body

    assert removes_ours(message(0x0A02, b"hyper"))
    assert removes_ours(message(0x0A00, b"x") + message(0x0A02, b"hyper"))
    assert not removes_ours(message(0x0A02, b"other"))
    assert not removes_ours(message(0x0A00, b"hyper"))
    assert not removes_ours(b"")
    assert not removes_ours(b"\0" * 40)


def test_containers_leave_under_the_address_that_their_network_names() -> None:
    fixed = network("fixed", "10.5.0.0/16", options={HOST_IPV4: "192.0.2.7"})
    text = firewall.table(Policy(networks=[fixed]))
    assert 'ip saddr 10.5.0.0/16 oifname != "br-fixed" snat ip to 192.0.2.7' in text
