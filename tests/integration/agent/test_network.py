"""Interfaces of containers, embedded DNS, namespaces shared by siblings."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.guest.messages import EventKind, Join, Mount, MountKind, Namespace, Nic, Op, Stage
from tests.integration.agent.machine import NEW, Machine

FIRST = Nic(
    mac="02:42:0a:09:00:02", name="eth0", mtu=1400,
    addresses=("10.9.0.2/24", "fd00:0::2/64"), gateway4="10.9.0.1", gateway6="fd00:0::1",
    routes=(messages.Route(destination="10.77.0.0/16", gateway="10.9.0.9"),
            messages.Route(destination="10.78.0.0/16")),
)  # fmt: skip
SECOND = Nic(mac="02:42:0a:09:01:02", name="eth1", addresses=("10.9.1.2/24",))


async def test_an_interface_has_its_name_addresses_and_routes(guest: Machine) -> None:
    ran = await guest.run(
        "sh", "-c", "ip addr show eth0; ip route; ip -6 route; ping -c1 -W2 10.9.0.1;"
        "ping -6 -c1 -W2 fd00:0::1; cat /proc/sys/net/ipv6/conf/eth0/accept_ra",
        nics=(FIRST,), process={"cap_effective": -1, "cap_permitted": -1, "cap_bounding": -1},
    )  # fmt: skip
    for words in (
        "mtu 1400", "02:42:0a:09:00:02", "inet 10.9.0.2/24 brd 10.9.0.255", "fd00::2/64",
        "default via 10.9.0.1 dev eth0", "10.77.0.0/16 via 10.9.0.9", "10.78.0.0/16 dev eth0",
        "default via fd00::1",
    ):  # fmt: skip
        assert words in ran.text, ran.text
    assert ran.text.count("1 packets received") == 2, ran
    assert "global tentative" not in ran.text
    assert ran.text.splitlines()[-1] == "0"


async def test_interfaces_come_and_go_while_a_container_runs(guest: Machine) -> None:
    container = guest.container("sleep", "100", nics=(FIRST,))
    await guest.start(container)
    change = messages.NicChange(container=container.id, nic=SECOND)
    for _ in range(2):
        await guest.client.call(Op.NIC_ADD, change)
        ran = await guest.exec(container, "ip", "addr", "show", "eth1")
        assert "10.9.1.2/24" in ran.text
        assert "inet6" not in ran.text
        assert "UP" in ran.text
        stats: messages.Stats = await guest.client.call(
            Op.STATS, messages.ContainerRef(id=container.id)
        )
        assert [nic.name for nic in stats.nics] == ["eth0", "eth1"]
        await guest.client.call(Op.NIC_REMOVE, change)
        assert (await guest.exec(container, "ip", "addr", "show", "eth1")).code == 1
    with pytest.raises(AgentFailure) as failure:
        await guest.client.call(Op.NIC_REMOVE, change)
    assert failure.value.stage == Stage.NETWORK
    await guest.remove(container)


async def test_an_interface_comes_back_for_the_next_start(guest: Machine) -> None:
    for _ in range(3):
        ran = await guest.run("ip", "addr", "show", "eth0", nics=(FIRST,))
        assert "10.9.0.2/24" in ran.text


async def test_a_running_interface_is_configured_anew(guest: Machine) -> None:
    plain = Nic(mac=FIRST.mac, name="eth0", addresses=("10.9.0.2/24",))
    container = guest.container("sleep", "100", nics=(plain,))
    await guest.start(container)
    assert "default" not in (await guest.exec(container, "ip", "route")).text
    await guest.client.call(Op.NIC_ADD, messages.NicChange(container=container.id, nic=FIRST))
    assert "default via 10.9.0.1" in (await guest.exec(container, "ip", "route")).text
    await guest.remove(container)


async def test_the_channel_to_the_daemon_is_out_of_reach(guest: Machine) -> None:
    ran = await guest.run(
        "sh", "-c", "ip link | grep -c mtu; nc -w 1 169.254.77.2 1024 </dev/null || echo no",
        namespaces=0x20020000,
    )  # fmt: skip
    assert ran.text.split() == ["1", "no"]


@pytest.mark.parametrize(
    "nic",
    [
        Nic(mac="02:42:0a:09:00:02", name="a/b", addresses=("10.9.0.2/24",)),
        Nic(mac="02:42", name="eth0"),
        Nic(mac="02:42:0a:09:00:02", name="eth0", addresses=("10.9.0.2/99",)),
        Nic(mac="02:42:0a:09:00:02", name="eth0", addresses=("10.9.0.2/24",), gateway4="1.1.1.1"),
    ],
)
async def test_an_impossible_interface_is_refused(guest: Machine, nic: Nic) -> None:
    with pytest.raises(AgentFailure) as failure:
        await guest.run("true", nics=(nic,))
    assert failure.value.stage == Stage.NETWORK
    assert (await guest.run("true", nics=(FIRST,))).code == 0


# DNS


def reply(query: bytes, address: bytes) -> bytes:
    """Answer a query for an A record."""
    head = query[:2] + b"\x81\x80" + b"\x00\x01\x00\x01\x00\x00\x00\x00"
    end = 12
    while query[end]:
        end += query[end] + 1
    question = query[12 : end + 5]
    kind = struct.unpack(">H", question[-4:-2])[0]
    if kind != 1:
        return head[:6] + bytes(6) + question
    return head + question + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04" + address


class Resolver:
    """Answers the queries of a guest as the daemon would."""

    def __init__(self, guest: Machine) -> None:
        self.guest = guest
        self.seen: list[messages.Dns] = []
        self.tasks: list[asyncio.Task[Any]] = []
        guest.client.on_event = self.event

    def event(self, kind: EventKind, message: Any) -> None:
        self.guest.note(kind, message)
        if kind != EventKind.DNS_QUERY:
            return
        self.seen.append(message)
        answer = messages.Dns(
            container=message.container, query=message.query, tcp=message.tcp,
            message=reply(message.message, b"\x0a\x01\x02\x03"),
        )  # fmt: skip
        self.tasks.append(
            asyncio.get_running_loop().create_task(self.guest.client.call(Op.DNS_ANSWER, answer))
        )


def resolving(guest: Machine, *argv: str, **more: Any) -> messages.Container:
    """Describe a container with a name server at 127.0.0.11."""
    conf = Mount(kind=MountKind.FILE, target="/etc/resolv.conf", content=b"nameserver 127.0.0.11\n")
    return guest.container(*argv, dns=True, mounts=(conf,), **more)


async def test_names_are_resolved_by_the_daemon(guest: Machine) -> None:
    resolver = Resolver(guest)
    container = resolving(guest, "sleep", "100")
    await guest.start(container)
    for _ in range(3):
        ran = await guest.exec(container, "nslookup", "some.name")
        assert "10.1.2.3" in ran.text, ran
    assert b"\x04some\x04name\x00" in resolver.seen[0].message
    assert resolver.seen[0].container == container.id
    assert not resolver.seen[0].tcp
    await asyncio.gather(*resolver.tasks)
    await guest.remove(container)


async def test_names_are_resolved_over_tcp(guest: Machine) -> None:
    resolver = Resolver(guest)
    container = resolving(guest, "sleep", "100")
    await guest.start(container)
    query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x01a\x01b\x00\x00\x01\x00\x01"
    text = "".join(f"\\{byte:03o}" for byte in struct.pack(">H", len(query)) + query)
    ran = await guest.exec(
        container, "sh", "-c",
        f"(printf '{text}{text}'; sleep 0.5) | nc 127.0.0.11 53 | od -An -tx1 -v",
    )  # fmt: skip
    answer = bytes.fromhex(ran.text.replace(" ", "").replace("\n", ""))
    expected = reply(query, b"\x0a\x01\x02\x03")
    assert answer == 2 * (struct.pack(">H", len(expected)) + expected)
    assert [query.tcp for query in resolver.seen] == [True, True]
    await asyncio.gather(*resolver.tasks)
    await guest.remove(container)


async def test_a_container_may_have_a_name_server_of_its_own(guest: Machine) -> None:
    resolver = Resolver(guest)
    container = resolving(guest, "probe", "listen", "53")
    await guest.start(container)
    assert container.process is not None
    output = guest.client.open_output(container.process.stdout)
    assert (await anext(output))[1] == b"bound\n"
    assert "10.1.2.3" in (await guest.exec(container, "nslookup", "own.name")).text
    await asyncio.gather(*resolver.tasks)
    await guest.remove(container)


async def test_an_answer_comes_from_where_the_query_went(guest: Machine) -> None:
    resolver = Resolver(guest)
    container = resolving(guest, "sleep", "100")
    await guest.start(container)
    query = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x01a\x01b\x00\x00\x01\x00\x01"
    text = "".join(f"\\{byte:03o}" for byte in query)
    ran = await guest.exec(container, "sh", "-c", f"printf '{text}' | probe ask 127.0.0.11 53")
    assert ran.text.endswith("bytes from 127.0.0.11:53")
    await asyncio.gather(*resolver.tasks)
    await guest.remove(container)


async def test_a_flood_of_queries_harms_nobody(guest: Machine) -> None:
    container = resolving(guest, "sleep", "100")
    await guest.start(container)
    ran = await guest.exec(container, "probe", "flood", "127.0.0.11", "53", "2000")
    assert ran.text == "2000 sent"
    await guest.exec(container, "sh", "-c", "head -c 100000 /dev/urandom | nc -w1 127.0.0.11 53")
    assert (await guest.exec(container, "true")).code == 0
    asked = [message for kind, message in guest.events if kind == EventKind.DNS_QUERY]
    assert len(asked) > 100
    for query in (1 << 31, asked[0].query):
        with pytest.raises(AgentFailure):
            await guest.client.call(
                Op.DNS_ANSWER,
                messages.Dns(container=container.id, query=query, message=b"x" * 20),
            )
    await guest.remove(container)


# Siblings


async def test_siblings_share_the_namespaces_that_they_join(guest: Machine) -> None:
    first = guest.container("sh", "-c", "echo shared >/dev/shm/file; sleep 100", nics=(FIRST,))
    await guest.start(first)
    shared = Namespace.NET | Namespace.IPC | Namespace.PID | Namespace.UTS
    second = guest.container(
        "sleep", "200", namespaces=NEW & ~int(shared),
        joins=tuple(Join(namespace=int(part), container=first.id) for part in shared),
    )  # fmt: skip
    await guest.start(second)
    ran = await guest.exec(
        second, "sh", "-c", "ip addr show eth0; cat /dev/shm/file; ps; ls /proc/1/root/plain"
    )
    assert "10.9.0.2/24" in ran.text
    assert "shared" in ran.text
    assert "sleep 100" in ran.text
    assert "sleep 200" in ran.text
    assert "sleep 200" in (await guest.exec(first, "ps")).text
    with pytest.raises(AgentFailure) as failure:
        await guest.run("true", joins=(Join(namespace=0x20000, container=first.id),))
    assert failure.value.stage == Stage.NAMESPACE
    await guest.remove(second)
    assert "sleep 200" not in (await guest.exec(first, "ps")).text
    await guest.remove(first)


async def test_a_namespace_of_nobody_can_not_be_joined(guest: Machine) -> None:
    with pytest.raises(AgentFailure) as failure:
        await guest.run("true", joins=(Join(namespace=int(Namespace.NET), container="none"),))
    assert failure.value.stage == Stage.NAMESPACE
