"""Sandboxes: a machine, its network namespace, its agent, and the row that survives the daemon.

Order of a boot: the row (intent), then cgroup and network namespace, then the share, then the
machine, then the row again with the machine's record, then the agent. Whatever fails, everything
taken so far is given back in reverse. A later daemon adopts what it finds by the row.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperstack.config import Config
from hyperstack.engine import rows
from hyperstack.engine.bounds import HOSTNAME
from hyperstack.engine.rows import SandboxRow
from hyperstack.errors import Conflict, GuestError, HyperError, InternalError, InvalidParameter
from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient, AgentFailure
from hyperstack.guest.codec import ProtocolError
from hyperstack.guest.kit import Kit
from hyperstack.ids import ContainerId, SandboxId, new_id
from hyperstack.image.erofs import is_whole
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.platform import netns as namespaces
from hyperstack.platform.cgroup import CgroupLimits, Cgroups, CgroupUsage
from hyperstack.platform.tasks import Tasks
from hyperstack.store.database import Database
from hyperstack.vmm.base import Disk, Driver, Machine, MachineSpec, Runtime, Tap
from hyperstack.volume import extend
from hyperstack.volume.share import TAG as SHARE_TAG
from hyperstack.volume.share import Share
from hyperstack.volume.shown import ShareMount

log = logging.getLogger(__name__)

RECONNECT = 10.0
"""Seconds within which a lost agent connection must be back, else the machine is killed."""
NO_SHARE = (
    "the virtual machine of the container that is joined was started without volumes and gets "
    "none now that it runs: create this container before that one is started, or give that one a "
    "volume, too"
)
SEEN = 10.0
"""Seconds within which a guest's kernel has seen a share that was plugged in."""
ENDING = 2.0
"""Seconds within which a machine whose virtiofsd has ended is seen to have ended as well."""
LOSSES, LOSSES_WITHIN = 5, 60.0
"""Connections lost within so many seconds after which no further one is made."""


@dataclass(frozen=True, kw_only=True)
class SandboxPlan:
    """What a sandbox is booted with. Memory is the VM's, in bytes."""

    runtime: Runtime
    memory: int
    cpus: int = 1
    containers: tuple[ContainerId, ...] = ()
    service: bool = False
    hostname: str = ""
    layers: tuple[Path, ...] = ()
    """EROFS files, uppermost first."""
    disks: tuple[tuple[str, Path], ...] = ()
    nics: tuple[Tap, ...] = ()
    shares: tuple[ShareMount, ...] = ()
    sharing: bool = False
    """Whether a share is wanted that has no mounts yet: they can't be had later without."""
    sockets: Mapping[str, str] = field(default_factory=dict)
    """Paths on the host of the sockets that its containers may connect to, by the mount's name."""
    limits: CgroupLimits = field(default_factory=CgroupLimits)


class Sandbox:
    """A running sandbox and the daemon's connection to its agent."""

    def __init__(self, row: SandboxRow, machine: Machine, netns: Path) -> None:
        self.row = row
        self.machine = machine
        self.netns = netns
        self.agent: AgentClient | None = None
        self.info: messages.Info | None = None
        self.on_event: Callable[[messages.EventKind, Any], None] | None = None
        self._next_handle = 1
        self.carried: set[asyncio.Task[Any]] = set()
        """The connections to sockets of the host that are open."""
        self.sharing = asyncio.Lock()
        self.dying = False
        self.failure = ""
        """Why this daemon killed the machine, if it had to."""

    @property
    def id(self) -> SandboxId:
        """The sandbox's id."""
        return self.row.id

    def next_handle(self) -> int:
        """Return a process handle that this sandbox has not used; its streams are 4 times it."""
        handle = self._next_handle
        self._next_handle += 1
        return handle

    def seen_handle(self, handle: int) -> None:
        """Never give out *handle* again (an earlier daemon did)."""
        self._next_handle = max(self._next_handle, handle + 1)

    @property
    def version(self) -> int:
        """The version of the protocol that its agent speaks; ours while none is connected."""
        return messages.VERSION if self.agent is None else self.agent.version

    async def call(self, op: messages.Op, message: Any = None, *, timeout: float = 30.0) -> Any:
        """Ask the agent. Raises AgentFailure for its refusals, GuestError if it can't be asked."""
        if self.agent is None:
            raise GuestError("the guest's agent is not connected")
        return await self.agent.call(op, message or messages.Empty(), timeout=timeout)

    def listen(self, callback: Callable[[messages.EventKind, Any], None]) -> None:
        """Have events handed to *callback*, those included that came since the connection."""
        self.on_event = callback
        if self.agent is not None:
            self.agent.on_event = self.dispatch

    def dispatch(self, kind: messages.EventKind, message: Any) -> None:
        """Hand an event of the agent to the engine."""
        if self.on_event is not None:
            self.on_event(kind, message)


