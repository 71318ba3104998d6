"""The event bus: what ``docker events`` shows.

An event is published once, in the order things happened, kept in a bounded ring for ``since``, and
handed to every subscriber through a bounded queue. A subscriber that falls behind loses its
subscription, never the daemon's memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

RING = 256
"""Events kept for ``since``; Docker keeps as many."""
QUEUE = 4096


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened. ``time_ns`` is nanoseconds since the epoch."""

    type: str
    """container, image, network, volume, daemon, builder"""
    action: str
    """create, start, die, exec_create: /bin/sh ..., as Docker words it"""
    actor_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time_ns: int = 0


class EventBus:
    """Publishes events to subscribers of one daemon; all calls are made on the event loop."""

    def __init__(self) -> None:
        self._ring: deque[Event] = deque(maxlen=RING)
        self._subscribers: set[asyncio.Queue[Event | None]] = set()

    @property
    def listeners(self) -> int:
        """How many subscribers there are."""
        return len(self._subscribers)

    def publish(
        self,
        type_: str,
        action: str,
        actor_id: str,
        attributes: Mapping[str, str] | None = None,
    ) -> Event:
        """Publish one event now and return it."""
        event = Event(
            type=type_,
            action=action,
            actor_id=actor_id,
            attributes=dict(attributes or {}),
            time_ns=time.time_ns(),
        )
        self._ring.append(event)
        for queue in list(self._subscribers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._subscribers.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
        return event

    def past(self, since_ns: int, until_ns: int | None = None) -> list[Event]:
        """Return the kept events from *since_ns* on, oldest first."""
        return [
            e
            for e in self._ring
            if e.time_ns >= since_ns and (until_ns is None or e.time_ns <= until_ns)
        ]

    @contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[Event | None]]:
        """Give a queue that gets every event from now on; ``None`` means it fell behind."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE)
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)
