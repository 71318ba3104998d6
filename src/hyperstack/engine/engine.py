"""The engine: puts the parts together, brings rows and reality together, hands out the services."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from pathlib import Path

import msgspec

from hyperstack.build.gitjail import GitJails
from hyperstack.build.service import BuildService
from hyperstack.config import Config
from hyperstack.engine import reconcile, runtimes, volumes
from hyperstack.engine.containers import ContainerService, ExecService
from hyperstack.engine.core import Core
from hyperstack.engine.networks import NetworkService
from hyperstack.engine.sandbox import Sandboxes
from hyperstack.engine.sandboxes import SandboxService
from hyperstack.engine.system import SystemService
from hyperstack.engine.table import Table
from hyperstack.engine.waiters import Waiters
from hyperstack.engine.workbench import Workbench
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.service import ImageService
from hyperstack.model import Container
from hyperstack.network.manager import NetworkManager
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.platform.cgroup import Cgroups
from hyperstack.platform.tasks import Tasks
from hyperstack.store.database import Database
from hyperstack.vmm import choose_default, drivers
from hyperstack.volume.local import LocalVolumes

log = logging.getLogger(__name__)

LONGEST_ROOT = 69
"""Bytes of the exec root's path; sockets lie below it, whose paths have 107 at most (unix(7))."""


class Engine:
    """One per daemon. ``start`` before use, ``close`` leaves every sandbox running."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.events = EventBus()
        self._core: Core | None = None
        self._tasks = Tasks()

    @property
    def core(self) -> Core:
        """The parts; there once ``start`` has begun."""
        assert self._core is not None
        return self._core

    async def start(self) -> None:
        """Open the state, adopt what runs, clear what is half made.

        Raises HyperError with what to do (no kit, a data root of another daemon, no tun ...).
        """
        try:
            await self._start()
        except msgspec.MsgspecError as error:
            # To go on without it would clear away what belongs to it.
            raise InternalError(
                f"a row of the database in {self.config.data_root} can't be read ({error}); "
                "restore it from a backup, or move it away to begin anew"
            ) from error

    async def _start(self) -> None:
        config = self.config
        if len(os.fsencode(config.exec_root)) > LONGEST_ROOT:
            raise InvalidParameter(
                f"exec root {config.exec_root} is longer than {LONGEST_ROOT} bytes: sockets in it "
                "could not be named"
            )
        for folder in (config.data_root, config.exec_root):
            _own_folder(folder)
        kit = Kit.load(config.kit)
        db = Database(config.data_root / "hyper.db")
        machines = drivers(config, kit)
        choice = await choose_default(config, machines)
        for reason in choice.reasons:
            log.info("%s", reason)
        images = ImageService(config, db, kit, self.events)
        network = SandboxNetwork(config)
        manager = NetworkManager(config, db, network, self.events)
        cgroups = Cgroups.detect()
        core = self._core = Core(
            config=config,
            db=db,
            table=Table(db),
            events=self.events,
            images=images,
            sandboxes=Sandboxes(config, db, kit, machines, network, cgroups, self._tasks),
            networks=manager,
            volumes=LocalVolumes(config, db, self.events),
            tasks=self._tasks,
            waiters=Waiters(),
            default_runtime=choice.runtime,
        )
        core.table.load()
        images.set_users(self._image_users)
        core.sandboxes.on_reconnect = lambda sandbox: reconcile.reconnected(core, sandbox)
        await images.recover()
        await core.volumes.recover(volumes.used_names(core.table))
        await manager.start()
        summary = await reconcile.reconcile(core)
        await core.volumes.sweep_mounts()
        await manager.reconcile(_wanted_endpoints(core))
        log.info("reconciled: %s", summary)
        self.containers = ContainerService(core)
        self.execs = ExecService(core)
        self.images = images
        bench = Workbench(core)
        folder = config.data_root / "tmp"
        gits = GitJails(config, kit, cgroups, folder)
        self.builds = BuildService(folder, images, bench, gits)
        self._tasks.start("builds of an earlier daemon", bench.recover())
        self._tasks.start("git of an earlier daemon", gits.clear())
        self.networks = NetworkService(core)
        self.volumes = volumes.VolumeService(core)
        self.sandboxes = SandboxService(core)
        self.system = SystemService(core, machines, choice)
        reconcile.restart_policies(core)
        self._tasks.start("probe of KVM", runtimes.find_out(core, machines, self.system.choose))

    def _image_users(self, image_id: str) -> list[Container]:
        return [c for c in self.core.table if c.image_id == image_id]

    async def close(self) -> None:
        """Stop the daemon's part. Containers go on; the next daemon finds them."""
        if self._core is None:
            return
        core, self._core = self._core, None
        core.closing = True
        lives = list(core.live.values())
        for live in lives:
            await live.detach()
        await self._tasks.aclose()
        await asyncio.gather(*(live.log.flushed() for live in lives))
        await core.sandboxes.detach()
        await core.networks.close()
        await core.images.close()
        await asyncio.to_thread(core.db.close)


def _own_folder(folder: Path) -> None:
    """Make a folder of the daemon's. Raises InternalError with what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o710)
    except OSError as error:
        what = "run as root" if error.errno in (errno.EACCES, errno.EPERM) else "choose another"
        raise InternalError(f"{folder} can't be made: {error.strerror}; {what}") from error


def _wanted_endpoints(core: Core) -> set[str]:
    return {
        endpoint.endpoint_id
        for container in core.table
        if container.id in core.live
        for endpoint in container.state.endpoints.values()
    }
