"""The event bus: order, the ring for ``since``, and subscribers that do not keep up."""

from __future__ import annotations

import asyncio

from hyperstack.events import QUEUE, RING, EventBus


def test_the_last_events_are_kept_in_order() -> None:
    bus = EventBus()
    for number in range(RING + 10):
        bus.publish("container", str(number), "x")
    kept = bus.past(0)
    assert [event.action for event in kept] == [str(n) for n in range(10, RING + 10)]
    assert sorted(event.time_ns for event in kept) == [event.time_ns for event in kept]


def test_the_past_is_cut_on_both_sides() -> None:
    bus = EventBus()
    events = [bus.publish("container", str(n), "x") for n in range(5)]
    chosen = bus.past(events[1].time_ns, events[3].time_ns)
    assert {"1", "3"} <= {event.action for event in chosen}
    assert all(events[1].time_ns <= event.time_ns <= events[3].time_ns for event in chosen)


async def test_each_subscriber_gets_each_event_from_then_on() -> None:
    bus = EventBus()
    bus.publish("container", "before", "x")
    with bus.subscribe() as one, bus.subscribe() as two:
        event = bus.publish("container", "now", "x", {"a": "1"})
        assert await one.get() is await two.get() is event
        assert bus.listeners == 2
    assert bus.listeners == 0


async def test_a_subscriber_that_falls_behind_is_told_and_dropped() -> None:
    bus = EventBus()
    with bus.subscribe() as slow:
        for number in range(QUEUE + 2):
            bus.publish("container", str(number), "x")
        assert bus.listeners == 0
        assert await asyncio.wait_for(slow.get(), 1) is None
        assert slow.empty()


def test_attributes_are_the_event_s_own() -> None:
    bus, given = EventBus(), {"a": "1"}
    event = bus.publish("container", "x", "x", given)
    given["a"] = "2"
    assert event.attributes == {"a": "1"}
