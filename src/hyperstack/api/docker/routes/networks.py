"""Networks: list, inspect, create, connect, disconnect, remove, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyperstack.api.docker.gojson import Schema
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema import network as schema
from hyperstack.errors import InvalidParameter, NotFound
from hyperstack.model import EndpointSettings
from hyperstack.network.rows import go_bool

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("GET", "/networks", list_networks)
    router.add("GET", "/networks/", list_networks)
    router.add("POST", "/networks/create", create)
    router.add("POST", "/networks/prune", prune)
    router.add("POST", "/networks/{name}/connect", connect)
    router.add("POST", "/networks/{name}/disconnect", disconnect)
    router.add("GET", "/networks/{name}", inspect)
    router.add("DELETE", "/networks/{name}", remove)


async def list_networks(request: Request, engine: Engine) -> None:
    """``GET /networks``: without the containers, which only inspect shows."""
    found = engine.networks.list(request.filters)
    await request.answer_json([schema.network(one.network, ()) for one in found])


async def inspect(request: Request, engine: Engine) -> None:
    """``GET /networks/{name}``"""
    verbose = request.query.text("verbose")
    if verbose and go_bool(verbose) is None:
        raise InvalidParameter(
            f'invalid value for verbose: {verbose}: strconv.ParseBool: parsing "{verbose}": '
            "invalid syntax"
        )
    found = engine.networks.inspect(request.name)
    if request.query.text("scope") not in ("", found.network.scope):
        raise NotFound(f"network {request.name} not found")
    await request.answer_json(schema.network(found.network, found.members))


async def create(request: Request, engine: Engine) -> None:
    """``POST /networks/create``"""
    raw = await request.json()
    spec = schema.read_create(raw, version=request.version)
    made = await engine.networks.create(spec)
    await request.answer_json({"Id": made.id, "Warning": ""}, 201)


async def remove(request: Request, engine: Engine) -> None:
    """``DELETE /networks/{name}``"""
    await engine.networks.remove(request.name)
    await request.answer(204)


async def prune(request: Request, engine: Engine) -> None:
    """``POST /networks/prune``"""
    removed = await engine.networks.prune(request.filters)
    await request.answer_json({"NetworksDeleted": list(removed) or None})


async def _body(request: Request, kind: Schema[dict[str, Any]]) -> dict[str, Any]:
    raw = await request.json()
    found: dict[str, Any] = kind.read({} if raw is None else raw)
    return found


async def connect(request: Request, engine: Engine) -> None:
    """``POST /networks/{name}/connect``"""
    body = await _body(request, schema.CONNECT)
    await engine.networks.connect(
        request.name, body.get("container", ""), body.get("wish") or EndpointSettings()
    )
    await request.answer(200)


async def disconnect(request: Request, engine: Engine) -> None:
    """``POST /networks/{name}/disconnect``"""
    body = await _body(request, schema.DISCONNECT)
    await engine.networks.disconnect(
        request.name, body.get("container", ""), force=body.get("force", False)
    )
    await request.answer(200)
