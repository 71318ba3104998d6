"""Ports: what is asked for, which are given, what conflicts."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InvalidParameter
from hyperstack.model import PortBinding
from hyperstack.network import ports
from hyperstack.network.ports import Occupied, PortTable, Want
from hyperstack.network.rows import Publication

GUEST = "10.0.0.2"


def asked(bindings: dict[str, tuple[PortBinding, ...]], **more: object) -> list[Want]:
    options: dict[str, object] = {"publish_all": False, "default_address": "0.0.0.0", "ipv6": True}
    exposed = tuple(bindings)
    return ports.wants(bindings, exposed, **{**options, **more})  # type: ignore[arg-type]  # as given


def test_a_port_without_an_address_is_wanted_on_both_families() -> None:
    (want,) = asked({"80/tcp": (PortBinding(host_port="8080"),)})
    assert want.addresses == ("0.0.0.0", "::")
    assert (want.first, want.last) == (8080, 8080)
    (want,) = asked({"80/tcp": (PortBinding(),)}, ipv6=False)
    assert want.addresses == ("0.0.0.0",)
    assert (want.protocol, want.first, want.last) == ("tcp", 0, 0)


def test_an_address_is_taken_as_it_is_written() -> None:
    for host_ip, address in (("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")):
        (want,) = asked({"80/tcp": (PortBinding(host_ip=host_ip, host_port="1"),)})
        assert want.addresses == (address,)
    (want,) = asked({"80/tcp": (PortBinding(),)}, default_address="10.0.0.1")
    assert want.addresses == ("10.0.0.1",)


def test_what_is_not_exposed_is_not_published() -> None:
    bindings = {"80/tcp": (PortBinding(host_port="8080"),), "81/tcp": ()}
    found = ports.wants(
        bindings, ("81", "82/udp"), publish_all=False, default_address="0.0.0.0", ipv6=False
    )
    assert found == []


def test_a_range_that_others_have_is_said_to_be_allocated() -> None:
    table, port = PortTable((40000, 40010)), free_port()
    taken = closed(table.take(local(port), GUEST))
    with pytest.raises(Occupied, match=f"Bind for 127.0.0.1:{port} failed"):
        table.take(local(port), GUEST)
    table.hold(Publication(protocol="tcp", port=1, host_ip="0.0.0.0", host_port=port + 1))
    with pytest.raises(Occupied, match="all ports are allocated"):
        table.take(local(port, last=port + 1), GUEST)
    table.give(taken)
    assert closed(table.take(local(port, last=port + 1), GUEST))[0].host_port == port


def test_fixed_ports_are_taken_before_random_ones() -> None:
    found = asked({"1/tcp": (PortBinding(),), "2/tcp": (PortBinding(host_port="32768"),)})
    assert [want.port for want in found] == [2, 1]


def test_all_exposed_ports_are_published_if_asked() -> None:
    found = ports.wants(
        {"80/tcp": (PortBinding(host_port="8080"),)},
        ("80/tcp", "53/udp"),
        publish_all=True,
        default_address="0.0.0.0",
        ipv6=False,
    )
    assert [(w.protocol, w.port, w.first) for w in found] == [("tcp", 80, 8080), ("udp", 53, 0)]


@given(st.text(max_size=14))
def test_a_port_is_read_or_refused(text: str) -> None:
    try:
        numbers, protocol = ports.parse(text)
    except InvalidParameter:
        return
    assert protocol in ("tcp", "udp", "sctp")
    assert 0 < numbers[0] <= numbers[-1] < 65536


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("80", True), ("80-90/udp", True), ("0/tcp", False), ("90-80", False), ("80/foo", False),
     ("", False), ("abc", False), ("70000", False)],
)  # fmt: skip
def test_what_is_no_port_is_told_from_what_is_one(text: str, wanted: bool) -> None:
    assert ports.is_port(text) is wanted


def test_too_many_ports_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="at most"):
        ports.wants({}, ("1-65535/tcp",), publish_all=True, default_address="::", ipv6=True)


@pytest.mark.parametrize("host_ip", ["nowhere", "1.2.3", "1.2.3.4/8"])
def test_a_wrong_address_is_refused(host_ip: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid host IP address"):
        asked({"80/tcp": (PortBinding(host_ip=host_ip),)})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def local(port: int, address: str = "127.0.0.1", last: int = 0) -> Want:
    return Want(protocol="tcp", port=80, addresses=(address,), first=port, last=last or port)


def closed(bound: list[ports.Bound]) -> list[Publication]:
    for _, sock in bound:
        sock.close()
    return [publication for publication, _ in bound]


def test_addresses_conflict_with_the_address_of_all() -> None:
    table, port = PortTable((40000, 40010)), free_port()
    first = closed(table.take(local(port), GUEST))
    closed(table.take(local(port, "127.0.0.2"), GUEST))
    for address in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(
            Occupied, match=rf"Bind for 127\.0\.0\..:{port} failed: port is already"
        ):
            table.take(local(port, address), GUEST)
    table.give(first)
    closed(table.take(local(port), GUEST))


def test_random_ports_go_round_in_their_range() -> None:
    table = PortTable((40000, 40002))
    wish = Want(protocol="udp", port=1, addresses=("127.0.0.1",), first=0, last=0)
    got = [closed(table.take(wish, GUEST))[0] for _ in range(3)]
    assert len({p.host_port for p in got}) == 3
    with pytest.raises(Occupied, match="all ports are allocated"):
        table.take(wish, GUEST)
    table.give(got[:1])
    assert closed(table.take(wish, GUEST)) == got[:1]


def test_a_port_that_fails_on_one_address_is_not_kept_on_another() -> None:
    table, port = PortTable((40000, 40010)), free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.2", port))
        other.listen()
        both = Want(protocol="tcp", port=80, addresses=("127.0.0.1", "127.0.0.2"), first=port,
                    last=port)  # fmt: skip
        words = (
            rf"failed to bind host port for 127\.0\.0\.2:{port}:10\.0\.0\.2:80/tcp: address already"
        )
        with pytest.raises(Occupied, match=words):
            table.take(both, GUEST)
    closed(table.take(both, GUEST))
