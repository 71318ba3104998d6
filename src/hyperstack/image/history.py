"""``history``: how an image was made, as its config tells it, with ids where images are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hyperstack.image.configfile import to_ns
from hyperstack.image.store import ImageStore
from hyperstack.image.values import Image


@dataclass(frozen=True, kw_only=True)
class HistoryItem:
    """One step. ``created`` is seconds since the epoch, ``size`` bytes of files it added."""

    id: str
    """Full id of the image of that step, or ``<missing>``."""
    created: int
    created_by: str
    tags: tuple[str, ...]
    size: int
    comment: str


def history(store: ImageStore, image: Image) -> list[HistoryItem]:
    """Return the steps of an image's making, the last one first."""
    steps = []
    layers = iter(image.diff_ids)
    for entry in image.history:
        diff_id = None if entry.empty_layer else next(layers, None)
        info = store.catalog.layers.get(diff_id) if diff_id else None
        steps.append(
            HistoryItem(
                id="<missing>",
                created=to_ns(entry.created) // 10**9,
                created_by=entry.created_by,
                tags=(),
                size=info.content_size if info else 0,
                comment=entry.comment,
            )
        )
    steps.reverse()
    known: Image | None = image
    for number in range(len(steps)):
        if known is None:
            break
        steps[number] = replace(steps[number], id=known.id, tags=known.names)
        known = store.catalog.find(known.parent) if known.parent else None
    return steps
