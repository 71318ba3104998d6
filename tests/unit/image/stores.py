"""An image store with rows of images but no layers: for rules that look at rows alone."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, cast

from hyperstack.config import Config
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image import configfile, rows
from hyperstack.image.catalog import name_of
from hyperstack.image.configfile import ImageConfig
from hyperstack.image.reference import Reference
from hyperstack.image.store import ImageStore
from hyperstack.image.values import HistoryEntry, LayerInfo
from hyperstack.model import Container, ContainerConfig, ContainerState, HostConfig, Status
from hyperstack.store.database import Database


def open_store(root: Path) -> ImageStore:
    config = Config(data_root=root)
    return ImageStore(config, Database(root / "hyper.db"), cast(Kit, None), EventBus())


class Rows:
    """Writes images straight into a store."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self.containers: list[Container] = []
        self._count = 0
        store.users = lambda image: [c for c in self.containers if c.image_id == image]

    async def image(
        self,
        *names: str,
        parent: str = "",
        layers: tuple[str, ...] = ("a",),
        created: int | None = None,
        **config: Any,
    ) -> str:
        """Add an image whose layers are 100 bytes each; return its id. Later ones are newer."""
        self._count += 1
        diff_ids = tuple(f"sha256:{name.encode().hex():0>64}" for name in layers)
        stamp = configfile.from_ns((created or self._count) * 10**9)
        data = configfile.encode(
            ImageConfig(
                created=stamp,
                comment=str(self._count),
                config=ContainerConfig(**config),
                diff_ids=diff_ids,
                history=tuple(HistoryEntry(created=stamp, created_by=name) for name in layers),
            )
        )
        infos = [
            LayerInfo(diff_id=d, tar_size=200, content_size=100, disk_size=300) for d in diff_ids
        ]
        row = rows.ImageRow(
            id=configfile_id(data),
            parent=parent,
            config=data,
            added_ns=time.time_ns(),
            tagged_ns=1 if names else 0,
            hidden=False,
        )
        new = rows.Addition(
            image=row,
            layers=infos,
            blobs=[],
            names=[name_of(Reference.parse(name)) for name in names],
        )
        await rows.add(self.store.db, new)
        self.store._take_in(new)
        return row.id

    def container(self, image: str, status: Status) -> Container:
        """Let a container use an image."""
        made = Container(
            id=cast(Any, f"{len(self.containers) + 1:064x}"),
            name=f"c{len(self.containers)}",
            created_ns=0,
            image_id=image,
            config=ContainerConfig(),
            host=HostConfig(),
            state=ContainerState(status=status),
        )
        self.containers.append(made)
        return made


def configfile_id(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
