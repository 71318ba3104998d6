"""An engine's real parts over an empty data root: everything but guests, which need root."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from hyperstack.config import Config
from hyperstack.engine.core import Core
from hyperstack.engine.sandbox import Sandboxes
from hyperstack.engine.table import Table
from hyperstack.engine.waiters import Waiters
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.service import ImageService
from hyperstack.network.manager import NetworkManager
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.platform.cgroup import Cgroups
from hyperstack.platform.tasks import Tasks
from hyperstack.store.database import Database
from hyperstack.vmm.base import Runtime
from hyperstack.volume.local import LocalVolumes


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    config = Config(data_root=tmp_path / "data", exec_root=tmp_path / "exec")
    db = Database(config.data_root / "hyper.db")
    events, tasks, network = EventBus(), Tasks(), SandboxNetwork(config)
    kit = cast(Kit, None)  # nothing is booted
    made = Core(
        config=config,
        db=db,
        table=Table(db),
        events=events,
        images=ImageService(config, db, kit, events),
        sandboxes=Sandboxes(config, db, kit, {}, network, Cgroups(2, {}), tasks),
        networks=NetworkManager(config, db, network, events),
        volumes=LocalVolumes(config, db, events),
        tasks=tasks,
        waiters=Waiters(),
        default_runtime=Runtime.UML,
    )
    yield made
    made.closing = True
    await tasks.aclose()
    db.close()
