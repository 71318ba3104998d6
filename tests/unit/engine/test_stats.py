from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakKeyDictionary

from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import stats
from hyperstack.engine.cputime import Account
from hyperstack.guest.messages import Stats
from hyperstack.platform.cgroup import CgroupUsage

OF_GUEST = Stats(cpu_usage_us=1000, cpu_user_us=750, cpu_system_us=250)
A, B = 1, 2


class _Sandbox:
    id = "s"
    row = SimpleNamespace(id="s", containers=("a",))


async def _counted(cpu_ns: int) -> Stats:
    usage = CgroupUsage(cpu_ns=cpu_ns, memory=0)
    core = SimpleNamespace(
        sandboxes=SimpleNamespace(usage=lambda _: usage), accounts=WeakKeyDictionary()
    )
    live = SimpleNamespace(sandbox=_Sandbox(), handle=A)
    return await stats._as_the_host_counts(cast("Any", core), cast("Any", live), OF_GUEST)


async def test_the_host_says_how_much_time_a_machine_took_and_the_guest_for_what() -> None:
    found = await _counted(400_000)
    assert (found.cpu_usage_us, found.cpu_user_us, found.cpu_system_us) == (400, 300, 100)


async def test_where_the_host_does_not_count_the_guest_s_figures_stand() -> None:
    assert await _counted(0) == OF_GUEST


def test_who_shares_a_machine_gets_of_its_time_what_the_guest_counts_for_it() -> None:
    account = Account()
    account.settle(300, {A: 100})
    assert account.given == {A: 300}  # alone: the machine's own work is its
    account.settle(400, {A: 150, B: 150})
    assert account.given == {A: 325, B: 75}
    account.settle(9000, {A: 160, B: 150})
    assert account.given == {A: 335, B: 75}  # never more than was counted for it
    account.settle(9100, {A: 200})
    assert account.given == {A: 435}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1000), st.dictionaries(st.sampled_from([A, B]), st.integers(0, 500))
        )
    )
)
def test_no_figure_goes_back_and_no_time_is_given_out_twice(
    looks: list[tuple[int, dict[int, int]]],
) -> None:
    account = Account()
    out = 0
    for used, counted in looks:
        before = dict(account.given)
        account.settle(used, counted)
        out += sum(max(0, now - before.get(c, 0)) for c, now in account.given.items())
        assert all(account.given[c] >= before[c] for c in before.keys() & account.given.keys())
    assert out <= max((used for used, _ in looks), default=0)
