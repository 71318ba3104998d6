"""Containers for tests of the engine: valid rows of which a test says what matters to it."""

from __future__ import annotations

import itertools
from typing import Any

from hyperstack.engine.core import Core
from hyperstack.ids import ContainerId, new_id
from hyperstack.model import Container, ContainerConfig, ContainerState, HostConfig

_count = itertools.count(1)


def container(
    name: str = "c",
    *,
    config: ContainerConfig | None = None,
    host: HostConfig | None = None,
    state: ContainerState | None = None,
    identifier: str = "",
    **more: Any,
) -> Container:
    """Return a container that is in no table. Later ones are newer."""
    return Container(
        id=ContainerId(identifier or new_id()),
        name=name,
        created_ns=more.pop("created_ns", next(_count)),
        image_id=more.pop("image_id", "sha256:" + "0" * 64),
        config=config or ContainerConfig(),
        host=host or HostConfig(),
        state=state or ContainerState(),
        path=more.pop("path", "/bin/sh"),
        **more,
    )


async def added(core: Core, name: str = "c", **more: Any) -> Container:
    """Return a container that is in the table and has a folder."""
    made = container(name, **more)
    core.table.claim(name, made.id)
    await core.table.add(made)
    core.container_dir(made.id).mkdir(parents=True)
    return made
