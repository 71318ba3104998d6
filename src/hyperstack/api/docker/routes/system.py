"""The engine itself: ping, version, info, disk usage, log-in."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from hyperstack import __version__
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.routes.containers import image_name
from hyperstack.api.docker.schema import info as schema_info
from hyperstack.api.docker.schema import system as schema
from hyperstack.api.docker.schema.image import image_summary
from hyperstack.api.docker.schema.listing import container_summary
from hyperstack.api.docker.schema.volume import volume
from hyperstack.engine.logging.drivers import DRIVERS
from hyperstack.errors import InvalidParameter

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine
    from hyperstack.engine.system import DiskUsage

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
    made = schema_info.info(
        await engine.system.info(),
        engine.config,
        listeners=engine.events.listeners,
        log_drivers=(driver for driver in DRIVERS if driver != "none"),
        server_version=__version__,
        version=request.version,
    )
    await request.answer_json(made)


async def disk_usage(request: Request, engine: Engine) -> None:
    """``GET /system/df``: everything, or from API 1.42 on the types that are asked for."""
    kinds = set(request.query.all("type")) if request.at_least("1.42") else set()
    for kind in kinds - _KINDS:
        raise InvalidParameter(f"unknown object type: {kind}")
    wanted = kinds or _KINDS
    used = await engine.system.disk_usage()
    images = _images(request, engine, used) if "image" in wanted else None
    containers = _containers(request, engine, used) if "container" in wanted else None
    volumes = [_volume(engine, found) for found in used.volumes] if "volume" in wanted else None
    await request.answer_json(
        {
            "LayersSize": used.layers_size if "image" in wanted else 0,
            "Images": images,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": [] if "build-cache" in wanted else None,
        }
    )


def _images(request: Request, engine: Engine, used: DiskUsage) -> list[dict[str, Any]]:
    uses = engine.system.image_uses()
    shared = engine.images.shared_sizes()
    return [
        image_summary(
            i, request.version, containers=uses[i.id], shared=shared.get(i.id, 0), usage=True
        )
        for i in used.images
    ]


def _containers(request: Request, engine: Engine, used: DiskUsage) -> list[dict[str, Any]]:
    names = engine.containers.link_names
    return [
        container_summary(c, image=image_name(engine, c), names=names(c), sizes=(rw, root))
        for c, rw, root in used.containers
    ]


def _volume(engine: Engine, found: Any) -> dict[str, Any]:
    use = engine.volumes.get(found.name)
    return volume(found, use.mountpoint, usage=(use.references, found.size))
