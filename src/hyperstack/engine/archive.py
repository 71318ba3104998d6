"""``cp``, ``export``, ``diff``: the container's files, read and written inside a guest.

A running container's own agent does it; for a stopped one a service sandbox is booted with its disk
(design 7), because the host never mounts what a guest wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from hyperstack.engine import claims, rooms, runtimes, volumes
from hyperstack.engine.core import Core
from hyperstack.engine.refusals import damaged_root
from hyperstack.engine.sandbox import Sandbox
from hyperstack.errors import (
    Conflict,
    GuestError,
    HyperError,
    InternalError,
    InvalidParameter,
    NotFound,
)
from hyperstack.guest import messages
from hyperstack.guest.client import AgentFailure, OutputStream
from hyperstack.model import Container, PathStat

log = logging.getLogger(__name__)

T = TypeVar("T")

ENOENT, EISDIR, ENOTDIR, EROFS, EINVAL, ENOSPC, ELOOP = 2, 21, 20, 30, 22, 28, 40
_OUTSIDE = re.compile(r'("[^"]*") is outside of ')
_ROOTED = re.compile(r'(")/')
BOUND = 24 * 3600.0
QUIET = 120.0
"""Seconds for which a guest that is to send or take a tar may do nothing."""


@contextlib.asynccontextmanager
async def reach(
    core: Core, container: Container, *, mounted: bool, told: bool = True
) -> AsyncIterator[Sandbox]:
    """Give a sandbox whose agent has the container's root mounted: its own, or a service one.

    *mounted*: volumes and bind mounts are to be seen too, which is what cp wants and export not;
    *told*: with events of it. The container's lock is held as long as it is a service one, and free
    otherwise.
    """
    await core.settled(container.id)
    live = core.live.get(container.id)
    if live is None:
        async with core.table.lock(container.id):
            live = core.live.get(container.id)
            if live is None:
                try:
                    sandbox = await service(core, container, mounted=mounted)
                    if mounted and told:
                        volumes.mounted(core, container)
                    try:
                        yield sandbox
                    finally:
                        if mounted and told:
                            volumes.unmounted(core, container)
                        await core.sandboxes.end(sandbox, clean=True)
                finally:
                    await core.volumes.release(container.mounts, container.id)
                return
    yield live.sandbox


class Tar:
    """A tar on its way out of a guest. Its reader exhausts it or closes it, never neither.

    Not a generator: closing one that has not begun does not run its clean-up.
    """

    def __init__(
        self, stream: OutputStream, holder: contextlib.AbstractAsyncContextManager[Sandbox]
    ) -> None:
        self._stream = stream
        self._holder = holder
        self._given = 0
        self._whole = False
        self._closed = False

    def __aiter__(self) -> Tar:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes. Raises GuestError if the guest can't go on."""
        if self._closed:
            raise StopAsyncIteration
        self._stream.take(self._given)  # who asks for more has dealt with what was given
        piece = await _piece(self._stream)
        if piece is None:
            self._whole = True
            await self.aclose()
            raise StopAsyncIteration
        offset, data = piece
        self._given = offset + len(data)
        return data

    async def aclose(self) -> None:
        """Give the sandbox back; a guest that is still sending stops."""
        if self._closed:
            return
        self._closed = True
        if not self._whole:
            self._stream.reset()
        await self._holder.__aexit__(None, None, None)


async def _open(
    core: Core,
    container: Container,
    ask: Callable[[Sandbox, int], Awaitable[T]],
    *,
    mounted: bool,
) -> tuple[T, Tar]:
    """Open a stream for a tar and *ask* the guest for it; return its answer and the tar."""
    holder = reach(core, container, mounted=mounted)
    sandbox = await holder.__aenter__()
    try:
        assert sandbox.agent is not None
        number = sandbox.next_handle() * 4 + 2
        tar = Tar(sandbox.agent.open_output(number), holder)
        return await ask(sandbox, number), tar
    except BaseException as error:
        await holder.__aexit__(type(error), error, error.__traceback__)
        raise


