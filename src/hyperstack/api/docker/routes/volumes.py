"""Volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.routes.unavailable import NOT_A_MANAGER
from hyperstack.api.docker.schema import volume as schema
from hyperstack.engine.volumes import VolumeUse
from hyperstack.errors import InvalidParameter, Unavailable
from hyperstack.volume.local import DRIVER

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("GET", "/volumes", list_volumes)
    router.add("POST", "/volumes/create", create)
    router.add("POST", "/volumes/prune", prune)
    router.add("GET", "/volumes/{name}", inspect)
    router.add("PUT", "/volumes/{name}", update)
    router.add("DELETE", "/volumes/{name}", remove)


def _shown(use: VolumeUse) -> dict[str, Any]:
    return schema.volume(use.volume, use.mountpoint)


async def list_volumes(request: Request, engine: Engine) -> None:
    """``GET /volumes``"""
    try:
        filters = request.filters
    except InvalidParameter as error:
        raise InvalidParameter(f"error reading volume filters: {error.message}") from error
    found = [_shown(use) for use in engine.volumes.list(filters)]
    await request.answer_json({"Volumes": found, "Warnings": None})


async def create(request: Request, engine: Engine) -> None:
    """``POST /volumes/create``"""
    values = await request.object(schema.CREATE)
    if "cluster" in values:
        raise Unavailable(NOT_A_MANAGER)
    use = await engine.volumes.create(
        values.get("name", ""),
        values.get("driver") or DRIVER,
        values.get("driver_opts"),
        values.get("labels"),
    )
    await request.answer_json(_shown(use), 201)


async def inspect(request: Request, engine: Engine) -> None:
    """``GET /volumes/{name}``"""
    await request.answer_json(_shown(engine.volumes.get(request.name)))


async def update(request: Request, engine: Engine) -> None:
    """``PUT /volumes/{name}``: swarm's volumes only."""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(request: Request, engine: Engine) -> None:
    """``DELETE /volumes/{name}``"""
    await engine.volumes.remove(request.name, request.query.flag("force"))
    await request.answer(204)


async def prune(request: Request, engine: Engine) -> None:
    """``POST /volumes/prune``: anonymous ones only, unless the client is older than that rule."""
    filters = request.filters
    if not request.at_least("1.42"):
        filters["all"] = list(dict.fromkeys((*filters.get("all", []), "true")))
    removed, freed = await engine.volumes.prune(filters)
    await request.answer_json({"VolumesDeleted": list(removed), "SpaceReclaimed": freed})
