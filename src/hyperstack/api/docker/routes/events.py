"""``GET /events``: what happened since, what happens now, until when it is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from hyperstack.api.docker import gojson
from hyperstack.api.docker.coalesce import Coalescer
from hyperstack.api.docker.filters import Filters
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema.event import event_line
from hyperstack.engine.until import parse_unix
from hyperstack.errors import InvalidParameter
from hyperstack.events import Event, EventBus

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

NAMES = (
    "container",
    "network",
    "volume",
    "daemon",
    "plugin",
    "service",
    "node",
    "secret",
    "config",
)
"""Filters that look at an actor's id and name; as in moby, none of them looks at its type."""
Test = Callable[[Event], bool]


def add_to(router: Router) -> None:
    """Add the route."""
    router.add("GET", "/events", events, waits=True)


def _moment(text: str) -> int | None:
    return parse_unix(text) if text else None


async def events(request: Request, engine: Engine) -> None:
    """``GET /events``"""
    since = _moment(request.query.text("since"))
    until = _moment(request.query.text("until"))
    if since is not None and until is not None and since > until:
        raise InvalidParameter(
            f"`since` time ({request.query.text('since')}) cannot be after `until` time "
            f"({request.query.text('until')})"
        )
    wanted = matcher(request.filters)
    stream = await request.start()
    coalescer = Coalescer(stream)
    async for event in _between(engine.events, since, until):
        if wanted(event):
            await coalescer.put(gojson.encode(event_line(event)))
    await coalescer.flush()
    await stream.end()


async def _between(bus: EventBus, since: int | None, until: int | None) -> AsyncIterator[Event]:
    """Yield kept events from *since* on, then new ones until *until* or for ever."""
    with bus.subscribe() as queue:
        # Subscribed first: what is published meanwhile is in both, and told apart by identity.
        # As in moby: one of the two is enough for the kept ones, and an end at the epoch is none.
        asked = since is not None or until is not None
        past = bus.past(since or 0, until or None) if asked else []
        for event in past:
            yield event
        seen = {id(event) for event in past}
        left = None if until is None else max(0.0, (until - time.time_ns()) / 1e9)
        try:
            async with asyncio.timeout(left):
                while (new := await queue.get()) is not None:
                    if id(new) not in seen and (until is None or new.time_ns <= until):
                        yield new
        except TimeoutError:
            return


def matcher(filters: Filters) -> Test:
    """Return the test that all filters make together (moby, ``daemon/events/filter.go``).

    As there, filters that nobody knows are ignored.
    """
    tests = [make(values) for key, make in _TESTS.items() if (values := filters.get(key))]
    return lambda event: all(test(event) for test in tests)


def _named(values: list[str]) -> Test:
    """A value is the beginning of the actor's id or name, of whatever type the actor is."""
    found = tuple(values)

    def test(event: Event) -> bool:
        name = event.attributes.get("name", "")
        return event.actor_id.startswith(found) or name.startswith(found)

    return test


def _bare(reference: str) -> str:
    """Return a reference without tag and digest."""
    name = reference.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def _image(values: list[str]) -> Test:
    def test(event: Event) -> bool:
        attribute = "image" if event.type == "container" else "name"
        names = {event.actor_id, event.attributes.get(attribute, "")}
        names |= {_bare(name) for name in names}
        return any(value in names for value in values)

    return test


def _action(values: list[str]) -> Test:
    # "exec_create: sh" and "health_status: healthy" are found by the word before the colon too.
    return lambda event: event.action in values or event.action.partition(":")[0] in values


def _label(values: list[str]) -> Test:
    wanted = [value.partition("=") for value in values]

    def test(event: Event) -> bool:
        found = event.attributes
        return all(key in found and (not eq or found[key] == value) for key, eq, value in wanted)

    return test


_TESTS: dict[str, Callable[[list[str]], Test]] = {
    "event": _action,
    "type": lambda values: lambda event: event.type in values,
    "scope": lambda values: lambda event: "local" in values,
    "label": _label,
    "image": _image,
    **dict.fromkeys(NAMES, _named),
}
