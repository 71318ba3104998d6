"""``commit``: an image from a container's changes; the layer is written by its guest."""

from __future__ import annotations

import tempfile
from contextlib import aclosing
from pathlib import Path

import msgspec

from hyperstack.build.changes import apply_changes
from hyperstack.engine import archive
from hyperstack.engine import pause as freezing
from hyperstack.engine.core import Core
from hyperstack.errors import Conflict, HyperError, InternalError
from hyperstack.image.reference import tag_name
from hyperstack.model import Container, ContainerConfig, Status


async def commit(
    core: Core,
    container: Container,
    *,
    repo: str,
    tag: str,
    comment: str,
    author: str,
    pause: bool,
    changes: list[str],
    config: ContainerConfig | None,
) -> str:
    """Make an image of the container's root and return its id.

    *changes* are Dockerfile instructions, *config* overrides the container's own. Raises
    InvalidParameter for a bad instruction or reference, Conflict while it is being removed.
    """
    if container.state.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(f"You cannot commit container {container.id} which is being removed")
    name = tag_name(repo, tag) if repo else None
    merged = apply_changes(_config(container, config), changes)
    frozen = pause and container.state.status == Status.RUNNING and await _freeze(core, container)
    folder = core.config.data_root / "tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="commit-") as file:
            path = Path(file.name)
            await _write(path, await archive.export(core, container, diff=True))
            image = await core.images.commit(
                parent=container.image_id,
                layer=path,
                config=merged,
                container=container.id,
                made_of=container.config,
                created_by=" ".join(container.config.cmd or ()),
                author=author,
                comment=comment,
                reference=name.canonical() if name else "",
            )
        named = name.familiar() if name else ""
        core.event(container, "commit", comment=comment, imageID=image, imageRef=named)
    except OSError as error:
        raise InternalError(f"commit of {container.name}: {error.strerror or error}") from error
    finally:
        if frozen:
            await _thaw(core, container)
    return image


def _config(container: Container, config: ContainerConfig | None) -> ContainerConfig:
    base = container.config
    if config is None:
        return base
    given = {
        field: value
        for field in config.__struct_fields__
        if (value := getattr(config, field)) not in ((), {}, "", None, False)
    }
    if "env" in given:
        names = {entry.partition("=")[0] for entry in config.env}
        kept = tuple(e for e in base.env if e.partition("=")[0] not in names)
        given["env"] = (*config.env, *kept)
    if "labels" in given:
        given["labels"] = {**base.labels, **config.labels}
    return msgspec.structs.replace(base, **given)


async def _write(path: Path, tar: archive.Tar) -> None:
    async with aclosing(tar):
        with path.open("wb") as file:
            async for chunk in tar:
                file.write(chunk)


async def _freeze(core: Core, container: Container) -> bool:
    """Pause a container; False if it has ended, or somebody else has paused it meanwhile."""
    try:
        await freezing.pause(core, container)
    except Conflict:
        return False
    return True


async def _thaw(core: Core, container: Container) -> None:
    try:
        await freezing.unpause(core, container)
    except HyperError:
        return  # it ended meanwhile
