"""Subnets, addresses, MACs: what networks and endpoints are given."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import Forbidden, InternalError, InvalidParameter
from hyperstack.network import ipam
from hyperstack.network.ipam import Pool
from hyperstack.network.rows import Subnet

POOLS = (("172.17.0.0/12", 16), ("192.168.0.0/16", 20))


def test_subnets_come_from_the_pools_in_order() -> None:
    taken: list[IPv4Network] = []
    for _ in range(16):
        taken.append(ipam.choose_subnet(POOLS, taken))
    names = [str(network) for network in taken]
    assert names[:2] == ["172.17.0.0/16", "172.18.0.0/16"]
    assert names[14:] == ["172.31.0.0/16", "192.168.0.0/20"]


def test_pools_run_out_in_dockers_words() -> None:
    with pytest.raises(InvalidParameter, match="all predefined address pools have been fully"):
        ipam.choose_subnet((("10.0.0.0/24", 25),), [ip_network("10.0.0.0/8")])
    with pytest.raises(InvalidParameter):
        ipam.choose_subnet((("10.0.0.0/24", 16),), [])


@given(
    st.lists(st.integers(0, (1 << 20) - 1).map(lambda n: IPv4Network((n << 12, 20))), max_size=9)
)
def test_a_chosen_subnet_overlaps_nothing_that_is_taken(taken: list[IPv4Network]) -> None:
    assert not ipam.overlaps(ipam.choose_subnet(POOLS, taken), taken)


def test_ipv6_subnets_are_unique_local_stable_and_different() -> None:
    first = ipam.choose_subnet6("host", [])
    assert first == ipam.choose_subnet6("host", [])
    assert first.subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]  # it is IPv6
    assert ipam.choose_subnet6("host", [first]) != first
    assert ipam.choose_subnet6("other", []) != first


def test_addresses_are_the_lowest_free_ones() -> None:
    pool = Pool(subnet=ipam.settle(Subnet(subnet="10.0.0.0/29")))
    assert pool.subnet.gateway == "10.0.0.1"
    taken = [str(pool.take()) for _ in range(5)]
    assert taken == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(InternalError, match="no available IPv4 addresses"):
        pool.take()
    pool.give("10.0.0.4")
    assert str(pool.take()) == "10.0.0.4"


def test_reserved_addresses_are_nobodys() -> None:
    pool = Pool(
        subnet=ipam.settle(
            Subnet(subnet="10.0.0.0/24", gateway="10.0.0.2", auxiliary={"router": "10.0.0.1"})
        )
    )
    assert str(pool.take()) == "10.0.0.3"
    for wish in ("10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.255", "10.0.0.3"):
        with pytest.raises(Forbidden, match="Address already in use"):
            pool.take(wish)
    for wish in ("10.0.1.1", "ten", "fd00::1"):
        with pytest.raises(InvalidParameter):
            pool.take(wish)


@given(
    st.integers(16, 30),
    st.lists(st.sampled_from(["take", "give"]), max_size=60),
)
def test_no_address_is_given_twice(prefix: int, steps: list[str]) -> None:
    subnet = ipam.settle(Subnet(subnet=f"10.0.0.0/{prefix}"))
    pool = Pool(subnet=subnet)
    mine: list[object] = []
    for step in steps:
        if step == "give" and mine:
            pool.give(str(mine.pop(0)))
            continue
        try:
            address = pool.take()
        except InternalError:
            assert len(mine) == (1 << (32 - prefix)) - 3
            continue
        assert address not in mine
        assert address in ip_network(subnet.subnet)
        assert str(address) != subnet.gateway
        mine.append(address)


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        (Subnet(subnet="10.0.0.1/24"), "it should be 10.0.0.0/24"),
        (Subnet(subnet="10.0.0.0"), "invalid CIDR block notation"),
        (Subnet(subnet="10.0.0.0/024"), "invalid CIDR block notation"),
        (Subnet(subnet="x"), "invalid subnet x"),
        (
            Subnet(subnet="10.0.0.0/24", gateway="10.0.1.1"),
            "invalid gateway 10.0.1.1: parent subnet",
        ),
        (Subnet(subnet="10.0.0.0/24", ip_range="10.0.1.0/25"), "invalid ip-range 10.0.1.0/25"),
        (Subnet(subnet="10.0.0.0/24", ip_range="10.0.0.0/16"), "invalid ip-range"),
        (Subnet(subnet="10.0.0.0/24", ip_range="fd00::/64"), "invalid ip-range"),
        (Subnet(subnet="10.0.0.0/24", auxiliary={"a": "10.9.0.1"}), "invalid auxiliary"),
    ],
)
def test_a_wrong_subnet_is_refused(subnet: Subnet, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        ipam.settle(subnet)


def test_macs_are_made_from_addresses() -> None:
    assert ipam.mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
    made = ipam.mac_from("any text")
    assert made == ipam.mac_from("any text")
    assert made.startswith("02:42:")


def test_an_interface_is_an_address_with_its_subnets_prefix() -> None:
    assert ipam.interface("10.0.0.5", Subnet(subnet="10.0.0.0/20")) == "10.0.0.5/20"
    assert ip_address("10.0.0.5")
