"""What the engine makes of a container's wishes: order, names, files, answers to DNS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from hyperstack.config import Config
from hyperstack.engine import naming, networking, wishes
from hyperstack.engine.core import Core
from hyperstack.engine.table import Table
from hyperstack.errors import HyperError, InvalidParameter
from hyperstack.events import EventBus
from hyperstack.guest import messages
from hyperstack.ids import ContainerId, EndpointId, NetworkId, new_id
from hyperstack.model import (
    Container,
    ContainerConfig,
    ContainerState,
    EndpointSettings,
    HostConfig,
)
from hyperstack.network import dns
from hyperstack.network.manager import NetworkManager
from hyperstack.network.rows import Endpoint, Network, Publication, Subnet
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.store.database import Database
from tests.unit.network.test_dns import query, read_records


@dataclass
class Parts:
    """The parts of the engine that networks touch; the real ones."""

    config: Config
    db: Database
    table: Table
    networks: NetworkManager

    @property
    def core(self) -> Core:
        return cast(Core, self)


@pytest.fixture
async def parts(tmp_path: Path) -> Iterator[Parts]:  # type: ignore[misc]  # an async generator
    config = Config(data_root=tmp_path, exec_root=tmp_path, dns=("9.9.9.9",))
    db = Database(tmp_path / "hyper.db")
    manager = NetworkManager(config, db, SandboxNetwork(config), EventBus())
    for name, driver, subnet, internal in (
        ("bridge", "bridge", "172.17.0.0/16", False),
        ("blue", "bridge", "172.18.0.0/16", False),
        ("inner", "bridge", "172.19.0.0/16", True),
        ("host", "host", "", False),
        ("none", "null", "", False),
    ):
        gateway = subnet.replace("0.0/16", "0.1")
        manager.book.put(
            Network(
                id=NetworkId(new_id()),
                name=name,
                created_ns=0,
                driver=driver,
                internal=internal,
                subnets=(Subnet(subnet=subnet, gateway=gateway),) if subnet else (),
                bridge=f"br-{name}" if subnet else "",
            )
        )
    yield Parts(config=config, db=db, table=Table(db), networks=manager)
    db.close()


async def add(parts: Parts, name: str, *networks: str, **host: object) -> Container:
    """Add a container with an endpoint on each network, as if it ran."""
    container = Container(
        id=ContainerId(new_id()),
        name=name,
        created_ns=0,
        image_id="",
        config=ContainerConfig(hostname=f"{name}-host"),
        host=HostConfig(**host),  # type: ignore[arg-type]  # as a client would set it
        networks={
            network: EndpointSettings(aliases=() if network == "bridge" else (f"{name}-alias",))
            for network in networks
        },
        state=ContainerState(),
    )
    await parts.table.add(container)
    for number, network in enumerate(networks):
        found = parts.networks.get(network)
        pool = parts.networks.book.pool(found, 4)
        assert pool is not None
        parts.networks.book.add(
            Endpoint(
                id=EndpointId(new_id()),
                network=found.id,
                container=container.id,
                sandbox="s",
                mac=f"02:42:00:00:00:0{number}",
                interface=f"eth{number}",
                ipv4=str(pool.take()),
            )
        )
    return container


def answer(parts: Parts, container: Container, name: str, kind: int = 1) -> list[bytes] | None:
    made = naming._own_answer(parts.core, container, dns.parse(query(name, kind)))
    return None if made is None else [data for _, data in read_records(made)]


async def test_containers_of_a_user_defined_network_find_each_other(parts: Parts) -> None:
    web, db = await add(parts, "web", "blue"), await add(parts, "db", "blue")
    for name in ("db", "DB", "db-alias", "db-host", db.id[:12], "db.blue", "web"):
        assert answer(parts, web, name), name
    assert answer(parts, web, "db") == [bytes([172, 18, 0, 3])]
    assert answer(parts, web, "db", dns.Type.AAAA) == []
    assert answer(parts, web, "3.0.18.172.in-addr.arpa", dns.Type.PTR) == [b"\2db\4blue\0"]
    assert answer(parts, web, "example.com") is None
    assert answer(parts, web, "9.0.18.172.in-addr.arpa", dns.Type.PTR) is None


async def test_an_alias_of_several_containers_means_all_of_them(parts: Parts) -> None:
    one, two = await add(parts, "one", "blue"), await add(parts, "two", "blue")
    for container in (one, two):
        container.networks = {"blue": EndpointSettings(aliases=("pool",))}
    assert sorted(answer(parts, one, "pool") or []) == [b"\xac\x12\0\2", b"\xac\x12\0\3"]


async def test_a_link_is_a_name_for_one_container_alone(parts: Parts) -> None:
    web, db = await add(parts, "web", "blue"), await add(parts, "db", "blue")
    web.networks = {"blue": EndpointSettings(links=("db:store",))}
    assert answer(parts, web, "store") == [bytes([172, 18, 0, 3])]
    assert answer(parts, db, "store") is None


async def test_nobody_is_found_on_the_default_bridge_or_on_another_network(parts: Parts) -> None:
    web = await add(parts, "web", "bridge", "blue")
    await add(parts, "plain", "bridge")
    await add(parts, "far", "inner")
    assert answer(parts, web, "plain") is None
    assert answer(parts, web, "far") is None


async def test_an_internal_network_forwards_nothing(parts: Parts) -> None:
    inner = await add(parts, "inner1", "inner")
    both = await add(parts, "both", "inner", "blue")
    assert not naming._leads_outside(parts.core, inner)
    assert naming._leads_outside(parts.core, both)
    assert answer(parts, inner, "both") == [b"\xac\x13\0\3"]


async def test_interfaces_are_ordered_by_priority_then_way_out_then_name(parts: Parts) -> None:
    container = await add(parts, "web", "inner", "blue", "bridge")
    order = networking._resolve(parts.core, container)
    assert [network.name for network, _ in order] == ["blue", "bridge", "inner"]
    container.networks = {**container.networks, "bridge": EndpointSettings(gw_priority=1)}
    order = networking._resolve(parts.core, container)
    assert [network.name for network, _ in order] == ["bridge", "blue", "inner"]


async def test_modes_that_a_machine_of_its_own_can_not_have_are_refused(parts: Parts) -> None:
    host = await add(parts, "a", network_mode="host")
    with pytest.raises(InvalidParameter, match="publish ports with -p instead"):
        networking._resolve(parts.core, host)


@pytest.mark.parametrize(
    ("network", "wish", "words"),
    [
        ("bridge", EndpointSettings(ipv4_address="172.17.0.9"), "on user defined networks only"),
        (
            "bridge",
            EndpointSettings(aliases=("x",)),
            "supported only for containers in user",
        ),
    ],
)
async def test_the_default_bridge_takes_no_wishes(
    parts: Parts, network: str, wish: EndpointSettings, words: str
) -> None:
    with pytest.raises(HyperError, match=words):
        wishes.check(parts.networks.get(network), network, wish)


async def test_a_nic_has_the_default_route_only_if_it_leads_outside(parts: Parts) -> None:
    container = await add(parts, "web", "inner", "blue")
    book = parts.networks.book
    pairs = [(e, n) for e in book.of(container.id) if (n := book.by_id(e.network)) is not None]
    gateways = networking._gateways(pairs)
    nics = [networking.nic_of(parts.core, e, n, gateways) for e, n in pairs]
    assert [nic.gateway4 for nic in nics] == ["", "172.18.0.1"]
    assert [nic.addresses for nic in nics] == [("172.19.0.2/16",), ("172.18.0.2/16",)]
    state = networking.state_of(*pairs[1], container)
    assert (state.gateway, state.ip_address, state.prefix_length) == (
        "172.18.0.1", "172.18.0.2", 16,
    )  # fmt: skip
    assert state.dns_names == ("web", "web-alias", container.id[:12], "web-host")
    assert networking.state_of(*pairs[0], container).gateway == ""


async def test_files_are_those_of_the_network_and_of_the_user(parts: Parts) -> None:
    container = await add(
        parts, "web", "bridge", extra_hosts=("up:host-gateway",), dns_search=("corp",)
    )
    book = parts.networks.book
    pairs = [(e, n) for e in book.of(container.id) if (n := book.by_id(e.network)) is not None]
    made = {m.target: m for m in networking._files(parts.core, container, pairs)}
    assert made["/etc/hosts"].content.endswith(b"172.17.0.1\tup\n172.17.0.2\tweb-host\n")
    assert made["/etc/hostname"].content == b"web-host\n"
    assert b"nameserver 9.9.9.9\nsearch corp" in made["/etc/resolv.conf"].content
    assert {m.mode for m in made.values()} == {0o644}
    assert {m.kind for m in made.values()} == {messages.MountKind.FILE}


async def test_ports_are_shown_as_bound_and_as_exposed() -> None:
    endpoint = Endpoint(
        id=EndpointId("e"),
        network=NetworkId("n"),
        container=ContainerId("c"),
        sandbox="s",
        mac="",
        publications=tuple(
            Publication(protocol="tcp", port=80, host_ip=ip, host_port=8080)
            for ip in ("0.0.0.0", "::")
        ),
        exposed=("443/tcp",),
    )
    found = networking.ports_of([endpoint])
    assert [(b.host_ip, b.host_port) for b in found["80/tcp"]] == [
        ("0.0.0.0", "8080"),
        ("::", "8080"),
    ]
    assert found["443/tcp"] == ()
