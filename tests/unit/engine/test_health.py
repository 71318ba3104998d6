from __future__ import annotations

import pytest
from msgspec.structs import replace

from hyperstack.engine import health
from hyperstack.engine.core import Core
from hyperstack.model import ContainerConfig, Health, Healthcheck, HealthProbe
from tests.unit.engine.making import added, container

CHECK = Healthcheck(test=("CMD", "x"), retries=2)
TIMED = Healthcheck(
    test=("CMD", "x"),
    interval=30 * health.SECOND,
    start_interval=5 * health.SECOND,
    start_period=60 * health.SECOND,
)


def probe(code: int, number: int = 0) -> HealthProbe:
    return HealthProbe(start_ns=number, end_ns=number, exit_code=code, output="")


@pytest.mark.parametrize(
    ("codes", "grace", "status", "streak"),
    [
        ([0], False, "healthy", 0),
        ([1], False, "starting", 1),
        ([1, 1], False, "unhealthy", 2),
        ([1, 0], False, "healthy", 0),
        ([0, 1], False, "healthy", 1),
        ([0, 1, 1], False, "unhealthy", 2),
        ([1, 1, 0], False, "healthy", 0),
        ([1, 1, 1], True, "starting", 0),
        ([0, 1, 1], True, "unhealthy", 2),
    ],
)
async def test_probes_are_judged(
    core: Core, codes: list[int], grace: bool, status: str, streak: int
) -> None:
    made = await added(core)
    made.state.health = Health(status="starting")
    check = replace(CHECK, start_period=1 if grace else 0)
    for code in codes:
        await health._judge(core, made, check, probe(code))
    assert made.state.health is not None
    assert (made.state.health.status, made.state.health.failing_streak) == (status, streak)


async def test_a_change_is_told_once(core: Core) -> None:
    made = await added(core)
    for code in (0, 0, 1, 1, 1, 0):
        await health._judge(core, made, CHECK, probe(code))
    assert [e.action for e in core.events.past(0)] == [
        "health_status: healthy",
        "health_status: unhealthy",
        "health_status: healthy",
    ]


async def test_the_last_five_probes_are_kept(core: Core) -> None:
    made = await added(core)
    for number in range(8):
        await health._judge(core, made, CHECK, probe(0, number))
    assert made.state.health is not None
    assert [p.start_ns for p in made.state.health.log] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("status", "started", "last", "now", "due"),
    [
        ("healthy", 100, 0, 110, 20),
        ("healthy", 100, 150, 160, 20),
        ("healthy", 100, 150, 190, 0),
        ("healthy", 100, 90, 110, 20),  # a probe of an earlier run
        ("healthy", 100, 150, 120, 30),  # the host's clock was set back
        ("starting", 100, 0, 101, 4),
        ("starting", 100, 150, 152, 3),
        ("starting", 100, 161, 165, 26),  # the start period is over
    ],
)
def test_a_new_daemon_probes_when_the_old_one_would_have(
    status: str, started: int, last: int, now: int, due: int
) -> None:
    made = container(config=ContainerConfig(healthcheck=TIMED))
    made.state.started_ns = started * health.SECOND
    made.state.health = Health(status=status, log=(probe(0, last * health.SECOND),) if last else ())
    assert health._until_due(made, TIMED, now * health.SECOND) == due * health.SECOND


@pytest.mark.parametrize("check", [CHECK, None])
def test_a_start_forgets_the_verdict_of_the_run_before_and_keeps_its_probes(
    check: Healthcheck | None,
) -> None:
    made = container(config=ContainerConfig(healthcheck=check))
    made.state.health = Health(status="unhealthy", failing_streak=4, log=(probe(1),))
    health.begin(made)
    assert made.state.health == (Health(status="starting", log=(probe(1),)) if check else None)


@pytest.mark.parametrize("test", [(), ("NONE",)])
def test_no_check_is_no_check(test: tuple[str, ...]) -> None:
    made = container(config=ContainerConfig(healthcheck=Healthcheck(test=test)))
    assert health.effective(made) is None


def test_what_is_open_has_dockers_defaults() -> None:
    made = container(config=ContainerConfig(healthcheck=Healthcheck(test=("CMD", "x"), timeout=5)))
    check = health.effective(made)
    assert check is not None
    assert (check.interval, check.timeout, check.retries) == (30 * health.SECOND, 5, 3)


@pytest.mark.parametrize(
    ("test", "shell", "argv"),
    [
        (("CMD", "a", "b"), None, ("a", "b")),
        (("CMD-SHELL", "a b"), None, ("/bin/sh", "-c", "a b")),
        (("CMD-SHELL", "a b"), ("/bin/ash", "-ec"), ("/bin/ash", "-ec", "a b")),
    ],
)
def test_a_probe_is_run_by_itself_or_by_the_image_s_shell(
    test: tuple[str, ...], shell: tuple[str, ...] | None, argv: tuple[str, ...]
) -> None:
    made = container(config=ContainerConfig(shell=shell))
    assert health.command(made, Healthcheck(test=test)) == argv


def test_a_container_that_nobody_probes_is_unhealthy() -> None:
    checked = container(config=ContainerConfig(healthcheck=CHECK))
    checked.state.health = Health(status="healthy", failing_streak=1)
    health.closed(checked)
    assert checked.state.health == Health(status="unhealthy", failing_streak=1)
    other = container()
    health.closed(other)
    assert other.state.health is None
