"""``ps``: which containers a list shows, by Docker's filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hyperstack.engine.core import Core
from hyperstack.errors import InvalidParameter, NotFound
from hyperstack.ids import short
from hyperstack.model import Container, PortBinding, Status

Filters = dict[str, list[str]]
Test = Callable[[Container], bool]

KEYS = frozenset(
    "ancestor before exited expose health id is-task isolation label name network publish since "
    "status volume".split()
)


def list_containers(core: Core, *, all_: bool, limit: int, filters: Filters) -> list[Container]:
    """Return containers, newest first. Raises InvalidParameter for filters Docker refuses."""
    for key in filters:
        if key not in KEYS:
            raise InvalidParameter(f"invalid filter '{key}'")
    tests = [make(core, filters[key]) for key, make in _TESTS.items() if key in filters]
    widened = bool(limit > 0 or {"before", "since"} & filters.keys() or "status" in filters)
    if not (all_ or widened or {"exited"} & filters.keys()):
        tests.append(lambda c: c.state.status.is_up)
    found = sorted(core.table, key=lambda c: c.created_ns, reverse=True)
    found = [c for c in found if all(test(c) for test in tests)]
    return found[:limit] if limit > 0 else found


def label_test(values: Sequence[str]) -> Callable[[dict[str, str]], bool]:
    """Return the test of ``label=key`` and ``label=key=value`` filters (all must hold)."""
    wanted = [value.partition("=") for value in values]

    def test(labels: dict[str, str]) -> bool:
        return all(k in labels and (not eq or labels[k] == v) for k, eq, v in wanted)

    return test


def _id(core: Core, values: list[str]) -> Test:
    return lambda c: any(_matches(value, c.id) for value in values)


def _matches(pattern: str, text: str) -> bool:
    try:
        return bool(re.search(pattern, text)) or text.startswith(pattern)
    except re.error:
        return pattern == text


def _name(core: Core, values: list[str]) -> Test:
    def test(c: Container) -> bool:
        names = (c.name, "/" + c.name)
        return any(_matches(value, name) for value in values for name in names)

    return test


def _label(core: Core, values: list[str]) -> Test:
    labels = label_test(values)
    return lambda c: labels(c.config.labels)


def _status(core: Core, values: list[str]) -> Test:
    for value in values:
        if value not in set(Status):
            raise InvalidParameter(f"invalid filter 'status={value}'")
    return lambda c: c.state.status in values


def _exited(core: Core, values: list[str]) -> Test:
    try:
        codes = {int(value) for value in values}
    except ValueError:
        raise InvalidParameter(f"invalid filter 'exited={values[0]}'") from None
    return lambda c: (
        not c.state.status.is_up and c.state.started_ns > 0 and (c.state.exit_code in codes)
    )


def _health(core: Core, values: list[str]) -> Test:
    for value in values:
        if value not in ("none", "starting", "healthy", "unhealthy"):
            raise InvalidParameter(f"invalid filter 'health={value}'")
    return lambda c: (c.state.health.status if c.state.health else "none") in values


def _ancestor(core: Core, values: list[str]) -> Test:
    ids: set[str] = set()
    for value in values:
        try:
            ids.add(core.images.get(value).id)
        except (NotFound, InvalidParameter):
            continue
    ids |= core.images.descendants(ids)
    return lambda c: (
        c.image_id in ids or any(c.image_id == v or short(c.image_id) == v for v in values)
    )


def _before(core: Core, values: list[str]) -> Test:
    limits = [core.table.get(value).created_ns for value in values]
    return lambda c: all(c.created_ns < limit for limit in limits)


def _since(core: Core, values: list[str]) -> Test:
    limits = [core.table.get(value).created_ns for value in values]
    return lambda c: all(c.created_ns > limit for limit in limits)


def _volume(core: Core, values: list[str]) -> Test:
    return lambda c: any(v in (m.name, m.destination) for m in c.mounts for v in values)


def _network(core: Core, values: list[str]) -> Test:
    def test(c: Container) -> bool:
        ids = {e.network_id for e in c.state.endpoints.values()}
        return any(v in c.networks or any(i.startswith(v) for i in ids if i) for v in values)

    return test


def _ports(text: str) -> set[str]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", text)
    numbers = [int(n[:6]) for n in match.groups()[:2] if n] if match else []
    if match is None or max(numbers) > 65535:
        raise InvalidParameter(f"invalid containerPort: {text}")
    last = numbers[-1]
    return {f"{port}/{match[3] or 'tcp'}" for port in range(int(match[1]), last + 1)}


def _ports_of(container: Container) -> dict[str, tuple[PortBinding, ...]]:
    """Return what a container publishes and exposes now."""
    return container.state.ports if container.state.status.is_up else {}


def _publish(core: Core, values: list[str]) -> Test:
    wanted = set().union(*(_ports(value) for value in values))

    def test(c: Container) -> bool:
        mine = {
            f"{b.host_port}/{port.partition('/')[2]}"
            for port, bindings in _ports_of(c).items()
            for b in bindings
        }
        return bool(wanted & mine)

    return test


def _expose(core: Core, values: list[str]) -> Test:
    wanted = set().union(*(_ports(value) for value in values))
    return lambda c: bool(wanted & _ports_of(c).keys())


def _is_task(core: Core, values: list[str]) -> Test:
    known = {"0": False, "false": False, "1": True, "true": True}
    answers = {known.get(value.lower()) for value in values}
    if len(answers) != 1 or None in answers:
        raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(values)}]'")
    return lambda c: False in answers  # without a swarm there are no tasks


def _isolation(core: Core, values: list[str]) -> Test:
    return lambda c: any(v in ("", "default", c.host.isolation) for v in values)


_TESTS: dict[str, Callable[[Core, list[str]], Test]] = {
    "id": _id,
    "name": _name,
    "label": _label,
    "status": _status,
    "exited": _exited,
    "health": _health,
    "ancestor": _ancestor,
    "before": _before,
    "since": _since,
    "volume": _volume,
    "network": _network,
    "publish": _publish,
    "expose": _expose,
    "is-task": _is_task,
    "isolation": _isolation,
}
