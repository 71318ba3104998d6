"""Networks: list, inspect, create, connect, disconnect, remove, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyperstack.api.docker.gojson import Where
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema import network as schema
from hyperstack.api.docker.schema.endpoint import EndpointKind
from hyperstack.errors import InvalidParameter
from hyperstack.model import EndpointSettings

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
    scope = request.query.text("scope")
    if scope not in ("", "local"):
        raise InvalidParameter(f"network {request.name} not found in scope {scope}")
    found = engine.networks.inspect(request.name)
    await request.answer_json(schema.network(found.network, found.members))


async def create(request: Request, engine: Engine) -> None:
    """``POST /networks/create``"""
    raw = await request.json(needed=True)
    made = await engine.networks.create(schema.read_create(raw))
    await request.answer_json({"Id": made.id, "Warning": ""}, 201)


async def remove(request: Request, engine: Engine) -> None:
    """``DELETE /networks/{name}``"""
    await engine.networks.remove(request.name)
    await request.answer(204)


async def prune(request: Request, engine: Engine) -> None:
    """``POST /networks/prune``"""
    removed = await engine.networks.prune(request.filters)
    await request.answer_json({"NetworksDeleted": list(removed) or None})


async def _body(request: Request, struct: str) -> dict[str, Any]:
    raw = await request.json(needed=True)
    if not isinstance(raw, dict):
        raise Where().mismatch(raw, f"network.{struct}")
    return {key.lower(): value for key, value in raw.items() if value is not None}


def _container(body: dict[str, Any], struct: str) -> str:
    name = body.get("container", "")
    if not isinstance(name, str):
        raise Where().field(struct, "Container").mismatch(name, "string")
    return name


async def connect(request: Request, engine: Engine) -> None:
    """``POST /networks/{name}/connect``"""
    body = await _body(request, "ConnectOptions")
    settings = EndpointSettings()
    if "endpointconfig" in body:
        place = Where().field("ConnectOptions", "EndpointConfig")
        settings = EndpointKind().read(body["endpointconfig"], place)
    container = _container(body, "ConnectOptions")
    await engine.networks.connect(request.name, container, settings)
    await request.answer(200)


async def disconnect(request: Request, engine: Engine) -> None:
    """``POST /networks/{name}/disconnect``"""
    body = await _body(request, "DisconnectOptions")
    await engine.networks.disconnect(
        request.name,
        _container(body, "DisconnectOptions"),
        force=body.get("force") is True,
    )
    await request.answer(200)
