"""The engine's side of building (``build/bench.py``): RUN's containers, and roots to copy into.

A step of RUN is a container like any other, with a log that nobody keeps. A root is a service
sandbox (design 7) with an image's layers and an empty disk that no container has: nobody sees it,
and what a killed daemon leaves of it is swept as the folder and the sandbox of nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec.structs import replace

from hyperstack.build.bench import Sink
from hyperstack.engine import archive, attach, claims, create, disks, remove, rooms, runtimes, start
from hyperstack.engine.core import Core
from hyperstack.engine.sandbox import Sandbox, SandboxPlan, check_layers, layer_name
from hyperstack.errors import GuestError, HyperError, InternalError, InvalidParameter
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure
from hyperstack.ids import ContainerId, new_id
from hyperstack.image.content import mapped
from hyperstack.model import (
    Container,
    ContainerConfig,
    ContainerState,
    HostConfig,
    LogConfig,
    PathStat,
    WaitResult,
)

MEMORY = 256 << 20
MAX_ID = 0xFFFFFFFE
MARK = "hyper.build"
"""Annotation of a step's container, none of which runs on when the daemon that builds is gone."""
_STEP, _PASSING = "step", "passing"
"""Its values: one that was there only for a moment goes whatever its state is."""


class Workbench:
    """Implements ``build.bench.Bench``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def recover(self) -> None:
        """End the steps that run for builds of an earlier daemon: nobody waits for them."""
        for container in list(self._core.table):
            mark = container.host.annotations.get(MARK)
            if mark == _PASSING or (mark and container.state.status.is_up):
                await self._discard(container.id)

    async def create(
        self, image: str, config: ContainerConfig, host: HostConfig, *, passing: bool = False
    ) -> tuple[str, list[str]]:
        """Make a container of an image; raises what ``create`` raises. Cancelled, none is left."""
        marks = {MARK: _PASSING if passing else _STEP}
        making = create.create(
            self._core,
            name=None,
            config=replace(config, image=image, attach_stdout=True, attach_stderr=True),
            host=replace(host, log_config=LogConfig(type="none"), annotations=marks),
            networks={},
        )
        job = asyncio.create_task(making, name="a build's container")
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await self._core.tasks.carry_through("end of a build's container", self._undo(job))
            raise

    async def _undo(self, making: asyncio.Task[tuple[str, list[str]]]) -> None:
        with contextlib.suppress(HyperError):
            container, _ = await making
            await self.remove(container)

    async def run(self, container: str, sink: Sink, layer: Path) -> WaitResult:
        """Run it to its end and write what it changed to *layer*; see ``build/bench.py``.

        The changes are taken before its sandbox ends: no second one is booted for them. Raises what
        ``start`` raises, and GuestError if the changes can't be had.
        """
        core = self._core
        found = core.table.get(container)
        session = await attach.attach(
            core,
            found,
            found.name,
            stdin=False,
            stdout=True,
            stderr=True,
            stream=True,
            logs_too=False,
        )
        wait = core.waiters.register(found, "next-exit")
        taken = _Keeper(found, layer)
        core.keepers[found.id] = taken.keep
        try:
            await start.start(core, found)
            async for kind, data in session.output():
                await sink(kind, data)
            result = await wait.result()
            if not result.exit_code:
                await taken.done
            return result
        except asyncio.CancelledError:
            await core.tasks.carry_through("end of a build's step", self._discard(container))
            raise
        finally:
            core.keepers.pop(found.id, None)
            session.close()
            wait.cancel()

    async def _discard(self, container: str) -> None:
        with contextlib.suppress(HyperError):
            await self.remove(container)

    async def remove(self, container: str) -> None:
        """Remove it with its anonymous volumes, running or not; to the end, once it has begun."""
        found = self._core.table.get(container)
        removal = remove.remove(self._core, found, force=True, volumes=True)
        await self._core.tasks.carry_through("removal of a build's container", removal)

    @contextlib.asynccontextmanager
    async def root(self, image: str) -> AsyncIterator[ImageRoot]:
        """Give an image's root while the block runs. Raises GuestError if its guest fails."""
        core = self._core
        holder = _nobody(image, core.config.storage_size)
        folder = core.container_dir(holder.id)
        layers = await self._layers(image)
        folder.mkdir(parents=True, mode=0o710)
        try:
            await disks.make(core, holder)
            sandbox = await _boot(core, holder, layers)
            try:
                yield ImageRoot(core, sandbox, holder.id)
            finally:
                # Its disk goes with it, so nothing has to be unmounted.
                await core.tasks.carry_through(
                    "end of a build's root", core.sandboxes.end(sandbox, clean=False)
                )
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def _layers(self, image: str) -> tuple[Path, ...]:
        images = self._core.images
        layers = images.rootfs(image) if image else [await images.nothing()]
        found = tuple(dict.fromkeys(layers))
        check_layers(found)
        return found


def _nobody(image: str, size: int) -> Container:
    """Return what stands in for a container where the engine wants one."""
    return Container(
        id=ContainerId(new_id()),
        name="",
        created_ns=time.time_ns(),
        image_id=image,
        config=ContainerConfig(),
        host=HostConfig(),
        state=ContainerState(),
        disk_size=size,
    )


