"""Containers: create, list, inspect, and the verbs that change their state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema.create import UPDATE, read_create
from hyperstack.api.docker.schema.inspect import container_inspect
from hyperstack.api.docker.schema.listing import container_summary
from hyperstack.api.docker.schema.mounts import as_of
from hyperstack.api.docker.schema.versions import as_meant
from hyperstack.build.shell import go_quote
from hyperstack.engine.logging.drivers import log_path
from hyperstack.engine.update import UpdateConfig
from hyperstack.errors import Conflict, HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.model import Container

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

MOST_IGNORED = 7
"""Bytes of a body of ``start`` that moby overlooks: old clients sent ``null`` and the like."""


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("POST", "/containers/create", create)
    router.add("GET", "/containers/json", list_containers)
    router.add("POST", "/containers/prune", prune)
    router.add("GET", "/containers/{name}/json", inspect)
    router.add("POST", "/containers/{name}/start", start)
    router.add("POST", "/containers/{name}/stop", stop)
    router.add("POST", "/containers/{name}/restart", restart)
    router.add("POST", "/containers/{name}/kill", kill)
    router.add("POST", "/containers/{name}/pause", pause)
    router.add("POST", "/containers/{name}/unpause", unpause)
    router.add("POST", "/containers/{name}/rename", rename)
    router.add("POST", "/containers/{name}/update", update)
    router.add("POST", "/containers/{name}/resize", resize)
    router.add("DELETE", "/containers/{name}", remove)


async def create(request: Request, engine: Engine) -> None:
    """``POST /containers/create``"""
    body, told = as_meant(request, read_create(await request.json(needed=True)))
    host = replace(body.host, mounts=as_of(body.host.mounts, request.version))
    identifier, warnings = await engine.containers.create(
        name=request.query.text("name") or None,
        config=body.config,
        host=host,
        networks=body.networks,
        # A platform is asked for since API 1.41; before, it was for images alone.
        platform=request.query.text("platform") if request.at_least("1.41") else "",
    )
    await request.answer_json({"Id": identifier, "Warnings": [*told, *warnings]}, 201)


async def list_containers(request: Request, engine: Engine) -> None:
    """``GET /containers/json``"""
    query, filters = request.query, request.filters  # these are read first
    found = engine.containers.list(
        all=query.flag("all"), limit=_number(request, "limit") or 0, filters=filters
    )
    sized = query.flag("size")
    await request.answer_json(
        [
            container_summary(
                container,
                image=image_name(engine, container),
                names=engine.containers.link_names(container),
                sizes=await engine.containers.sizes(container.id) if sized else None,
            )
            for container in found
        ]
    )


def image_name(engine: Engine, container: Container) -> str:
    """Return the image as the user named it, or its id if that name means another one now."""
    named = container.config.image
    try:
        if engine.images.get(named).id == container.image_id:
            return named
    except HyperError:
        pass  # the name is gone
    return container.image_id


async def inspect(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/json``"""
    container = engine.containers.get(request.name)
    # As with dockerd there is no log before the first start.
    path = log_path(engine.core, container) if container.state.started_ns else None
    sizes = await engine.containers.sizes(container.id) if request.query.flag("size") else None
    await request.answer_json(
        container_inspect(
            container,
            execs=engine.execs.of(container.id),
            log_path=str(path) if path is not None and path.name.endswith("-json.log") else "",
            version=request.version,
            sizes=sizes,
        )
    )


async def start(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/start``"""
    body = await request.read()
    if len(body) > MOST_IGNORED:
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and "
            "removed in v1.24"
        )
    if request.query.text("checkpoint"):
        raise InvalidParameter("checkpoint is only supported in experimental mode")
    await engine.containers.start(request.name)
    await request.answer(204)


def _number(request: Request, key: str) -> int | None:
    """Return a whole number, None if there is none. Raises InternalError, as dockerd does here."""
    try:
        return request.query.optional_integer(key)
    except InvalidParameter as error:
        raise InternalError(error.message) from error


def _signal(request: Request) -> str | None:
    """Return ``signal`` of stop and restart, which API 1.42 brought."""
    return (request.query.text("signal") or None) if request.at_least("1.42") else None


async def stop(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/stop``"""
    timeout, signal = _number(request, "t"), _signal(request)
    try:
        await engine.containers.stop(request.name, timeout=timeout, signal=signal)
    except InvalidParameter as error:
        raise InternalError(f"cannot stop container: {request.name}: {error.message}") from error
    await request.answer(204)


async def restart(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/restart``"""
    timeout, signal = _number(request, "t"), _signal(request)
    engine.containers.get(request.name)
    try:
        await engine.containers.restart(request.name, timeout=timeout, signal=signal)
    except HyperError as error:
        unknown = error.message.startswith("invalid signal: ")  # dockerd gives it no status
        raise (InternalError if unknown else type(error))(
            f"Cannot restart container {request.name}: {error.message}"
        ) from error
    await request.answer(204)


async def kill(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/kill``"""
    try:
        await engine.containers.kill(request.name, request.query.text("signal") or "SIGKILL")
    except (Conflict, InvalidParameter, NotFound) as error:
        message = f"cannot kill container: {request.name}: {error.message}"
        raise type(error)(message) from error
    await request.answer(204)


async def pause(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/pause``"""
    await engine.containers.pause(request.name)
    await request.answer(204)


async def unpause(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/unpause``"""
    await engine.containers.unpause(request.name)
    await request.answer(204)


async def rename(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/rename``"""
    await engine.containers.rename(request.name, request.query.text("name"))
    await request.answer(204)


async def update(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/update``"""
    changes: UpdateConfig = await request.object(UPDATE)
    warnings = await engine.containers.update(request.name, changes)
    await request.answer_json({"Warnings": warnings or None})


async def resize(request: Request, engine: Engine) -> None:
    """``POST /containers/{name}/resize``"""
    rows, columns = terminal_size(request)
    await engine.containers.resize(request.name, rows, columns)
    await request.answer(200)


def terminal_size(request: Request) -> tuple[int, int]:
    """Return ``h`` and ``w``. Raises InvalidParameter."""
    return _side(request, "h", "height"), _side(request, "w", "width")


def _side(request: Request, key: str, what: str) -> int:
    """Read a 32-bit number; a terminal takes 16 bits of it."""
    text = request.query.text(key)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidParameter(f"invalid resize {what} {go_quote(text)}: invalid syntax")
    if digits != text or len(text) > 10 or int(text) >= 1 << 32:
        raise InvalidParameter(f'invalid resize {what} "{text}": value out of range')
    return min(int(text), (1 << 16) - 1)


async def remove(request: Request, engine: Engine) -> None:
    """``DELETE /containers/{name}``"""
    query = request.query
    await engine.containers.remove(
        request.name, force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
    )
    await request.answer(204)


async def prune(request: Request, engine: Engine) -> None:
    """``POST /containers/prune``"""
    removed, freed = await engine.containers.prune(request.filters)
    await request.answer_json({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})