async def service(core: Core, container: Container, *, mounted: bool) -> Sandbox:
    """Boot a service sandbox with a container's root. The container's lock is held.

    Whoever ends it lets its volumes go. Raises HyperError.
    """
    if core.table.find(container.id) is None:
        raise NotFound(f"No such container: {container.id}")
    runtime = runtimes.resolve(core, container.runtime)
    prepared = await rooms.prepare(core, container, runtime, service=True, mounted=mounted)
    row = core.sandboxes.new_row(prepared.plan)
    sandbox = await core.sandboxes.boot(row, prepared.plan)
    try:
        mount = messages.RootMount(
            id=container.id, root=prepared.root(sandbox), mounts=prepared.mounts
        )
        await sandbox.call(messages.Op.ROOT_MOUNT, mount)
    except AgentFailure as failure:
        await core.sandboxes.end(sandbox, clean=False)
        words = damaged_root(failure.detail) or f"its root can't be mounted: {failure.detail}"
        raise InternalError(f"container {container.name}: {words}") from failure
    except BaseException:
        await core.sandboxes.end(sandbox, clean=False)
        raise
    return sandbox


def _path_error(container: Container, path: str, failure: AgentFailure) -> HyperError:
    """Word an agent's refusal of a path as Docker does."""
    if failure.errno == ENOENT:
        return NotFound(f"Could not find the file {path} in container {container.name}")
    if failure.errno == EROFS:
        what = "mounted volume" if _in_read_only_mount(container, path) else "container rootfs"
        return InvalidParameter(f"{what} is marked read-only")
    if failure.errno == ENOTDIR and failure.detail.startswith("lstat "):
        return InternalError(f"lstat {path}: not a directory")
    if failure.errno == ELOOP and failure.detail.startswith("lstat "):
        return InternalError(f"lstat {path}: too many levels of symbolic links")
    if failure.errno == ELOOP:
        return InternalError(f"evalSymlinksInScope: {failure.detail}")
    if outside := _OUTSIDE.match(failure.detail):
        return InternalError(f"invalid entry name {outside[1]}")
    if failure.detail.startswith(("cannot overwrite ", "archive/tar: ")):
        return InternalError(_ROOTED.sub(r"\1", failure.detail, count=1))
    if failure.errno in (ENOTDIR, EISDIR, EINVAL):
        return InvalidParameter(failure.detail or "extraction point is not a directory")
    if failure.errno == ENOSPC:
        return InternalError(f"no space left on device: {failure.detail}")
    return InternalError(f"{path}: {failure.detail}")


def _in_read_only_mount(container: Container, path: str) -> bool:
    place = posixpath.normpath(f"/{path}")
    within = [
        mount
        for mount in container.mounts
        if place == mount.destination or place.startswith(f"{mount.destination}/")
    ]
    return bool(within) and not max(within, key=lambda m: len(m.destination)).read_write


async def stat(core: Core, container: Container, path: str) -> PathStat:
    """Describe a path. Raises NotFound."""
    _named(path)
    async with reach(core, container, mounted=True) as sandbox:
        request = messages.ArchiveRequest(container=container.id, path=path)
        try:
            found: messages.PathStat = await sandbox.call(messages.Op.ARCHIVE_STAT, request)
        except AgentFailure as failure:
            raise _path_error(container, path, failure) from failure
    return claims.path_stat(found)


def _named(path: str) -> None:
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")  # as dockerd 28 has it
    if "\0" in path:
        raise InvalidParameter("bad parameter: path contains a NUL byte")


async def get(core: Core, container: Container, path: str) -> tuple[PathStat, Tar]:
    """Return a path's description and its tar. Raises NotFound."""
    _named(path)

    async def ask(sandbox: Sandbox, stream: int) -> PathStat:
        request = messages.ArchiveRequest(container=container.id, path=path, stream=stream)
        try:
            return claims.path_stat(await sandbox.call(messages.Op.ARCHIVE_GET, request))
        except AgentFailure as failure:
            raise _path_error(container, path, failure) from failure

    found = await _open(core, container, ask, mounted=True)
    core.event(container, "archive-path")
    return found


