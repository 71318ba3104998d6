"""What Docker has and this engine has not: swarm, plugins, BuildKit, checkpoints.

The answers are those of an engine that is in no swarm and has no plugin: requests are checked as
dockerd checks them, then lists are empty or refused in Docker's words, so that clients go the way
that they go on any such engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from hyperstack.api.docker import gojson
from hyperstack.api.docker.filters import Filters, check
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Handler, Router
from hyperstack.errors import (
    HyperError,
    InternalError,
    InvalidParameter,
    NotFound,
    NotImplementedHere,
    Unavailable,
)
from hyperstack.image.reference import Reference
from hyperstack.until import parse_time

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)
NO_SWARM = "swarm mode is not supported by this engine"
NO_BUILD = "BuildKit is not supported by this engine yet: build with DOCKER_BUILDKIT=0"
NO_PLUGINS = "plugins are not supported by this engine"
NO_CHECKPOINTS = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental "
    "mode in order to enable it."
)
_SPECS = {
    "services": "swarm.ServiceSpec",
    "nodes": "swarm.NodeSpec",
    "secrets": "swarm.SecretSpec",
    "configs": "swarm.ConfigSpec",
}
_CACHE_FILTERS = (
    "until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private",
    "label", "label!",
)  # fmt: skip
_MOST_VERSION = (1 << 64) - 1


def add_to(router: Router) -> None:
    """Add the routes."""
    _add_swarm(router)
    _add_cluster(router)
    _add_plugins(router)
    router.add("POST", "/session", _no_buildkit(InvalidParameter))
    router.add("POST", "/grpc", _no_buildkit(InternalError))
    router.add("POST", "/build/cancel", cancel)
    router.add("POST", "/build/prune", prune_builds)
    checkpoints = _refusing(NotImplementedHere, NO_CHECKPOINTS)
    router.add("GET", "/containers/{name}/checkpoints", checkpoints)
    router.add("POST", "/containers/{name}/checkpoints", checkpoints)


def _add_swarm(router: Router) -> None:
    manager = _refusing(Unavailable, NOT_A_MANAGER)
    router.add("GET", "/swarm", manager)
    router.add("GET", "/swarm/unlockkey", manager)
    router.add("POST", "/swarm/init", _no_swarm("swarm.InitRequest"))
    router.add("POST", "/swarm/join", _no_swarm("swarm.JoinRequest"))
    router.add("POST", "/swarm/leave", _refusing(Unavailable, "This node is not part of a swarm"))
    router.add("POST", "/swarm/update", _changing("swarm.Spec", "swarm"))
    router.add("POST", "/swarm/unlock", _changing("swarm.UnlockRequest"))


def _add_cluster(router: Router) -> None:
    manager = _refusing(Unavailable, NOT_A_MANAGER)
    for kind in ("services", "nodes", "secrets", "configs", "tasks"):
        router.add("GET", f"/{kind}", cluster_list)
        router.add("GET", f"/{kind}/<name>", manager)
    for kind, spec in _SPECS.items():
        if kind != "nodes":
            router.add("POST", f"/{kind}/create", _changing(spec))
        router.add("POST", f"/{kind}/<name>/update", _changing(spec, kind.removesuffix("s")))
        router.add("DELETE", f"/{kind}/<name>", manager)
    for kind in ("services", "tasks"):
        router.add("GET", f"/{kind}/<name>/logs", cluster_logs)


def _add_plugins(router: Router) -> None:
    router.add("GET", "/plugins", no_plugins)
    router.add("GET", "/plugins/privileges", _no_plugin_of("remote"))
    router.add("POST", "/plugins/pull", _no_plugin_of("remote", "types.PluginPrivileges"))
    router.add("POST", "/plugins/create", _no_plugin_of("name"))
    router.add("GET", "/plugins/{name}/json", no_plugin)
    router.add("DELETE", "/plugins/{name}", no_plugin)
    router.add("POST", "/plugins/{name}/enable", enable_plugin)
    for verb in ("disable", "push"):
        router.add("POST", f"/plugins/{{name}}/{verb}", no_plugin)
    router.add("POST", "/plugins/{name}/set", set_plugin)
    router.add("POST", "/plugins/{name}/upgrade", upgrade_plugin)


def _refusing(kind: type[HyperError], sentence: str) -> Handler:
    async def handler(request: Request, engine: Engine) -> None:
        raise kind(sentence)

    return handler


# --- swarm


def _no_swarm(spec: str) -> Handler:
    """Return the handler of what would begin a swarm."""

    async def handler(request: Request, engine: Engine) -> None:
        await _body(request, spec)
        raise NotImplementedHere(NO_SWARM)

    return handler


def _changing(spec: str, versioned: str = "") -> Handler:
    """Return the handler of what takes a *spec*, and with *versioned* a version of that object."""

    async def handler(request: Request, engine: Engine) -> None:
        await _body(request, spec)
        if versioned:
            _check_version(request.query.text("version"), versioned)
        raise Unavailable(NOT_A_MANAGER)

    return handler


def _check_version(text: str, what: str) -> None:
    if text.isascii() and text.isdigit() and int(text[:21]) <= _MOST_VERSION:
        return
    if what in ("secret", "config"):
        raise InvalidParameter(f"invalid {what} version")
    quoted = gojson.encode(text).decode().strip()
    raise InvalidParameter(
        f"invalid {what} version '{text}': strconv.ParseUint: parsing {quoted}: invalid syntax"
    )


async def cluster_list(request: Request, engine: Engine) -> None:
    """``GET /services``, ``/nodes``, ``/tasks``, ``/secrets``, ``/configs``"""
    _ = request.filters  # refused if they can't be read
    raise Unavailable(NOT_A_MANAGER)


async def cluster_logs(request: Request, engine: Engine) -> None:
    """``GET /services/{id}/logs``, ``/tasks/{id}/logs``"""
    if not (request.query.flag("stdout") or request.query.flag("stderr")):
        raise InternalError("Bad parameters: you must choose at least one stream")
    raise Unavailable(NOT_A_MANAGER)


async def _body(request: Request, go_type: str, kind: type = dict) -> None:
    """Read a body that must be an object (or a list). Raises InvalidParameter in Go's words."""
    raw = await request.json()
    if raw is not None and not isinstance(raw, kind):
        raise gojson.Where().mismatch(raw, go_type)


