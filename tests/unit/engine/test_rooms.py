from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import commit, rooms, rows, runtimes
from hyperstack.engine.core import Core
from hyperstack.engine.rows import SandboxRow
from hyperstack.errors import InvalidParameter
from hyperstack.ids import ContainerId, SandboxId
from hyperstack.model import ContainerConfig, ContainerState, HostConfig, Status
from hyperstack.store.database import Database
from hyperstack.vmm.base import Runtime
from tests.unit.engine.making import added, container

MiB = 1 << 20


@given(st.integers(6 * MiB, 1 << 40))
def test_a_machine_has_the_limit_and_room_for_its_kernel(limit: int) -> None:
    host = HostConfig(memory=limit)
    config = type("C", (), {"config": type("D", (), {"sandbox_overhead": 48 * MiB})})
    size = rooms.vm_memory(config, host)  # type: ignore[arg-type]  # one field is all it reads
    assert size % MiB == 0
    assert size >= limit + 48 * MiB


async def test_without_a_limit_the_default_is_at_most_half_the_host(core: Core) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = rooms.vm_memory(core, HostConfig())
    assert size <= max(core.config.sandbox_memory, MiB)
    assert size <= total // 2 + MiB


@pytest.mark.parametrize(("nano", "cpus"), [(1, 1), (10**9, 1), (1_500_000_000, 2), (4 * 10**9, 4)])
def test_a_machine_has_as_many_cpus_as_the_limit_needs(nano: int, cpus: int) -> None:
    assert rooms.vm_cpus(HostConfig(nano_cpus=nano)) == cpus


@pytest.mark.parametrize(
    ("host", "quota", "period", "weight"),
    [
        (HostConfig(), None, None, None),
        (HostConfig(nano_cpus=1_500_000_000), 150_000, 100_000, None),
        (HostConfig(cpu_quota=5000), 5000, 100_000, None),
        (HostConfig(cpu_quota=5000, cpu_period=20_000), 5000, 20_000, None),
        (HostConfig(cpu_quota=-1), None, None, None),
        (HostConfig(cpu_shares=512), None, None, 512),
    ],
)
def test_cpu_limits_become_the_host_s(
    host: HostConfig, quota: int | None, period: int | None, weight: int | None
) -> None:
    made = rooms.cgroup_limits(host, 256 * MiB)
    assert (made.cpu_quota, made.cpu_period, made.cpu_weight) == (quota, period, weight)
    assert made.memory is not None
    assert made.memory > 256 * MiB


async def test_containers_and_sandboxes_survive_in_their_rows(core: Core) -> None:
    made = await added(
        core, state=ContainerState(status=Status.RUNNING, exit_code=3, error="é"),
        config=ContainerConfig(env=("A=1",), cmd=("x",)), host=HostConfig(binds=("/a:/b",)),
    )  # fmt: skip
    row = SandboxRow(
        id=SandboxId("s" * 64), uid=7, memory=9, created_ns=1, runtime="hyper-uml",
        containers=(made.id,),
    )  # fmt: skip
    await rows.put_sandbox(core.db, row)
    path = core.db.path
    core.db.close()
    again = Database(path)
    assert rows.load_containers(again) == [made]
    assert rows.load_sandboxes(again) == [row]
    await rows.delete_sandbox(again, row.id)
    await rows.delete_container(again, ContainerId("n" * 64))
    assert rows.load_sandboxes(again) == []
    again.close()


@pytest.mark.parametrize("name", ["runc", "hyper-", "HYPER", "hyper-kvm"])
async def test_a_runtime_that_the_host_has_not_is_refused(core: Core, name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"unknown or invalid runtime name: {name}"):
        runtimes.settle(core, name)


async def test_the_default_runtime_stays_open_until_a_start(core: Core) -> None:
    assert runtimes.settle(core, "") == runtimes.settle(core, "hyper") == "hyper"
    assert runtimes.resolve(core, "hyper") == runtimes.resolve(core, "") == Runtime.UML
    assert runtimes.resolve(core, "hyper-tcg") == Runtime.TCG


def test_a_commit_takes_the_container_s_configuration_and_what_is_given() -> None:
    own = ContainerConfig(env=("A=1", "B=2"), labels={"a": "1"}, user="u", cmd=("x",))
    given_ = ContainerConfig(env=("B=3",), labels={"b": "2"}, cmd=("y",))
    assert commit._config(container(config=own), None) == own
    made = commit._config(container(config=own), given_)
    assert set(made.env) == {"A=1", "B=3"}
    assert made.labels == {"a": "1", "b": "2"}
    assert (made.user, made.cmd) == ("u", ("y",))
