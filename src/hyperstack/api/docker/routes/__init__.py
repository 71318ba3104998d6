"""The routes, one file per resource."""

from __future__ import annotations

from hyperstack.api.docker.router import Router


def all_routes() -> Router:
    """Return a router with every route."""
    from hyperstack.api.docker.routes import (
        build,
        container_files,
        container_streams,
        containers,
        events,
        execs,
        images,
        networks,
        sandboxes,
        system,
        unavailable,
        volumes,
    )

    router = Router()
    for resource in (
        system,
        containers,
        container_streams,
        container_files,
        execs,
        images,
        build,
        networks,
        volumes,
        events,
        sandboxes,
        unavailable,
    ):
        resource.add_to(router)
    return router
