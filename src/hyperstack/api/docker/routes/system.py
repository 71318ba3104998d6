"""The engine itself: ping, version, info, disk usage, log-in."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from hyperstack import __version__
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.routes.containers import image_name
from hyperstack.api.docker.schema import system as schema
from hyperstack.api.docker.schema.image import image_summary
from hyperstack.api.docker.schema.inspect import MODERN
from hyperstack.api.docker.schema.listing import container_summary
from hyperstack.api.docker.schema.volume import volume
from hyperstack.engine.logging import DRIVERS
from hyperstack.errors import InvalidParameter

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

_UNCACHED = (("Cache-Control", "no-cache, no-store, must-revalidate"), ("Pragma", "no-cache"))
_KINDS = frozenset({"container", "image", "volume", "build-cache"})


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("GET", "/_ping", ping)
    router.add("HEAD", "/_ping", ping)
    router.add("GET", "/version", version)
    router.add("GET", "/info", info)
    router.add("GET", "/system/df", disk_usage)


async def ping(request: Request, engine: Engine) -> None:
    """``/_ping``: the version headers are what clients come for."""
    headers = [*_UNCACHED, ("Builder-Version", "1"), ("Swarm", "inactive")]
    body = b"" if request.head.method == "HEAD" else b"OK"
    await request.answer(200, body, "text/plain; charset=utf-8", headers)


async def version(request: Request, engine: Engine) -> None:
    """``GET /version``"""
    await request.answer_json(schema.version(engine.system.version(), platform.machine()))


async def info(request: Request, engine: Engine) -> None:
    """``GET /info``"""
    made = schema.info(
        await engine.system.info(),
        engine.config,
        listeners=engine.events.listeners,
        log_drivers=(driver for driver in DRIVERS if driver != "none"),
        server_version=__version__,
    )
    await request.answer_json(made)


async def disk_usage(request: Request, engine: Engine) -> None:
    """``GET /system/df``: everything, or from API 1.42 on the types that are asked for."""
    kinds = set(request.query.all("type")) if request.at_least("1.42") else set()
    for kind in kinds - _KINDS:
        raise InvalidParameter(f"unknown object type: {kind}")
    wanted = kinds or _KINDS
    used = await engine.system.disk_usage()
    made: dict[str, Any] = {}
    if "image" in wanted:
        made["LayersSize"] = used.layers_size
        holders = [container.image_id for container, _, _ in used.containers]
        made["Images"] = [
            image_summary(i, request.version, containers=holders.count(i.id), shared=0)
            for i in used.images
        ]
    if "container" in wanted:
        modern = request.version >= MODERN
        made["Containers"] = [
            container_summary(c, image=image_name(engine, c), modern=modern, sizes=(rw, root))
            for c, rw, root in used.containers
        ]
    if "volume" in wanted:
        made["Volumes"] = [_volume(engine, found) for found in used.volumes]
    if "build-cache" in wanted:
        made["BuildCache"] = None
        if not request.at_least("1.42"):
            made["BuilderSize"] = 0
    await request.answer_json(made)


def _volume(engine: Engine, found: Any) -> dict[str, Any]:
    use = engine.volumes.get(found.name)
    return volume(found, use.mountpoint, usage=(use.references, found.size))