async def _piece(stream: OutputStream) -> tuple[int, bytes] | None:
    """Return the next bytes of a tar and their offset, None at its end. Raises GuestError."""
    try:
        async with asyncio.timeout(QUIET):
            return await anext(stream)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise GuestError(f"the guest sent nothing of the archive for {QUIET:.0f} s") from None


async def put(
    core: Core,
    container: Container,
    path: str,
    body: AsyncIterator[bytes],
    *,
    no_overwrite_dir_non_dir: bool,
    copy_uid_gid: bool,
) -> None:
    """Unpack a tar in a directory of the container.

    Raises NotFound (no such directory), InvalidParameter (not a directory, read-only),
    InternalError (a bad tar).
    """
    _named(path)
    async with reach(core, container, mounted=True) as sandbox:
        stream_id = sandbox.next_handle() * 4 + 1
        assert sandbox.agent is not None
        request = messages.ArchiveRequest(
            container=container.id,
            path=path,
            stream=stream_id,
            no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
            copy_ids=copy_uid_gid,
        )
        try:
            await send(sandbox, request, stream_id, body)
        except AgentFailure as failure:
            raise _path_error(container, path, failure) from failure
    core.event(container, "extract-to-dir")


async def send(
    sandbox: Sandbox,
    request: messages.ArchiveRequest,
    stream_id: int,
    body: AsyncIterator[bytes],
) -> None:
    """Feed the agent while waiting for its verdict; its refusal ends the feeding."""

    assert sandbox.agent is not None
    stream = sandbox.agent.open_input(stream_id)

    async def feed() -> None:
        async for data in body:
            await _within(stream.write(data))
        await _within(stream.eof())

    answer = asyncio.create_task(sandbox.call(messages.Op.ARCHIVE_PUT, request, timeout=BOUND))
    feeding = asyncio.create_task(feed())
    try:
        await asyncio.wait({answer, feeding}, return_when=asyncio.FIRST_COMPLETED)
        if feeding.done() and feeding.exception() is not None and not answer.done():
            stream.reset()
            feeding.result()
        await answer
    finally:
        for task in (answer, feeding):
            task.cancel()
        await asyncio.gather(answer, feeding, return_exceptions=True)


async def _within(step: Awaitable[None]) -> None:
    """Let the guest take a part of a tar. Raises GuestError if it does not."""
    try:
        async with asyncio.timeout(QUIET):
            await step
    except TimeoutError:
        raise GuestError(f"the guest took nothing of the archive for {QUIET:.0f} s") from None


async def export(core: Core, container: Container, *, diff: bool = False) -> Tar:
    """Return the container's root as a tar, or with *diff* its changes as a layer."""

    async def ask(sandbox: Sandbox, stream: int) -> None:
        request = messages.ExportRequest(container=container.id, stream=stream, diff=diff)
        try:
            await sandbox.call(messages.Op.EXPORT, request)
        except AgentFailure as failure:
            raise InternalError(f"export of {container.name}: {failure.detail}") from failure

    return (await _open(core, container, ask, mounted=False))[1]


async def changes(core: Core, container: Container) -> list[messages.Change]:
    """List what differs from the image. Raises Conflict while the container is removed."""
    if core.table.find(container.id) is None:
        raise Conflict(f"container {container.id} is being removed")
    live = core.live.get(container.id)
    try:
        return await _changes(core, container)
    except GuestError as failure:
        if live is None or not live.explains(failure):
            raise
    # Its sandbox has ended, and with it the answer: its disk knows as well.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(QUIET):
            await live.finished.wait()
    return await _changes(core, container)


async def _changes(core: Core, container: Container) -> list[messages.Change]:
    async with reach(core, container, mounted=False) as sandbox:
        found: messages.Changes = await sandbox.call(
            messages.Op.CHANGES, messages.ContainerRef(id=container.id), timeout=QUIET
        )
    return list(found.changes)
