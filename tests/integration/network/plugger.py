"""A daemon's network part that plugs and unplugs until it is killed: ``test_recovery`` kills it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hyperstack.config import Config
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId, new_id
from hyperstack.network.manager import Attachment, NetworkManager
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.store.database import Database
from tests.integration.network.test_publish import want

UID = 700_123


async def container(manager: NetworkManager, sandboxes: SandboxNetwork) -> None:
    """Do once what the life of a container means to its network."""
    sandbox, identifier = new_id(), ContainerId(new_id())
    await sandboxes.prepare(sandbox, UID)
    await manager.attach(
        Attachment(
            network=manager.get("bridge"),
            container=identifier,
            container_name="x",
            sandbox=sandbox,
            uid=UID,
            wants=want(80, ""),
        )
    )
    await manager.publish(identifier, UID)
    await manager.detach(identifier)
    await sandboxes.release(sandbox)


async def main(root: Path) -> None:
    """Plug and unplug for ever."""
    config = Config(data_root=root / "data", exec_root=root / "run")
    db = Database(config.data_root / "hyper.db")
    sandboxes = SandboxNetwork(config)
    manager = NetworkManager(config, db, sandboxes, EventBus())
    await manager.start()
    print("up", flush=True)
    while True:
        await asyncio.gather(*(container(manager, sandboxes) for _ in range(3)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
