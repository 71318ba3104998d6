"""The container verbs as one service: finds the container, then the verb's own module does it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hyperstack.engine import (
    archive,
    attach,
    commit,
    create,
    exec,
    links,
    listing,
    logs,
    networking,
    pause,
    prune,
    remove,
    restart,
    start,
    stats,
    stop,
    top,
    update,
)
from hyperstack.engine.core import Core
from hyperstack.engine.session import Session
from hyperstack.engine.waiters import Wait, check_condition
from hyperstack.errors import Conflict, InvalidParameter
from hyperstack.guest import messages
from hyperstack.ids import ContainerId, ExecId
from hyperstack.image.reference import tag_name
from hyperstack.model import (
    Container,
    ContainerConfig,
    EndpointSettings,
    Exec,
    ExecConfig,
    HostConfig,
    LogQuery,
    LogRecord,
    PathStat,
)

List = list
"""The builtin, since the service's own ``list`` hides it."""


class ContainerService:
    """What clients may do with containers. *ref* is a name, an id or a unique id prefix.

    Every method raises NotFound for an unknown *ref*, and what its verb's module says.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def get(self, ref: str) -> Container:
        """Find a container."""
        return self._core.table.get(ref)

    def list(self, *, all: bool, limit: int, filters: dict[str, List[str]]) -> List[Container]:
        """List containers, newest first."""
        return listing.list_containers(self._core, all_=all, limit=limit, filters=filters)

    async def create(
        self,
        *,
        name: str | None,
        config: ContainerConfig,
        host: HostConfig,
        networks: dict[str, EndpointSettings],
        platform: str = "",
    ) -> tuple[ContainerId, List[str]]:
        """Create a container; see ``engine/create.py``."""
        return await create.create(
            self._core, name=name, config=config, host=host, networks=networks, platform=platform
        )

    async def sizes(self, ref: str) -> tuple[int, int]:
        """Return the bytes that the container's disk takes, and those with its image."""
        container = self.get(ref)
        written = prune.disk_usage(self._core.disk(container.id))
        return written, written + self._core.images.size(container.image_id)

    async def start(self, ref: str) -> None:
        """Start it."""
        await start.start(self._core, self.get(ref))

    async def stop(self, ref: str, *, timeout: int | None, signal: str | None) -> None:
        """Stop it; *timeout* in seconds."""
        await stop.stop(self._core, self.get(ref), timeout=timeout, signal=signal)

    async def restart(self, ref: str, *, timeout: int | None, signal: str | None) -> None:
        """Stop and start it."""
        await restart.restart(self._core, self.get(ref), timeout=timeout, signal=signal)

    async def kill(self, ref: str, signal: str) -> None:
        """Send it a signal."""
        stop.signal_to_send(signal)  # as Docker, before it is looked for
        await stop.kill(self._core, self.get(ref), signal)

    async def pause(self, ref: str) -> None:
        """Freeze it."""
        await pause.pause(self._core, self.get(ref))

    async def unpause(self, ref: str) -> None:
        """Thaw it."""
        await pause.unpause(self._core, self.get(ref))

    async def rename(self, ref: str, new_name: str) -> None:
        """Rename it."""
        if not (ref and new_name):
            raise InvalidParameter("Neither old nor new names may be empty")
        await update.rename(self._core, self.get(ref), new_name)

    async def update(self, ref: str, changes: update.UpdateConfig) -> List[str]:
        """Change its limits; returns warnings."""
        settled, warnings = update.check(changes)  # as Docker, before it is looked for
        await update.update(self._core, self.get(ref), settled)
        return warnings

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """Remove it."""
        if link:
            parent = await links.remove(self._core, ref)
            await networking.refresh_hosts(self._core, parent)
            return
        await remove.remove(self._core, self.get(ref), force=force, volumes=volumes, named=ref)

    def link_names(self, container: Container) -> List[str]:
        """Return the names that it has by links of others, ``/parent/alias``."""
        return links.names_of(self._core.table, container)

    async def prepare_wait(self, ref: str, condition: str) -> Wait:
        """Register a wait; ``result`` of what is returned waits."""
        check_condition(condition)
        return self._core.waiters.register(self.get(ref), condition)

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """Tell its terminal the size. Raises Conflict unless it runs."""
        container = self.get(ref)
        live = self._core.live.get(container.id)
        if live is None:
            raise Conflict(f"container {container.id} is not running")
        if container.config.tty:  # as with Docker, whose runtime has no terminal else
            await exec.resize_terminal(live, live.handle, rows, columns)
        self._core.event(container, "resize", height=str(rows), width=str(columns))

    async def top(self, ref: str, ps_args: str) -> tuple[List[str], List[List[str]]]:
        """Return its processes as titles and rows."""
        return await top.top(self._core, self.get(ref), ps_args)

    async def attach(
        self,
        ref: str,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        stream: bool,
        logs: bool,
        detach_keys: str | None = None,
    ) -> Session:
        """Attach a client; the API layer looks for detach keys."""
        return await attach.attach(
            self._core,
            self.get(ref),
            ref,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            stream=stream,
            logs_too=logs,
        )

    async def open_logs(self, ref: str, query: LogQuery) -> AsyncIterator[LogRecord]:
        """Return its log records."""
        return await logs.open_logs(self._core, self.get(ref), query)

    async def archive_stat(self, ref: str, path: str) -> PathStat:
        """Describe a path in it."""
        return await archive.stat(self._core, self.get(ref), path)

    async def archive_get(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """Return a path of it as a tar."""
        return await archive.get(self._core, self.get(ref), path)

    async def archive_put(
        self,
        ref: str,
        path: str,
        body: AsyncIterator[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Unpack a tar in it."""
        await archive.put(
            self._core,
            self.get(ref),
            path,
            body,
            no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
            copy_uid_gid=copy_uid_gid,
        )

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """Return its root as a tar."""
        container = self.get(ref)
        stream = await archive.export(self._core, container)
        self._core.event(container, "export")
        return stream

    async def changes(self, ref: str) -> List[messages.Change]:
        """Return what differs from its image."""
        return await archive.changes(self._core, self.get(ref))

    async def commit(
        self,
        ref: str,
        *,
        repo: str,
        tag: str,
        comment: str,
        author: str,
        pause: bool,
        changes: List[str],
        config: ContainerConfig | None,
    ) -> str:
        """Make an image of it; returns the image's id."""
        if repo:
            tag_name(repo, tag)  # as Docker, before it is looked for
        return await commit.commit(
            self._core,
            self.get(ref),
            repo=repo,
            tag=tag,
            comment=comment,
            author=author,
            pause=pause,
            changes=changes,
            config=config,
        )

    def stats(
        self, ref: str, *, stream: bool, one_shot: bool
    ) -> AsyncIterator[stats.ContainerStats]:
        """Yield samples of its counters."""
        return stats.stats(self._core, self.get(ref), stream=stream, one_shot=one_shot)

    async def prune(self, filters: dict[str, List[str]]) -> tuple[List[ContainerId], int]:
        """Remove stopped containers; returns ids and freed bytes."""
        return await prune.prune(self._core, filters)


class ExecService:
    """What clients may do with execs."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, ref: str, config: ExecConfig) -> ExecId:
        """Prepare a process in a container."""
        return await exec.create(self._core, self._core.table.get(ref), config, ref)

    def check(self, ref: str) -> None:
        """Raise NotFound or Conflict unless a container can have execs now."""
        exec.running(self._core, self._core.table.get(ref), ref)

    def usable(self, identifier: str) -> Exec:
        """Find an exec whose container runs unpaused. Raises NotFound, Conflict."""
        return exec.usable(self._core, identifier)

    def get(self, identifier: str) -> Exec:
        """Find an exec. Raises NotFound."""
        return exec.get(self._core, identifier)

    def of(self, container: ContainerId) -> List[ExecId]:
        """Return the ids of a container's execs that have not ended, started or not."""
        execs = self._core.execs.values()
        return [e.id for e in execs if e.container == container and e.exit_code is None]

    async def start(
        self,
        identifier: str,
        *,
        detach: bool,
        tty: bool,
        console_size: tuple[int, int] = (0, 0),
    ) -> Session | None:
        """Start it; returns a session unless *detach*."""
        return await exec.start(
            self._core, self.usable(identifier), detach=detach, tty=tty, console_size=console_size
        )

    async def resize(self, identifier: str, rows: int, columns: int) -> None:
        """Tell its terminal the size."""
        await exec.resize(self._core, self.get(identifier), rows, columns)
