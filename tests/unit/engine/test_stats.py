from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hyperstack.engine import stats
from hyperstack.guest.messages import Stats
from hyperstack.platform.cgroup import CgroupUsage

OF_GUEST = Stats(cpu_usage_us=1000, cpu_user_us=750, cpu_system_us=250)


def _counted(containers: tuple[str, ...], cpu_ns: int) -> Stats:
    usage = CgroupUsage(cpu_ns=cpu_ns, memory=0)
    core = SimpleNamespace(sandboxes=SimpleNamespace(usage=lambda _: usage))
    row = SimpleNamespace(id="s", containers=containers)
    live = SimpleNamespace(sandbox=SimpleNamespace(row=row))
    return stats._as_the_host_counts(cast("Any", core), cast("Any", live), OF_GUEST)


def test_the_host_says_how_much_time_a_machine_took_and_the_guest_for_what() -> None:
    found = _counted(("a",), 400_000)
    assert (found.cpu_usage_us, found.cpu_user_us, found.cpu_system_us) == (400, 300, 100)


@pytest.mark.parametrize(("containers", "cpu_ns"), [(("a", "b"), 400_000), (("a",), 0)])
def test_containers_of_one_machine_and_hosts_that_do_not_count_have_the_guests_figures(
    containers: tuple[str, ...], cpu_ns: int
) -> None:
    assert _counted(containers, cpu_ns) == OF_GUEST
