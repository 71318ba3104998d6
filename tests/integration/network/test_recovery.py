"""What a new daemon does with what an earlier one left, and what stays untouched."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperstack.errors import Conflict, Forbidden, HyperError, InvalidParameter, NotFound
from hyperstack.ids import ContainerId, new_id
from hyperstack.network.manager import Attachment
from hyperstack.network.rows import Subnet, load_endpoints
from hyperstack.network.settle import NetworkSpec
from tests.integration.network.test_publish import want
from tests.integration.network.world import HOST, OUTSIDE, UID, Server, World, ask, shell


def veths(world: World) -> list[str]:
    names = shell(world.host, "ip -o link | cut -d: -f2 | cut -d@ -f1")
    return [n.strip() for n in names.splitlines() if n.strip().startswith("hv")]


async def _attach(world: World, sandbox: str, **wish: object) -> str:
    await world.sandboxes.prepare(sandbox, UID)
    endpoint = await world.manager.attach(
        Attachment(
            network=world.manager.get("bridge"),
            container=ContainerId(new_id()),
            container_name="x",
            sandbox=sandbox,
            uid=UID,
            **wish,  # type: ignore[arg-type]  # what a test wants of it
        )
    )
    return endpoint.id


def test_what_no_container_wants_is_removed_by_the_next_daemon(world: World) -> None:
    kept = world.plug(wants=want(80, "8080"))
    lost = new_id()
    world.run(_attach(world, lost, wants=want(80, "8081")))
    shell(world.host, "ip link add hv0123456789ab type veth peer name hvx; "
          "ip link set hv0123456789ab master hyper0")  # fmt: skip
    assert len(set(veths(world))) >= 3
    world.crash()
    world.start()
    world.run(world.manager.adopt(kept.endpoint.container, UID))
    world.run(world.manager.reconcile({kept.endpoint.id}))
    assert [e.id for e in world.manager.book.endpoints()] == [kept.endpoint.id]
    assert not world.sandboxes.path(lost).exists()
    listed = shell(world.host, "ip -o link")
    assert kept.endpoint.veth in listed
    assert "hv0123456789ab" not in listed
    rules = shell(world.host, "nft list map inet hyper any4")
    assert "tcp . 8080" in rules
    assert "tcp . 8081" not in rules
    assert world.db is not None
    assert [e.id for e in load_endpoints(world.db)] == [kept.endpoint.id]


def test_other_peoples_interfaces_and_rules_are_left_alone(world: World) -> None:
    shell(
        world.host,
        "ip link add hv00000000abcd type veth peer name theirs; ip link add br9 type bridge; "
        "ip link set hv00000000abcd master br9; "
        "nft add table ip theirs; nft add chain ip theirs c; nft add rule ip theirs c counter",
    )
    world.crash()
    world.start()
    world.run(world.manager.reconcile(set()))
    assert "hv00000000abcd" in shell(world.host, "ip -o link")
    assert "counter" in shell(world.host, "nft list table ip theirs")


def test_killed_at_any_moment_nothing_is_left(world: World) -> None:
    world.stop()
    for step in range(8):
        daemon = subprocess.Popen(
            ["nsenter", f"--net={world.host}", "--", sys.executable, "-m",
             "tests.integration.network.plugger", str(world.config.data_root.parent)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"up\n"
        time.sleep(0.02 + step * 0.009)
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
        world.start()
        world.run(world.manager.reconcile(set()))
        assert veths(world) == []
        assert world.manager.book.endpoints() == []
        assert "elements" not in shell(world.host, "nft list map inet hyper any4")
        assert not list((world.config.exec_root / "netns").glob("*"))
        assert "LISTEN" not in shell(world.host, "ss -Hltn")
        if step < 7:
            world.stop()


def test_a_cancelled_plug_gives_everything_back_at_once(world: World) -> None:
    async def cut_short(delay: float) -> None:
        sandbox = new_id()
        task = asyncio.create_task(_attach(world, sandbox, wants=want(80, "8080")))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            await world.sandboxes.release(sandbox)
        else:
            await world.manager.detach(world.manager.book.endpoints()[0].container)
            await world.sandboxes.release(sandbox)

    for step in range(12):
        world.run(cut_short(step * 0.0007))
        assert world.manager.book.endpoints() == []
    held = world.plug(wants=want(80, "8080"))
    assert held.endpoint.ipv4 == "172.17.0.2"


def test_a_network_keeps_its_bridge_through_daemons_and_loses_it_when_removed(
    world: World,
) -> None:
    network = world.run(world.manager.create(NetworkSpec(name="blue")))
    assert network.subnets[0].subnet == "172.18.0.0/16"
    assert network.subnets[0].gateway == "172.18.0.1"
    before = shell(world.host, f"ip -o addr show {network.bridge}")
    world.crash()
    world.start()
    assert world.manager.get("blue") == network
    assert shell(world.host, f"ip -o addr show {network.bridge}") == before
    held = world.plug("blue")
    with pytest.raises(Forbidden, match=r"network blue has active endpoints \(name:\"web\""):
        world.run(world.manager.remove("blue", {ContainerId(held.endpoint.container): "web"}))
    world.unplug(held)
    world.run(world.manager.remove("blue", {}))
    assert network.bridge not in shell(world.host, "ip -o link")
    with pytest.raises(NotFound, match="network blue not found"):
        world.manager.get("blue")


def test_networks_are_refused_in_dockers_words(world: World) -> None:
    create = world.manager.create
    world.run(create(NetworkSpec(name="a", subnets=(Subnet(subnet="10.5.0.0/24"),))))
    refused: list[tuple[NetworkSpec, type[HyperError], str]] = [
        (NetworkSpec(name="a"), Conflict, "network with name a already exists"),
        (NetworkSpec(name="bridge"), Forbidden, "operation is not permitted on predefined"),
        (NetworkSpec(name="b", driver="weave"), NotFound, 'plugin "weave" not found'),
        (
            NetworkSpec(name="b", subnets=(Subnet(subnet="10.5.0.0/16"),)),
            Forbidden,
            "Pool overlaps with other one on this address space",
        ),
        (
            NetworkSpec(name="b", subnets=(Subnet(subnet="10.6.0.0/24", gateway="10.7.0.1"),)),
            InvalidParameter,
            "invalid gateway 10.7.0.1: parent subnet",
        ),
        (NetworkSpec(name="b", subnets=(Subnet(subnet="ten"),)), InvalidParameter, "ten"),
        (NetworkSpec(name=" "), InvalidParameter, "name is empty"),
    ]
    for spec, kind, words in refused:
        with pytest.raises(kind, match=words.replace("(", r"\(")):
            world.run(create(spec))
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        world.run(world.manager.remove("bridge", {}))


def test_addresses_are_given_by_name_or_lowest_first_and_given_again(world: World) -> None:
    spec = NetworkSpec(
        name="fixed",
        subnets=(Subnet(subnet="10.5.0.0/24", ip_range="10.5.0.128/25", gateway="10.5.0.1"),),
    )
    world.run(world.manager.create(spec))
    one, two = world.plug("fixed"), world.plug("fixed", ipv4="10.5.0.9")
    assert [h.endpoint.ipv4 for h in (one, two)] == ["10.5.0.128", "10.5.0.9"]
    assert one.endpoint.mac == "02:42:0a:05:00:80"
    with pytest.raises(Forbidden, match="Address already in use"):
        world.plug("fixed", ipv4="10.5.0.9")
    with pytest.raises(InvalidParameter, match="no configured subnet"):
        world.plug("fixed", ipv4="10.6.0.9")
    world.unplug(one)
    world.unplug(two)
    assert world.plug("fixed", ipv4="10.5.0.9").endpoint.ipv4 == "10.5.0.9"
    assert world.plug("fixed").endpoint.ipv4 == "10.5.0.128"
    chosen = world.plug("fixed", mac="02-42-00-00-00-07")
    assert chosen.endpoint.mac == "02:42:00:00:00:07"


def test_the_default_bridge_evades_what_the_host_routes(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        assert world.manager.get("bridge").subnets[0].subnet == "172.17.0.0/16"
        world.stop()
        shell(world.host, "ip link del hyper0; ip link add docker0 type dummy 2>/dev/null || "
              "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; "
              "ip link set docker0 up")  # fmt: skip
        (world.config.data_root / "hyper.db").unlink()
        world.start()
        assert world.manager.get("bridge").subnets[0].subnet == "172.18.0.0/16"
        held = world.plug()
        server = Server(world.outside, OUTSIDE, 80, "outside")
        assert ask(held.guest.path, OUTSIDE, 80) == f"outside {HOST}"
        server.close()
    finally:
        world.close()


def test_events_are_dockers(world: World) -> None:
    async def watched() -> list[tuple[str, dict[str, str]]]:
        with world.events.subscribe() as queue:
            network = await world.manager.create(NetworkSpec(name="blue"))
            sandbox, container = new_id(), ContainerId(new_id())
            await world.sandboxes.prepare(sandbox, UID)
            await world.manager.attach(
                Attachment(network=network, container=container, container_name="x",
                           sandbox=sandbox, uid=UID)
            )  # fmt: skip
            await world.manager.detach(container)
            await world.sandboxes.release(sandbox)
            await world.manager.remove("blue", {})
            found = []
            while not queue.empty():
                event = queue.get_nowait()
                assert event is not None
                assert event.type == "network"
                assert event.actor_id == network.id
                found.append((event.action, dict(event.attributes)))
            return found

    events = world.run(watched())
    assert [action for action, _ in events] == ["create", "connect", "disconnect", "destroy"]
    assert events[0][1] == {"name": "blue", "type": "bridge"}
    assert events[1][1].keys() == {"name", "type", "container"}


def test_without_nftables_only_containers_with_a_network_fail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hyperstack.network import nftables

    world.crash()
    monkeypatch.setattr(nftables, "LIBRARY", "libnftables.so.nowhere")
    nftables._library.cache_clear()
    try:
        world.start()
        sandbox = new_id()
        with pytest.raises(HyperError, match=r"install the package libnftables1"):
            world.run(_attach(world, sandbox))
        assert world.manager.get("none").driver == "null"
    finally:
        monkeypatch.undo()
        nftables._library.cache_clear()


def test_a_firewall_that_forwards_nothing_is_warned_of(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    shell(
        world.host,
        "nft add table ip filter; nft 'add chain ip filter FORWARD "
        "{ type filter hook forward priority filter; policy drop; }'",
    )
    world.crash()
    world.start()
    assert "iptables chain FORWARD drops by default" in caplog.text


def test_a_network_whose_bridge_is_something_else_spoils_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    network = world.run(world.manager.create(NetworkSpec(name="blue")))
    world.crash()
    shell(world.host, f"ip link del {network.bridge}; ip link add {network.bridge} type veth")
    world.start()
    words = f"network blue does not work: existing interface {network.bridge} is not a bridge"
    assert words in caplog.text
    world.plug()
    shell(world.host, f"ip link del {network.bridge}")
    world.plug("blue")  # the bridge is made when it is needed


def test_an_endpoint_is_cut_off_as_soon_as_its_container_ends(world: World) -> None:
    held = world.plug()
    server = Server(held.guest.path, "0.0.0.0", 80, "guest")
    address = held.endpoint.ipv4
    assert ask(world.host, address, 80).startswith("guest")
    world.run(world.manager.detach(held.endpoint.container))
    with pytest.raises(OSError):
        ask(world.host, address, 80, timeout=0.5)
    server.close()


def test_a_tap_is_the_sandboxs_own(world: World) -> None:
    held = world.plug()
    sandbox = world.sandboxes.path(held.endpoint.sandbox)
    for name in ("agent0", held.endpoint.tap):
        text = shell(sandbox, f"ip -N -d -o link show {name}")
        assert "vnet_hdr on" in text
        assert "persist on" in text
        assert f"user {UID}" in text
