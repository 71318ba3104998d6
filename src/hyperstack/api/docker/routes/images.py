"""Images: list, inspect, history, pull, import, push, tag, remove, prune, save, load, search."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from hyperstack.api.docker.closing import closing
from hyperstack.api.docker.progress import send
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema import image as schema
from hyperstack.api.docker.schema.platform import read_platform, read_platforms
from hyperstack.build.changes import apply_changes
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerConfig

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine
    from hyperstack.image.manifest import Platform

MOST_NAMES = 1000
"""Images of one archive at most."""


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("GET", "/images/json", list_images)
    router.add("GET", "/images/search", search)
    router.add("GET", "/images/get", save)
    router.add("POST", "/images/create", create, waits=True)
    router.add("POST", "/images/load", load)
    router.add("POST", "/images/prune", prune)
    router.add("GET", "/images/{name}/get", save)
    router.add("GET", "/images/{name}/history", history)
    router.add("GET", "/images/{name}/json", inspect)
    router.add("POST", "/images/{name}/push", push, waits=True)
    router.add("POST", "/images/{name}/tag", tag)
    router.add("DELETE", "/images/{name}", remove)
    router.add("GET", "/distribution/{name}/json", distribution, waits=True)
    router.add("POST", "/auth", auth, waits=True)


async def list_images(request: Request, engine: Engine) -> None:
    """``GET /images/json``"""
    filters = request.filters
    if (old := request.query.text("filter")) and not request.at_least("1.41"):
        filters["reference"] = [old]
    found = engine.images.list(all_=request.query.flag("all"), filters=filters)
    uses = engine.system.image_uses() if request.at_least("1.51") else None
    wanted = request.at_least("1.42") and request.query.flag("shared-size")
    shared = engine.images.shared_sizes() if wanted else {}
    await request.answer_json(
        [
            schema.image_summary(
                image,
                request.version,
                containers=-1 if uses is None else uses[image.id],
                shared=shared.get(image.id, -1),
            )
            for image in found
        ]
    )


async def inspect(request: Request, engine: Engine) -> None:
    """``GET /images/{name}/json``"""
    query = request.query
    text = query.text("platform") if request.at_least("1.49") else ""
    if text and query.flag("manifests"):
        raise InvalidParameter(
            "conflicting options: manifests and platform options cannot both be set"
        )
    image = engine.images.get(request.name, read_platform(text))
    made_of = {} if request.at_least("1.45") else engine.images.made_of(image.id)
    await request.answer_json(schema.image_inspect(image, request.version, made_of))


async def history(request: Request, engine: Engine) -> None:
    """``GET /images/{name}/history``"""
    await request.answer_json(
        [
            schema.history_item(
                identifier=item.id,
                created=item.created,
                created_by=item.created_by,
                tags=item.tags,
                size=item.size,
                comment=item.comment,
            )
            for item in engine.images.history(request.name, _platform(request, "1.48"))
        ]
    )


def _platform(request: Request, since: str) -> Platform | None:
    """Return the platform that is asked for; clients older than API *since* ask for none."""
    return read_platform(request.query.text("platform")) if request.at_least(since) else None


def _one_platform(request: Request) -> Platform | None:
    """Return the platform that is to be saved or loaded (API 1.48)."""
    if request.at_least("1.48") and len(request.query.all("platform")) > 1:
        raise InvalidParameter("multiple platform parameters not supported")
    return _platform(request, "1.48")


def _auth(request: Request) -> Any:
    from hyperstack.image.auth import decode_auth

    return decode_auth(request.head.headers.get("x-registry-auth"))


async def create(request: Request, engine: Engine) -> None:
    """``POST /images/create``: pull ``fromImage``, or import ``fromSrc``."""
    query = request.query
    # "pull -a" of some clients has a colon and no tag.
    name, tag_ = query.text("fromImage").removesuffix(":"), query.text("tag")
    platform = query.text("platform") if request.at_least("1.32") else ""
    steps: AsyncIterator[Any]
    if name:
        steps = engine.images.pull(
            name, tag_, platform=platform, auth=_auth(request), all_tags=_all_tags(name, tag_)
        )
    else:
        steps = _import(request, engine, platform)
    await send(request, steps)


def _all_tags(name: str, tag: str) -> bool:
    """Tell whether every tag is wanted: none was named, neither in *tag* nor in *name*."""
    return not tag and "@" not in name and ":" not in name.rpartition("/")[2]


def _import(request: Request, engine: Engine, platform: str) -> AsyncIterator[Any]:
    query = request.query
    source = query.text("fromSrc")
    return engine.images.import_(
        request.stream() if source == "-" else source,
        repo=query.text("repo"),
        tag=query.text("tag"),
        message=query.text("message"),
        config=apply_changes(ContainerConfig(), query.all("changes")),
        platform=platform,
    )


async def load(request: Request, engine: Engine) -> None:
    """``POST /images/load``"""
    query = request.query
    platform = _one_platform(request)
    steps = engine.images.load(request.stream(), quiet=query.flag("quiet", True), platform=platform)
    await send(request, steps, started=True)


async def push(request: Request, engine: Engine) -> None:
    """``POST /images/{name}/push``"""
    await request.read()
    request.connection.end_when_gone()
    tag_ = request.query.text("tag")
    if (platform := _platform(request, "1.46")) is not None:
        engine.images.get(f"{request.name}:{tag_}" if tag_ else request.name, platform)
    steps = engine.images.push(request.name, tag_, auth=_auth(request))
    await send(request, steps)


async def tag(request: Request, engine: Engine) -> None:
    """``POST /images/{name}/tag``"""
    query = request.query
    if not query.text("repo"):
        await request.answer(200)  # nothing is done then, and dockerd says so to nobody
        return
    await engine.images.tag(request.name, query.text("repo"), query.text("tag"))
    await request.answer(201)


async def remove(request: Request, engine: Engine) -> None:
    """``DELETE /images/{name}``"""
    query = request.query
    if not request.name.strip():
        raise InvalidParameter("image name cannot be blank")
    platforms = query.all("platforms") if request.at_least("1.50") else []
    done = await engine.images.remove(
        request.name,
        force=query.flag("force"),
        prune=not query.flag("noprune"),
        platform=read_platforms(platforms),
    )
    await request.answer_json(schema.deleted(done))


async def prune(request: Request, engine: Engine) -> None:
    """``POST /images/prune``"""
    done, freed = await engine.images.prune(request.filters)
    made = {"ImagesDeleted": schema.deleted(done) or None, "SpaceReclaimed": freed}
    await request.answer_json(made)


async def save(request: Request, engine: Engine) -> None:
    """``GET /images/get`` and ``GET /images/{name}/get``"""
    names = [request.name] if "name" in request.params else request.query.all("names")
    if len(names) > MOST_NAMES:
        raise InvalidParameter(f"more than {MOST_NAMES} images cannot be saved at once")
    chunks = engine.images.save(names, _one_platform(request))
    async with closing(chunks):
        stream = None
        async for chunk in chunks:
            stream = stream or await request.start(content_type="application/x-tar")
            await stream.write(chunk)
        stream = stream or await request.start(content_type="application/x-tar")
        await stream.end()


async def search(request: Request, engine: Engine) -> None:
    """``GET /images/search``"""
    from hyperstack.image.search import search as ask

    found = await ask(
        engine.config,
        request.query.text("term"),
        limit=_limit(request),
        filters=request.filters,
        auth=_auth(request),
    )
    await request.answer_json(found)


def _limit(request: Request) -> int:
    try:
        return request.query.integer("limit")
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid limit specified: {error.message}") from None


async def distribution(request: Request, engine: Engine) -> None:
    """``GET /distribution/{name}/json``"""
    from hyperstack.image.distribution import inspect as look

    found = await look(engine.config, request.name, auth=_auth(request))
    await request.answer_json(schema.distribution(found))


async def auth(request: Request, engine: Engine) -> None:
    """``POST /auth``"""
    from hyperstack.api.docker.schema.auth import read_auth
    from hyperstack.image.login import login

    done = await login(engine.config, read_auth(await request.read()))
    await request.answer_json({"Status": done.status, "IdentityToken": done.identity_token})
