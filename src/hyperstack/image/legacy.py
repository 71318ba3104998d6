"""Archives of Docker before 1.10: a folder for each layer, named by an image's id of that time.

    ID/json  ID/layer.tar     an image's config, which names its parent, and its own layer
    repositories              {"name": {"tag": "ID"}}

Docker image specification 1.0. Each folder becomes an image of today: the config gets the diff ids
and the history of the whole chain, the rest of it stays. The ids of that time mean nothing then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from hyperstack.errors import InvalidParameter
from hyperstack.ids import is_id
from hyperstack.image.archive import Archive
from hyperstack.image.configfile import MAX_CONFIG, MAX_LAYERS
from hyperstack.image.importing import Taken, stored
from hyperstack.image.manifest import MAX_MANIFEST
from hyperstack.image.reference import Reference, tag_name
from hyperstack.image.store import ImageStore
from hyperstack.image.values import Image, LayerBlob

_DROPPED = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")
_READ = 1 << 20


class _Command(msgspec.Struct):
    command: list[str] | None = msgspec.field(name="Cmd", default=None)


class _Old(msgspec.Struct):
    """What is read of an old config; the rest passes through."""

    parent: str | None = None
    os: str | None = None
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    container_config: _Command | None = None
    throwaway: bool | None = None


@dataclass(frozen=True, kw_only=True)
class _Made:
    """An image that was made of a folder, and what its children begin with."""

    image: Image
    layers: tuple[LayerBlob, ...]
    history: tuple[dict[str, Any], ...]


async def load(store: ImageStore, archive: Archive) -> list[Image]:
    """Make the images of an old archive and return those that got a name.

    Raises InvalidParameter for an archive that is damaged or over a bound.
    """
    ids = sorted({name.partition("/")[0] for name in archive.names() if "/" in name})
    made: dict[str, _Made] = {}
    for old_id in ids:
        for link in reversed(_chain(archive, old_id, made)):
            made[link] = await _make(store, archive, link, made)
    named: list[Image] = []
    for reference, old_id in _repositories(archive):
        if old_id not in made:
            raise InvalidParameter(f"invalid target ID: {old_id[:100]}")
        await store.tag(made[old_id].image.id, reference, tagged=False)
        named.append(made[old_id].image)
    return named


def _old(archive: Archive, old_id: str) -> tuple[_Old, dict[str, Any]]:
    data = archive.read(archive.get(f"{old_id}/json"), MAX_CONFIG)
    try:
        return msgspec.json.decode(data, type=_Old), msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"invalid image config: {error}") from error


def _chain(archive: Archive, old_id: str, made: dict[str, _Made]) -> list[str]:
    """Return an image and its parents, up to one that is made."""
    found: list[str] = []
    while old_id and old_id not in made:
        if old_id in found or len(found) > MAX_LAYERS:
            raise InvalidParameter("max depth exceeded")
        found.append(old_id)
        old_id = _old(archive, old_id)[0].parent or ""
        if old_id and not is_id(old_id):
            raise InvalidParameter(f"image ID '{old_id[:100]}' is invalid")
    return found


async def _make(store: ImageStore, archive: Archive, old_id: str, made: dict[str, _Made]) -> _Made:
    old, raw = await asyncio.to_thread(_old, archive, old_id)
    if old.os not in (None, "", "linux"):
        raise InvalidParameter(f"cannot load {(old.os or '')[:64]} image on linux")
    parent = made.get(old.parent or "")
    diff_id, blob = await _layer(store, archive, old_id)
    diff_ids = (*(parent.image.diff_ids if parent else ()), diff_id)
    layers = (*(parent.layers if parent else ()), blob)
    history = (*(parent.history if parent else ()), _step(old))
    config = {key: value for key, value in raw.items() if key not in _DROPPED}
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    config["history"] = list(history)
    data = msgspec.json.encode(dict(sorted(config.items())))
    image = await store.add(config=data, layers=layers, parent=parent.image.id if parent else "")
    return _Made(image=image, layers=layers, history=history)


def _step(old: _Old) -> dict[str, Any]:
    command = old.container_config.command if old.container_config else None
    step = {
        "created": old.created,
        "created_by": " ".join(command or ()),
        "author": old.author,
        "comment": old.comment,
        "empty_layer": old.throwaway,
    }
    return {key: value for key, value in step.items() if value}


async def _layer(store: ImageStore, archive: Archive, old_id: str) -> Taken:
    path = archive.get(f"{old_id}/layer.tar").path
    with path.open("rb", buffering=0) as file:

        async def chunks() -> Any:
            while data := await asyncio.to_thread(file.read, _READ):
                yield data

        return await stored(store, chunks())


def _repositories(archive: Archive) -> list[tuple[Reference, str]]:
    data = archive.read(archive.get("repositories"), MAX_MANIFEST)
    try:
        found = msgspec.json.decode(data, type=dict[str, dict[str, str]])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"invalid repositories file: {error}") from error
    return [
        (tag_name(name, tag), old_id)
        for name, tags in found.items()
        for tag, old_id in tags.items()
    ]