async def _boot(core: Core, holder: Container, layers: tuple[Path, ...]) -> Sandbox:
    plan = SandboxPlan(
        runtime=runtimes.resolve(core, core.config.default_runtime),
        memory=MEMORY,
        cpus=rooms.vm_cpus(holder.host),
        containers=(holder.id,),
        service=True,
        layers=layers,
        disks=((rooms.DISK, core.disk(holder.id)),),
        limits=rooms.cgroup_limits(holder.host, MEMORY),
    )
    sandbox = await core.sandboxes.boot(core.sandboxes.new_row(plan), plan)
    try:
        root = messages.Root(
            layers=tuple(sandbox.machine.layer(layer_name(path)) for path in layers),
            disk=sandbox.machine.disk(rooms.DISK),
        )
        await sandbox.call(messages.Op.ROOT_MOUNT, messages.RootMount(id=holder.id, root=root))
    except BaseException as error:
        await core.sandboxes.end(sandbox, clean=False)
        if isinstance(error, AgentFailure):
            raise GuestError(f"an image's root can't be mounted: {error.detail}") from error
        raise
    return sandbox


class ImageRoot:
    """Implements ``build.bench.Root`` by a service sandbox's agent."""

    def __init__(self, core: Core, sandbox: Sandbox, identifier: ContainerId) -> None:
        self._core = core
        self._sandbox = sandbox
        self._id = identifier

    def _stream(self, direction: int) -> int:
        return self._sandbox.next_handle() * 4 + direction

    async def stat(self, path: str) -> PathStat | None:
        """Describe a path, the last link not followed; None if nothing is there."""
        request = messages.ArchiveRequest(container=self._id, path=path)
        try:
            found = await self._sandbox.call(messages.Op.ARCHIVE_STAT, request)
        except AgentFailure as failure:
            if failure.errno in (archive.ENOENT, archive.ENOTDIR):
                return None
            raise _refused(path, failure) from failure
        return claims.path_stat(found)

    async def get(self, path: str) -> archive.Tar:
        """Return a path as a tar whose names begin with its last component."""
        number = self._stream(2)
        request = messages.ArchiveRequest(container=self._id, path=path, stream=number)
        return await _open(self._sandbox, messages.Op.ARCHIVE_GET, request, path)

    async def owner(self, name: str, *, group: bool) -> int:
        """Return the number that a user or group has in the root's own files."""
        request = messages.OwnerRequest(container=self._id, name=name, group=group)
        try:
            found: messages.Owner = await self._sandbox.call(messages.Op.OWNER, request)
        except AgentFailure as failure:
            raise _refused(name, failure) from failure
        return min(max(found.id, 0), MAX_ID)  # a guest may say anything

    async def diff(self) -> archive.Tar:
        """Return what was changed since the last time, as a layer."""
        return await _changes(self._sandbox, self._id, more=True)

    async def put(self, path: str, body: AsyncIterator[bytes]) -> None:
        """Unpack a plain tar in a directory. Raises InvalidParameter for a bad one."""
        number = self._stream(1)
        request = messages.ArchiveRequest(container=self._id, path=path, stream=number)
        try:
            await archive.send(self._sandbox, request, number, body)
        except AgentFailure as failure:
            raise _refused(path, failure) from failure


class _Keeper:
    """Takes a container's changes when its process has ended well; ``done`` says when it has."""

    def __init__(self, container: Container, layer: Path) -> None:
        self._container = container
        self._layer = layer
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def keep(self, sandbox: Sandbox | None) -> None:
        """Write the changes, see ``Core.keepers``."""
        try:
            if sandbox is not None and not self._container.state.exit_code:
                await _write(self._layer, await _changes(sandbox, self._container.id))
        except asyncio.CancelledError:
            self.done.cancel()
            raise
        except Exception as error:  # whatever it is: the build waits for a word
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


async def _write(path: Path, tar: archive.Tar) -> None:
    async with contextlib.aclosing(tar):
        with mapped("write a layer"), path.open("wb") as file:
            async for data in tar:
                file.write(data)


async def _changes(sandbox: Sandbox, container: ContainerId, *, more: bool = False) -> archive.Tar:
    """Return what was changed in a root, as a layer; *more*: since the last time that was asked.

    Raises InvalidParameter, GuestError.
    """
    number = sandbox.next_handle() * 4 + 2
    request = messages.ExportRequest(container=container, stream=number, diff=True, more=more)
    return await _open(sandbox, messages.Op.EXPORT, request, "the changes")


async def _open(
    sandbox: Sandbox,
    op: messages.Op,
    request: messages.ArchiveRequest | messages.ExportRequest,
    what: str,
) -> archive.Tar:
    """Ask a guest for a tar. Raises what ``_refused`` makes of its refusal."""
    if sandbox.agent is None:
        raise GuestError("the guest's agent is not connected")
    stream = sandbox.agent.open_output(request.stream)
    try:
        await sandbox.call(op, request)
    except AgentFailure as failure:
        raise _refused(what, failure) from failure
    return archive.Tar(stream, contextlib.nullcontext(sandbox))


def _refused(path: str, failure: AgentFailure) -> HyperError:
    if failure.errno == archive.ENOSPC:
        return InternalError(f"no space left on device: {failure.detail}")
    return InvalidParameter(failure.detail or f"{path}: error {failure.errno}")
