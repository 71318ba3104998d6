"""What ``--network``, ``--pid`` and ``--ipc container:X`` refer to, and what is refused with them.

The sentences are those of dockerd 28.5.2.
"""

from __future__ import annotations

import pytest

from hyperstack.engine import joining, rooms, siblings
from hyperstack.engine.core import Core
from hyperstack.engine.spec import limits
from hyperstack.errors import Conflict, HyperError, InternalError, InvalidParameter
from hyperstack.guest.messages import VERSION
from hyperstack.model import ContainerConfig, ContainerState, HostConfig, PortBinding, Status
from tests.unit.engine.making import added, container

NET = HostConfig(network_mode="container:x")
MiB = 1 << 20


@pytest.mark.parametrize(
    ("config", "host", "words"),
    [
        (ContainerConfig(hostname="h"), NET, "conflicting options: hostname and the network mode"),
        (
            ContainerConfig(),
            HostConfig(network_mode="container:x", dns=("1.1.1.1",)),
            "conflicting options: dns and the network mode",
        ),
        (
            ContainerConfig(),
            HostConfig(network_mode="container:x", extra_hosts=("a:1.1.1.1",)),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            ContainerConfig(),
            HostConfig(network_mode="container:x", port_bindings={"80/tcp": (PortBinding(),)}),
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            ContainerConfig(),
            HostConfig(network_mode="container:x", publish_all_ports=True),
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            ContainerConfig(exposed_ports=("80/tcp",)),
            NET,
            "conflicting options: port exposing and the container type network mode",
        ),
        (
            ContainerConfig(),
            HostConfig(network_mode="container:x", links=("a:b",)),
            "conflicting options: container type network can't be used with links. This would "
            "result in undefined behavior",
        ),
        (
            ContainerConfig(hostname="h"),
            HostConfig(uts_mode="host"),
            "conflicting options: hostname and the UTS mode",
        ),
        (
            ContainerConfig(),
            HostConfig(network_mode="container:"),
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (ContainerConfig(), HostConfig(pid_mode="container:"), "invalid PID mode: container:"),
        (ContainerConfig(), HostConfig(pid_mode="private"), "invalid PID mode: private"),
        (ContainerConfig(), HostConfig(ipc_mode="container"), "invalid IPC mode: container"),
        (ContainerConfig(), HostConfig(uts_mode="container:x"), "invalid UTS mode: container:x"),
        (
            ContainerConfig(),
            HostConfig(cgroupns_mode="container:x"),
            "invalid cgroup namespace mode: container:x",
        ),
    ],
)
def test_what_can_t_be_had_is_refused_in_docker_s_words(
    config: ContainerConfig, host: HostConfig, words: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        joining.check(config, host)
    assert caught.value.message == words


@pytest.mark.parametrize(
    "host",
    [
        NET,
        HostConfig(ipc_mode="none"),
        HostConfig(ipc_mode="shareable"),
        HostConfig(ipc_mode="container:x", pid_mode="container:y", uts_mode="host"),
        HostConfig(ipc_mode="host", pid_mode="host", userns_mode="anything"),
    ],
)
def test_what_docker_takes_is_taken(host: HostConfig) -> None:
    joining.check(ContainerConfig(domainname="d"), host)


async def test_names_become_ids_and_a_network_s_owner_may_come_later(core: Core) -> None:
    x = await added(core, "x")
    settled = joining.settle(
        core.table,
        HostConfig(
            network_mode="container:x", pid_mode=f"container:{x.id[:12]}", ipc_mode="container:x"
        ),
    )
    full = f"container:{x.id}"
    assert (settled.network_mode, settled.pid_mode, settled.ipc_mode) == (full, full, full)
    later = joining.settle(core.table, HostConfig(network_mode="container:later"))
    assert later.network_mode == "container:later"
    for host in (HostConfig(pid_mode="container:no"), HostConfig(ipc_mode="container:no")):
        with pytest.raises(InvalidParameter, match=r"^No such container: no$"):
            joining.settle(core.table, host)


async def test_a_name_that_is_only_claimed_names_nobody_yet(core: Core) -> None:
    core.table.claim("soon", container("soon").id)
    with pytest.raises(InvalidParameter, match=r"^No such container: soon$"):
        joining.settle(core.table, HostConfig(pid_mode="container:soon"))


@pytest.mark.parametrize(
    ("host", "status", "kind", "words"),
    [
        (
            HostConfig(network_mode="container:x"),
            Status.EXITED,
            Conflict,
            "cannot join network namespace of a non running container: container x is exited",
        ),
        (
            HostConfig(network_mode="container:x"),
            Status.RESTARTING,
            Conflict,
            "cannot join network namespace of container: Container <id> is restarting, wait until "
            "the container is running",
        ),
        (
            HostConfig(network_mode="container:gone"),
            Status.EXITED,
            InternalError,
            "joining network namespace of container: No such container: gone",
        ),
        (
            HostConfig(network_mode="container:me"),
            Status.EXITED,
            InternalError,
            "cannot join own network namespace",
        ),
        (
            HostConfig(pid_mode="container:x"),
            Status.CREATED,
            InternalError,
            "failed to join PID namespace: container <id> is not running",
        ),
        (
            HostConfig(pid_mode="container:gone"),
            Status.CREATED,
            InternalError,
            "failed to join PID namespace: No such container: gone",
        ),
        (
            HostConfig(ipc_mode="container:x"),
            Status.CREATED,
            Conflict,
            "failed to join IPC namespace: container <id> is not running",
        ),
        (
            HostConfig(ipc_mode="container:gone"),
            Status.CREATED,
            InvalidParameter,
            "failed to join IPC namespace: No such container: gone",
        ),
        (
            HostConfig(ipc_mode="container:"),
            Status.CREATED,
            InvalidParameter,
            'failed to join IPC namespace: invalid name or ID supplied: ""',
        ),
    ],
)
async def test_who_does_not_run_can_t_be_joined(
    core: Core, host: HostConfig, status: Status, kind: type[HyperError], words: str
) -> None:
    x = await added(core, "x", state=ContainerState(status=status))
    me = await added(core, "me", host=host)
    with pytest.raises(kind) as caught:
        await joining.find(core, me)
    assert type(caught.value) is kind
    assert caught.value.message == words.replace("<id>", x.id)


async def test_who_joins_nobody_starts_by_itself(core: Core) -> None:
    assert await joining.find(core, await added(core, "me")) is None


async def test_two_that_name_each_other_do_not_wait_for_each_other(core: Core) -> None:
    one = await added(core, "one", host=HostConfig(network_mode="container:two"))
    two = await added(core, "two", host=HostConfig(network_mode="container:one"))
    core.starting.update({one.id, two.id})
    async with core.table.lock(one.id), core.table.lock(two.id):
        with pytest.raises(Conflict, match="non running"):
            await joining.find(core, one)


async def test_those_who_follow_are_found_through_others_and_in_circles(core: Core) -> None:
    x = await added(core, "x")
    one = await added(core, "one", host=HostConfig(network_mode=f"container:{x.id}"))
    two = await added(core, "two", host=HostConfig(pid_mode="container:one"))
    await added(core, "other", host=HostConfig(network_mode="container:gone"))
    assert {c.name for c in joining.followers(core, x)} == {"one", "two"}
    assert joining.shares_network(core, one, x.id)
    assert not joining.shares_network(core, two, x.id)
    x.host = HostConfig(network_mode="container:two")
    assert {c.name for c in joining.followers(core, x)} == {"one", "two"}
    assert joining.shares_network(core, one, two.id)
    x.host = HostConfig(network_mode="container:one")
    assert not joining.shares_network(core, one, two.id)


def test_a_machine_has_room_for_all_that_are_known_to_join(core: Core) -> None:
    plain, small = HostConfig(), HostConfig(memory=512 * MiB)
    default = rooms.vm_memory(core, plain)
    assert rooms.vm_memory(core, plain, plain) == default
    assert rooms.vm_memory(core, small, small) >= 2 * 512 * MiB
    assert rooms.vm_memory(core, small, plain) >= default + 512 * MiB
    assert rooms.vm_memory(core, small) < 768 * MiB


def test_the_machine_may_take_what_its_containers_may_take_together() -> None:
    half = container(host=HostConfig(nano_cpus=500_000_000))
    quarter = container(host=HostConfig(cpu_quota=50_000, cpu_period=200_000, cpu_shares=512))
    free = container()
    both = siblings.machine_limits([half, quarter], 256 * MiB)
    assert (both.cpu_quota, both.cpu_period, both.cpu_weight) == (75_000, 100_000, 1536)
    assert siblings.machine_limits([half, free], 256 * MiB).cpu_quota is None
    assert siblings.machine_limits([half], 256 * MiB) == rooms.cgroup_limits(half.host, 256 * MiB)


def test_cpu_time_is_the_guest_s_business_only_where_it_is_shared() -> None:
    host = HostConfig(nano_cpus=500_000_000, memory=64 * MiB)
    for shared in (True, False):
        told = limits(host, version=VERSION, shared=shared)
        assert (told.cpu_quota_us, told.cpu_period_us) == (50_000, 100_000)
        assert told.memory_max == 64 * MiB
        assert told.cpu_by_host is not shared
    assert limits(HostConfig(), version=VERSION, shared=True).cpu_quota_us == -1
    assert limits(host, version=2).cpu_quota_us == 0
    assert limits(host, version=2, shared=True).cpu_quota_us == 50_000
