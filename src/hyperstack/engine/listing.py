"""``ps``: which containers a list shows, by Docker's filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hyperstack.engine.core import Core
from hyperstack.engine.pattern import found
from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.ids import short
from hyperstack.model import Container, PortBinding, Status

Filters = dict[str, list[str]]
Test = Callable[[Container], bool]

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}\Z")
KEYS = frozenset(
    "ancestor before exited expose health id is-task isolation label name network publish since "
    "status volume".split()
)


def list_containers(core: Core, *, all_: bool, limit: int, filters: Filters) -> list[Container]:
    """Return containers, newest first. Raises InvalidParameter for filters Docker refuses."""
    for key in filters:
        if key not in KEYS:
            raise InvalidParameter(f"invalid filter '{key}'")
    tests = [make(core, filters[key]) for key, make in _TESTS.items() if filters.get(key)]
    if not (all_ or limit > 0 or filters.get("status")):
        tests.append(lambda c: c.state.status.is_up)
    shown = sorted(core.table, key=lambda c: c.created_ns, reverse=True)
    shown = [c for c in shown if all(test(c) for test in tests)]
    return shown[:limit] if limit > 0 else shown


def label_test(values: Sequence[str]) -> Callable[[dict[str, str]], bool]:
    """Return the test of ``label=key`` and ``label=key=value`` filters (all must hold)."""
    wanted = [value.partition("=") for value in values]

    def test(labels: dict[str, str]) -> bool:
        return all(k in labels and (not eq or labels[k] == v) for k, eq, v in wanted)

    return test


def _id(core: Core, values: list[str]) -> Test:
    return lambda c: any(matches(value, c.id) for value in values)


def matches(pattern: str, text: str) -> bool:
    """Tell whether a filter of names or ids means *text*: itself, or an expression for it."""
    return pattern == text or found(pattern, text) is True


def _name(core: Core, values: list[str]) -> Test:
    def test(c: Container) -> bool:
        names = (c.name, "/" + c.name)
        return any(matches(value, name) for value in values for name in names)

    return test


def _label(core: Core, values: list[str]) -> Test:
    labels = label_test(values)
    return lambda c: labels(c.config.labels)


def _status(core: Core, values: list[str]) -> Test:
    for value in values:
        if value not in set(Status):
            raise InvalidParameter(
                f"invalid filter 'status={value}': invalid value for state ({value}): must be one "
                "of created, running, paused, restarting, removing, exited, dead"
            )
    return lambda c: c.state.status in values


def _exited(core: Core, values: list[str]) -> Test:
    codes = set()
    for value in values:
        if not _NUMBER.match(value):
            raise InvalidParameter(
                f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": "
                "invalid syntax"
            )
        codes.add(int(value))
    return lambda c: (
        not c.state.status.is_up and c.state.started_ns > 0 and (c.state.exit_code in codes)
    )


def _health(core: Core, values: list[str]) -> Test:
    for value in values:
        if value not in ("none", "starting", "healthy", "unhealthy"):
            raise InvalidParameter(
                f"invalid filter 'health={value}': invalid value for health ({value}): must be one "
                "of none, starting, healthy, unhealthy"
            )
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
    limit = [core.table.get(value).created_ns for value in values][-1]
    return lambda c: c.created_ns < limit


def _since(core: Core, values: list[str]) -> Test:
    limit = [core.table.get(value).created_ns for value in values][-1]
    return lambda c: c.created_ns > limit


def _volume(core: Core, values: list[str]) -> Test:
    return lambda c: any(v in (m.name, m.destination) for m in c.mounts for v in values)


def _network(core: Core, values: list[str]) -> Test:
    def test(c: Container) -> bool:
        ids = {e.network_id for e in c.state.endpoints.values()}
        return any(v in c.networks or any(i.startswith(v) for i in ids if i) for v in values)

    return test


def _ports(kind: str, text: str) -> set[str]:
    """Read ``80``, ``80-90/udp`` (nat.ParsePortRange). Raises InternalError, as dockerd does."""
    span, _, protocol = text.partition("/")
    first, dash, last = span.partition("-")
    for number in (first, last) if dash else (first,):
        if not (number.isascii() and number.isdigit()):
            fault = f'strconv.ParseUint: parsing "{number}": invalid syntax'
            raise InternalError(f"error while looking up for {kind} {text}: {fault}")
        if int(number[:6]) > 65535:
            fault = f'strconv.ParseUint: parsing "{number}": value out of range'
            raise InternalError(f"error while looking up for {kind} {text}: {fault}")
    low, high = int(first), int(last or first)
    if low > high:
        raise InternalError(
            f"error while looking up for {kind} {text}: "
            f"Invalid range specified for the Port: {span}"
        )
    return {f"{port}/{protocol or 'tcp'}" for port in range(low, high + 1)}


def _ports_of(container: Container) -> dict[str, tuple[PortBinding, ...]]:
    """Return what a container publishes and exposes now."""
    return container.state.ports if container.state.status.is_up else {}


def _publish(core: Core, values: list[str]) -> Test:
    wanted = set().union(*(_ports("publish", value) for value in values))

    def test(c: Container) -> bool:
        mine = {
            f"{b.host_port}/{port.partition('/')[2]}"
            for port, bindings in _ports_of(c).items()
            for b in bindings
        }
        return bool(wanted & mine)

    return test


def _expose(core: Core, values: list[str]) -> Test:
    wanted = set().union(*(_ports("expose", value) for value in values))
    return lambda c: bool(wanted & _ports_of(c).keys())


def _is_task(core: Core, values: list[str]) -> Test:
    known = {"0": False, "false": False, "1": True, "true": True}
    answers = {known.get(value.lower()) for value in values}
    if len(answers) != 1 or None in answers:
        raise InvalidParameter(f"invalid filter 'is-task=[{' '.join(values)}]'")
    return lambda c: False in answers  # without a swarm there are no tasks


def _isolation(core: Core, values: list[str]) -> Test:
    return lambda c: True  # it means something to Windows alone


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
