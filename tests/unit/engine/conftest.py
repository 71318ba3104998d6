"""An engine's real parts over an empty data root: everything but guests, which need root."""

from __future__ import annotations

import tempfile
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

MEMORY = Path("/dev/shm")
"""Where a database that is synced at every write costs a test nothing."""


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        made = _core(Path(folder))
        yield made
        made.closing = True
        await made.tasks.aclose()
        made.db.close()


def _core(root: Path) -> Core:
    config = Config(data_root=root / "data", exec_root=root / "exec")
    db = Database(config.data_root / "hyper.db")
    events, tasks, network = EventBus(), Tasks(), SandboxNetwork(config)
    kit = cast(Kit, None)  # nothing is booted
    return Core(
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
