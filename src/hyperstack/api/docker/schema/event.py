"""Events: the lines of ``docker events``."""

from __future__ import annotations

from typing import Any

from hyperstack.events import Event

NS = 1_000_000_000
_LEGACY = frozenset({"container", "image"})


def event_line(event: Event) -> dict[str, Any]:
    """Return one event; containers and images have their old keys too, as clients still read."""
    made: dict[str, Any] = {}
    if event.type in _LEGACY:
        made["status"] = event.action
        if event.actor_id:
            made["id"] = event.actor_id
        if event.type == "container" and "image" in event.attributes:
            made["from"] = event.attributes["image"]
    made["Type"] = event.type
    made["Action"] = event.action
    made["Actor"] = {
        "ID": event.actor_id,
        "Attributes": {key: event.attributes[key] for key in sorted(event.attributes)},
    }
    made["scope"] = "local"
    made["time"] = event.time_ns // NS
    made["timeNano"] = event.time_ns
    return made