# --- plugins


async def no_plugins(request: Request, engine: Engine) -> None:
    """``GET /plugins``"""
    check(request.filters, ("enabled", "capability"))
    await request.answer_json([])


async def no_plugin(request: Request, engine: Engine) -> None:
    """Answer what is asked of one plugin."""
    _missing(request.name)


def _missing(name: str) -> NoReturn:
    raise NotFound(f'plugin "{name}" not found')


async def enable_plugin(request: Request, engine: Engine) -> None:
    """``POST /plugins/{name}/enable``"""
    text = request.query.text("timeout")
    with _as_internal():
        if not text:
            raise InvalidParameter('strconv.Atoi: parsing "": invalid syntax')
        request.query.integer("timeout")
    _missing(request.name)


async def set_plugin(request: Request, engine: Engine) -> None:
    """``POST /plugins/{name}/set``"""
    await _body(request, "[]string", list)
    _missing(request.name)


async def upgrade_plugin(request: Request, engine: Engine) -> None:
    """``POST /plugins/{name}/upgrade``"""
    await _body(request, "types.PluginPrivileges", list)
    with _as_internal():
        Reference.parse(request.query.text("remote"))
        name = Reference.parse(request.name).tagged().familiar()
    _missing(name)


def _no_plugin_of(parameter: str, go_type: str = "") -> Handler:
    """Return the handler of what would bring the plugin that *parameter* names."""

    async def handler(request: Request, engine: Engine) -> None:
        if go_type:
            await _body(request, go_type, list)
        text = request.query.text(parameter)
        with _as_internal(f"failed to parse reference {text}: " if parameter == "name" else ""):
            Reference.parse(text)
        raise NotImplementedHere(NO_PLUGINS)

    return handler


@contextmanager
def _as_internal(before: str = "") -> Iterator[None]:
    """Answer with 500 what is the client's fault, as dockerd does in these places."""
    try:
        yield
    except InvalidParameter as error:
        raise InternalError(before + error.message) from error


# --- BuildKit


def _no_buildkit(wrong: type[HyperError]) -> Handler:
    """Return the handler of a connection in BuildKit's protocol; *wrong* if it asks for none."""

    async def handler(request: Request, engine: Engine) -> None:
        protocol = request.head.headers.get("upgrade", "")
        if not protocol:
            raise wrong("no upgrade proto in request")
        if protocol != "h2c":
            raise wrong(f"protocol {protocol} not supported")
        raise NotImplementedHere(NO_BUILD)

    return handler


async def cancel(request: Request, engine: Engine) -> None:
    """``POST /build/cancel``: a build that is not known is over already."""
    if not request.query.text("id"):
        raise InvalidParameter("build ID not provided")
    await request.answer(200)


async def prune_builds(request: Request, engine: Engine) -> None:
    """``POST /build/prune``: there is no cache to prune, and ``system prune`` asks for it."""
    for key in ("keep-storage", "reserved-space", "max-used-space", "min-free-space"):
        try:
            request.query.integer(key)
        except InvalidParameter as error:
            text = request.query.text(key)
            raise InvalidParameter(
                f"{key} is in bytes and expects an integer, got {text}: {error.message}"
            ) from None
    try:
        _check_prune(request.filters)
    except InvalidParameter as error:
        if error.message == "invalid filter":
            raise
        raise InvalidParameter(f"failed to prune build cache: {error.message}") from error
    await request.answer_json({"CachesDeleted": None, "SpaceReclaimed": 0})


def _check_prune(filters: Filters) -> None:
    check(filters, _CACHE_FILTERS)
    if any(len(values) > 1 for key, values in filters.items() if not key.startswith("label")):
        raise InvalidParameter("filters expect only one value")
    for key in ("until", "unused-for"):
        for text in filters.get(key, []):
            try:
                parse_time(text, 0)
            except InvalidParameter as error:
                raise InvalidParameter(
                    f"\"{key}\" filter expects a duration (e.g., '24h') or a timestamp: "
                    + error.message
                ) from error