class Sandboxes:
    """Boots, finds again and ends the sandboxes of this host."""

    def __init__(
        self,
        config: Config,
        db: Database,
        kit: Kit,
        drivers: dict[Runtime, Driver],
        network: SandboxNetwork,
        cgroups: Cgroups,
        tasks: Tasks,
    ) -> None:
        self._config = config
        self._db = db
        self._kit = kit
        self._drivers = drivers
        self._network = network
        self._cgroups = cgroups
        self._tasks = tasks
        self._uids: set[int] = set()
        self._shares = Share(config, kit)
        self.live: dict[SandboxId, Sandbox] = {}

    @property
    def kit(self) -> Kit:
        """The guest kit in use."""
        return self._kit

    def driver(self, runtime: Runtime) -> Driver:
        """Return the driver of a runtime. Raises InvalidParameter if this host has none."""
        try:
            return self._drivers[runtime]
        except KeyError:
            raise InvalidParameter(f"unknown or invalid runtime name: {runtime}") from None

    def update_limits(self, sandbox: SandboxId, limits: CgroupLimits) -> None:
        """Change the limits of a sandbox's cgroup. Raises InternalError if the kernel refuses."""
        self._cgroups.update(sandbox, limits)

    def usage(self, sandbox: str) -> CgroupUsage:
        """Return what a sandbox has used of the host: its machine and helpers together."""
        return self._cgroups.usage(sandbox)

    def reserve_uid(self) -> int:
        """Take a host uid that no sandbox runs as. Raises InternalError when all are taken.

        The last is that of layers' conversions (``image/erofs.py``), the one before it git's.
        """
        base, count = self._config.uid_base, self._config.uid_count
        for uid in range(base, base + count - 2):
            if uid not in self._uids:
                self._uids.add(uid)
                return uid
        raise InternalError(f"all {count} sandbox uids are in use; raise uid-count")

    def new_row(self, plan: SandboxPlan) -> SandboxRow:
        """Make the row of a sandbox to be booted, with an id and a uid of its own."""
        return SandboxRow(
            id=SandboxId(new_id()),
            uid=self.reserve_uid(),
            memory=plan.memory,
            created_ns=time.time_ns(),
            runtime=plan.runtime,
            containers=plan.containers,
            first=next(iter(plan.containers), None),
            service=plan.service,
            mounts={c: tuple(share.name for share in plan.shares) for c in plan.containers},
            sockets=dict(plan.sockets),
        )

    async def boot(
        self,
        row: SandboxRow,
        plan: SandboxPlan,
        plug: Callable[[SandboxId, int], Any] | None = None,
    ) -> Sandbox:
        """Boot a sandbox to its agent's hello.

        *plug* is awaited with the sandbox's id and uid once the network namespace is there, and
        returns the taps of the containers' NICs. Raises GuestError with the console's tail, or what
        *plug* raises; nothing is left then.
        """
        machine: Machine | None = None
        try:
            await rows.put_sandbox(self._db, row)
            prepared = await self._network.prepare(row.id, row.uid)
            nics: Sequence[Tap] = await plug(row.id, row.uid) if plug else plan.nics
            spec = await self._spec(row, plan, prepared.netns, prepared.agent_tap, tuple(nics))
            machine = await self.driver(plan.runtime).launch(spec)
            row.machine = machine.record
            sandbox = Sandbox(row, machine, prepared.netns)
            self.live[row.id] = sandbox
            stored = asyncio.create_task(rows.put_sandbox(self._db, row))
            try:
                await self._connect(sandbox, plan)
            finally:
                await stored
        except BaseException:
            await self._tasks.carry_through(f"undo of {row.id[:12]}", self._undo(row, machine))
            raise
        self._watch(sandbox)
        return sandbox

    def _watch(self, sandbox: Sandbox) -> None:
        """Look after a sandbox whose agent is connected."""
        self._tasks.start(f"connection {sandbox.id[:12]}", self._keep_connected(sandbox))
        self._watch_share(sandbox)

    async def _spec(
        self, row: SandboxRow, plan: SandboxPlan, netns: Path, agent: Tap, nics: tuple[Tap, ...]
    ) -> MachineSpec:
        sandbox_dir = self._config.sandbox_dir(row.id)
        run_dir = self._config.sandbox_run_dir(row.id)
        for folder in (sandbox_dir, run_dir):
            # Links to disks, whose mode a guest may change, and sockets: no other user comes by.
            folder.parent.mkdir(mode=0o710, exist_ok=True)
            folder.mkdir(mode=0o710, exist_ok=True)
        cgroups = self._cgroups.create(row.id, plan.limits)
        socket = None
        if plan.shares or plan.sharing:
            socket = await self._shares.start(row.id, row.uid, plan.shares, cgroups)
            row.share = self._shares.server(row.id)
        return MachineSpec(
            id=row.id,
            uid=row.uid,
            memory=plan.memory,
            cpus=plan.cpus,
            kit=self._kit.path,
            sandbox_dir=sandbox_dir,
            run_dir=run_dir,
            netns=netns,
            cgroups=cgroups,
            agent_tap=agent,
            nics=nics,
            layers=tuple(
                Disk(path=path, read_only=True, name=layer_name(path)) for path in plan.layers
            ),
            disks=tuple(Disk(path=p, read_only=False, name=n) for n, p in plan.disks),
            share_socket=socket,
            share_tag=SHARE_TAG if socket else "",
        )

    async def _connect(self, sandbox: Sandbox, plan: SandboxPlan) -> None:
        bound = self._config.boot_timeout * (4 if plan.runtime == Runtime.TCG else 1)
        machine = sandbox.machine
        try:
            async with asyncio.timeout(bound):
                await machine.console_ready()
                if not machine.alive():
                    raise GuestError(
                        "the virtual machine ended before its agent answered",
                        machine.console_tail(),
                    )
                sandbox.agent = await AgentClient.connect(sandbox.netns, deadline=bound)
                sandbox.agent.on_event = sandbox.dispatch
                sandbox.info = await self._set_up(
                    sandbox, plan.hostname, sandbox.row.share is not None
                )
        except TimeoutError:
            raise GuestError(
                f"the virtual machine's agent did not answer within {bound:.0f} s",
                machine.console_tail(),
            ) from None
        except GuestError as error:
            if error.console:
                raise
            raise GuestError(error.message, machine.console_tail()) from error

    async def _set_up(self, sandbox: Sandbox, hostname: str, share: bool) -> messages.Info:
        setup = messages.Setup(
            clock_ns=time.time_ns(),
            entropy=os.urandom(64),
            hostname=hostname.encode()[:HOSTNAME].decode(errors="ignore"),
            share_tag=SHARE_TAG if share else "",
        )
        info: messages.Info = await sandbox.call(messages.Op.SETUP, setup)
        return info

    async def remember(self, sandbox: Sandbox) -> None:
        """Store who is in a sandbox and what its machine has, for the next daemon."""
        sandbox.row.machine = sandbox.machine.record
        await rows.put_sandbox(self._db, sandbox.row)

    async def share(self, sandbox: Sandbox, mounts: Sequence[ShareMount]) -> None:
        """Let a running sandbox's share serve more, and the sandbox have one if it has none.

        Raises Conflict if it can get none, InternalError; nothing is left then.
        """
        if not mounts:
            return
        async with sandbox.sharing:
            fresh = sandbox.row.share is None
            if sandbox.row.share is not None:
                await asyncio.to_thread(extend.add, *sandbox.row.share, mounts)
            else:
                await self._late_share(sandbox, mounts)
            try:
                await self._show_share(sandbox, fresh)
            except HyperError as error:
                if fresh:
                    await self._shares.stop(sandbox.id)
                    sandbox.row.share = None
                raise Conflict(NO_SHARE) from error

    async def _show_share(self, sandbox: Sandbox, fresh: bool) -> None:
        """Have the guest mount its share, and plug that in if it is *fresh* or a daemon died."""
        bound = time.monotonic() + SEEN
        if fresh:
            await sandbox.machine.add_share(SHARE_TAG)
        while True:
            try:
                await self._set_up(sandbox, "", True)
            except AgentFailure:
                if time.monotonic() > bound:
                    raise
                await sandbox.machine.add_share(SHARE_TAG)
            else:
                return
            await asyncio.sleep(0.1)

    async def _late_share(self, sandbox: Sandbox, mounts: Sequence[ShareMount]) -> None:
        row, path = sandbox.row, sandbox.machine.share_socket
        folders = [folder for folder in self._cgroups.folders(row.id) if folder.is_dir()]
        await self._shares.start(row.id, row.uid, mounts, folders, path)
        row.share = self._shares.server(row.id)
        self._watch_share(sandbox)
        await self.remember(sandbox)  # the guest keeps to this server from now on

    async def unshare(self, sandbox: Sandbox, names: Sequence[str]) -> None:
        """Let it serve less. Raises InternalError if the server is gone."""
        if names and sandbox.row.share is not None:
            await asyncio.to_thread(extend.remove, *sandbox.row.share, names)

    async def condemn(self, sandbox: Sandbox, reason: str) -> None:
        """Kill a machine that can't be dealt with; its containers end with the reason."""
        log.warning("sandbox %s is killed: %s", sandbox.id[:12], reason)
        sandbox.failure = reason
        await sandbox.machine.kill()

    async def adopt(self, row: SandboxRow) -> Sandbox | None:
        """Find a sandbox of an earlier daemon and connect to its agent; None if it is gone."""
        self._uids.add(row.uid)
        row.first = row.first or next(iter(row.containers), None)
        if row.machine is None:
            return None
        driver = self._drivers.get(Runtime(row.machine.runtime))
        machine = await driver.adopt(row.machine) if driver else None
        if machine is None:
            return None
        sandbox = Sandbox(row, machine, self._network.path(row.id))
        try:
            # Somebody may have cleared the exec root; the machine holds its namespace.
            if await asyncio.to_thread(namespaces.restore, sandbox.netns, machine.pid):
                log.warning("the network namespace of sandbox %s was found again", row.id[:12])
            sandbox.agent = await AgentClient.connect(sandbox.netns, deadline=RECONNECT)
        except HyperError as error:
            log.warning("the agent of sandbox %s does not answer: %s", row.id[:12], error)
            await machine.kill()
            return None
        self.live[row.id] = sandbox
        self._watch(sandbox)
        return sandbox

    def _watch_share(self, sandbox: Sandbox) -> None:
        if (server := sandbox.row.share) is not None:
            self._tasks.start(f"share {sandbox.id[:12]}", self._keep_shared(sandbox, server))

    async def _keep_shared(self, sandbox: Sandbox, server: tuple[int, int]) -> None:
        """Kill a machine whose files nobody serves any more: who asks for them waits for ever."""
        await self._shares.gone(sandbox.id, server)
        # It ends with its machine, too, and may be the first of the two that is seen.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING):
                await sandbox.machine.wait()
        if not sandbox.dying and sandbox.machine.alive():
            await self.condemn(sandbox, "the server of its volumes and binds has ended")

    async def _keep_connected(self, sandbox: Sandbox) -> None:
        """Watch the connection of one sandbox; a guest that stays silent, or lies, is killed."""
        losses: deque[float] = deque(maxlen=LOSSES)
        while not sandbox.dying and sandbox.agent is not None:
            lost = asyncio.create_task(sandbox.agent.wait_closed())
            dead = asyncio.create_task(sandbox.machine.wait())
            try:
                await asyncio.wait({lost, dead}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                lost.cancel()
                dead.cancel()
            if not sandbox.machine.alive():
                # Nobody is left to answer: what waits for an answer must not wait on.
                await sandbox.agent.close()
                return
            if sandbox.dying:
                return
            losses.append(time.monotonic())
            try:
                if isinstance(sandbox.agent.error, ProtocolError):
                    raise sandbox.agent.error
                if len(losses) == LOSSES and losses[-1] - losses[0] < LOSSES_WITHIN:
                    raise GuestError(f"its connection was lost {LOSSES} times within a minute")
                agent = await AgentClient.connect(sandbox.netns, deadline=RECONNECT)
                agent.on_event = sandbox.dispatch
                sandbox.agent = agent
                if self.on_reconnect is not None:
                    await self.on_reconnect(sandbox)
            except HyperError as error:
                await self.condemn(sandbox, error.message)
                return

    on_reconnect: Callable[[Sandbox], Any] | None = None
    """Awaited with a sandbox whose agent connection was lost and made anew."""

    async def end(self, sandbox: Sandbox, *, clean: bool) -> None:
        """End a sandbox. *clean*: let the guest unmount its disks first (bounded).

        Goes on to its end if the caller is cancelled, who is told so then: the lock that he holds
        must not let the next one have a disk that is still in use.
        """
        await self._tasks.see_through(f"end of {sandbox.id[:12]}", self._end(sandbox, clean))

    async def _end(self, sandbox: Sandbox, clean: bool) -> None:
        sandbox.dying = True
        if clean and sandbox.machine.alive():
            try:
                await sandbox.call(messages.Op.POWEROFF, timeout=10.0)
                async with asyncio.timeout(5.0):
                    await sandbox.machine.wait()
            except (HyperError, TimeoutError) as error:
                log.warning("sandbox %s did not power off: %s", sandbox.id[:12], error)
        await self._undo(sandbox.row, sandbox.machine)

    async def _undo(self, row: SandboxRow, machine: Machine | None) -> None:
        """Give everything of a sandbox back, in reverse order; safe to repeat."""
        sandbox = self.live.pop(row.id, None)
        if sandbox is not None:
            sandbox.dying = True
            if sandbox.agent is not None:
                await sandbox.agent.close()
        if machine is not None:
            await machine.kill()
            await machine.close()
        await self._shares.stop(row.id)
        await self._network.release(row.id)
        await self._cgroups.remove(row.id)
        self.forget_files(row.id)
        try:
            await rows.delete_sandbox(self._db, row.id)
        except HyperError as error:
            log.warning("the row of sandbox %s stays until a start: %s", row.id[:12], error)
        self._uids.discard(row.uid)

    async def discard(self, row: SandboxRow) -> None:
        """Remove what an earlier daemon left of a sandbox whose machine is gone."""
        self._uids.add(row.uid)
        driver = None
        if row.machine is not None:
            driver = self._drivers.get(Runtime(row.machine.runtime))
        machine = await driver.adopt(row.machine) if driver and row.machine else None
        if machine is None:
            await self._cgroups.kill(row.id)
        await self._undo(row, machine)

    def forget_files(self, sandbox: SandboxId) -> None:
        """Remove a sandbox's folders (links, sockets, console)."""
        for folder in (self._config.sandbox_dir(sandbox), self._config.sandbox_run_dir(sandbox)):
            shutil.rmtree(folder, ignore_errors=True)

    async def detach(self) -> None:
        """Let go of every sandbox without ending it: the daemon stops, they go on."""
        for sandbox in list(self.live.values()):
            sandbox.dying = True
            if sandbox.agent is not None:
                await sandbox.agent.close()
            await sandbox.machine.close()


def layer_name(path: Path) -> str:
    """Return the disk name of a layer file: the first digits of its diff id."""
    return path.stem[:20]


def check_layers(paths: Sequence[Path]) -> None:
    """Raise InternalError if a layer of an image is missing on the host, or damaged."""
    for path in paths:
        if not is_whole(path):
            raise InternalError(
                f"layer {path.stem[:12]} of the image is missing or damaged; "
                "pull or load the image again"
            )
