"""``/hyper/...``: what this engine has and Docker has not, for the ``hyper`` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("GET", "/hyper/sandboxes", sandboxes)
    router.add("GET", "/hyper/sandboxes/{name}/console", console)


async def sandboxes(request: Request, engine: Engine) -> None:
    """``GET /hyper/sandboxes``: the running virtual machines."""
    await request.answer_json(
        [
            {
                "Id": facts.id,
                "Runtime": facts.runtime,
                "Pid": facts.pid,
                "Uid": facts.uid,
                "Memory": facts.memory,
                "Created": facts.created_ns // 1_000_000_000,
                "Kernel": facts.kernel,
                "Containers": list(facts.containers),
            }
            for facts in engine.sandboxes.list()
        ]
    )


async def console(request: Request, engine: Engine) -> None:
    """``GET /hyper/sandboxes/NAME/console``: the last lines of a guest's console."""
    text = engine.sandboxes.console(request.params["name"])
    await request.answer(200, text.encode(), "text/plain; charset=utf-8")
