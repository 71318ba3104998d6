"""What all verbs of the engine share: the parts, the table of containers, the running ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hyperstack.config import Config
from hyperstack.engine.cputime import Account
from hyperstack.engine.sandbox import Sandbox, Sandboxes
from hyperstack.engine.session import Hub
from hyperstack.engine.table import Table
from hyperstack.engine.waiters import Waiters
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId, ExecId
from hyperstack.image.service import ImageService
from hyperstack.model import Container, Exec, StreamKind
from hyperstack.network.manager import NetworkManager
from hyperstack.platform.tasks import Tasks
from hyperstack.store.database import Database
from hyperstack.vmm.base import Runtime
from hyperstack.volume.local import LocalVolumes

if TYPE_CHECKING:
    from hyperstack.engine.live import Live

STREAMS = frozenset({StreamKind.STDOUT, StreamKind.STDERR})


@dataclass(kw_only=True)
class Core:
    """The engine's parts. One per daemon; verbs take it as their first argument."""

    config: Config
    db: Database
    table: Table
    events: EventBus
    images: ImageService
    sandboxes: Sandboxes
    networks: NetworkManager
    volumes: LocalVolumes
    tasks: Tasks
    waiters: Waiters
    default_runtime: Runtime
    live: dict[ContainerId, Live] = field(default_factory=dict)
    hubs: dict[ContainerId, Hub] = field(default_factory=dict)
    execs: dict[ExecId, Exec] = field(default_factory=dict)
    restarts: dict[ContainerId, asyncio.Task[None]] = field(default_factory=dict)
    """Restart policies that wait for their next try."""
    restart_waits: dict[ContainerId, float] = field(default_factory=dict)
    """Seconds that the policy waited last; see ``restart``."""
    starting: set[ContainerId] = field(default_factory=set)
    """Containers whose start is under way; each holds its lock."""
    unrecorded: set[ContainerId] = field(default_factory=set)
    """Containers whose state is still to be written, see ``record``."""
    keepers: dict[ContainerId, Callable[[Sandbox | None], Awaitable[None]]] = field(
        default_factory=dict
    )
    """Who takes something out of a container's root between its end and its sandbox's; they are
    given None if the machine has died, and raise nothing."""
    accounts: WeakKeyDictionary[Sandbox, Account] = field(default_factory=WeakKeyDictionary)
    """CPU time of machines whose containers somebody looks at."""
    closing: bool = False

    def hub(self, container: ContainerId) -> Hub:
        """Return the attached clients of a container."""
        return self.hubs.setdefault(container, Hub())

    async def settled(self, container: ContainerId) -> None:
        """Wait for the end of a start that is under way: other verbs judge by what came of it."""
        if container in self.starting:
            async with self.table.lock(container):
                pass

    def container_dir(self, container: ContainerId) -> Path:
        """Where a container's disk and log lie."""
        return self.config.data_root / "containers" / container

    def disk(self, container: ContainerId) -> Path:
        """The container's writable disk."""
        return self.container_dir(container) / "disk.img"

    def event(self, container: Container, action: str, **extra: str) -> None:
        """Publish a container event with Docker's attributes: labels, image, name."""
        attributes = {
            **container.config.labels,
            **extra,
            "image": container.config.image,
            "name": container.name,
        }
        self.events.publish("container", action, container.id, attributes)
