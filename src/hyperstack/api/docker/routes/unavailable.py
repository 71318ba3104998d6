"""What Docker has and this engine has not: swarm, plugins, and for now BuildKit.

The answers are those of an engine without them: lists are empty or refused in Docker's words, so
that clients go the way that they go on any such engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Handler, Router
from hyperstack.errors import HyperError, NotFound, NotImplementedHere, Unavailable

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)
NO_SWARM = "swarm mode is not supported by this engine"
NO_BUILD = "BuildKit is not supported by this engine yet: build with DOCKER_BUILDKIT=0"
NO_PLUGINS = "plugins are not supported by this engine"


def add_to(router: Router) -> None:
    """Add the routes."""
    manager = _refusing(Unavailable, NOT_A_MANAGER)
    for kind in ("services", "tasks", "nodes", "secrets", "configs"):
        router.add("GET", f"/{kind}", manager)
        router.add("POST", f"/{kind}/create", manager)
        router.add("GET", f"/{kind}/{{name}}", manager)
        router.add("POST", f"/{kind}/{{name}}/update", manager)
        router.add("DELETE", f"/{kind}/{{name}}", manager)
    router.add("GET", "/swarm", manager)
    for verb in ("init", "join"):
        router.add("POST", f"/swarm/{verb}", _refusing(NotImplementedHere, NO_SWARM))
    router.add("POST", "/swarm/leave", _refusing(Unavailable, "This node is not part of a swarm"))
    for verb in ("update", "unlock"):
        router.add("POST", f"/swarm/{verb}", manager)
    router.add("GET", "/swarm/unlockkey", manager)
    router.add("GET", "/plugins", no_plugins)
    router.add("GET", "/plugins/privileges", _refusing(NotImplementedHere, NO_PLUGINS))
    router.add("POST", "/plugins/pull", _refusing(NotImplementedHere, NO_PLUGINS))
    router.add("POST", "/plugins/create", _refusing(NotImplementedHere, NO_PLUGINS))
    router.add("GET", "/plugins/{name}/json", no_plugin)
    router.add("DELETE", "/plugins/{name}", no_plugin)
    for verb in ("enable", "disable", "push", "upgrade", "set"):
        router.add("POST", f"/plugins/{{name}}/{verb}", no_plugin)
    build = _refusing(NotImplementedHere, NO_BUILD)
    for path in ("/build/cancel", "/session", "/grpc"):
        router.add("POST", path, build)
    router.add("POST", "/build/prune", no_build_cache)


def _refusing(kind: type[HyperError], sentence: str) -> Handler:
    async def handler(request: Request, engine: Engine) -> None:
        raise kind(sentence)

    return handler


async def no_plugins(request: Request, engine: Engine) -> None:
    """``GET /plugins``"""
    await request.answer_json([])


async def no_plugin(request: Request, engine: Engine) -> None:
    """Answer what is asked of one plugin."""
    raise NotFound(f'plugin "{request.name}" not found')


async def no_build_cache(request: Request, engine: Engine) -> None:
    """``POST /build/prune``: there is no cache to prune, and ``system prune`` asks for it."""
    await request.answer_json({"CachesDeleted": None, "SpaceReclaimed": 0})
