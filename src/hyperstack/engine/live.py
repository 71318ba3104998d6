"""A container whose sandbox is up: its output on the way to log and clients, its end.

Output is taken from the agent only once it is in the log file, so a killed daemon loses and doubles
nothing: the next one asks the agent from where the log ends. The exit is recorded when the output
has been drained.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable

from hyperstack.engine.core import Core
from hyperstack.engine.logging.logfile import LogWriter
from hyperstack.engine.sandbox import Sandbox
from hyperstack.engine.session import InputGate
from hyperstack.engine.spec import Streams
from hyperstack.errors import GuestError, HyperError
from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient, AgentFailure, OutputStream
from hyperstack.model import Container, StreamKind

log = logging.getLogger(__name__)

DRAIN = 10.0
"""Seconds without any progress after which an ended process's output is given up."""


class Pump:
    """Moves one output stream of one process; survives a lost agent connection."""

    def __init__(
        self,
        kind: StreamKind,
        stream_id: int,
        deliver: Callable[[StreamKind, int, bytes], Awaitable[int]],
        start: int = 0,
    ) -> None:
        self.kind = kind
        self.id = stream_id
        self._deliver = deliver
        self.taken = start
        self.done = asyncio.Event()
        self.progress = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def begin(self, agent: AgentClient) -> None:
        """Read from *agent*, from the first byte that is not stored yet."""
        stream = agent.open_output(self.id, start=self.taken)
        self._task = asyncio.create_task(self._run(stream), name=f"pump {self.id}")

    async def _run(self, stream: OutputStream) -> None:
        try:
            async for offset, data in stream:
                self.taken = await self._deliver(self.kind, offset, data)
                self.progress = time.monotonic()
                stream.take(self.taken)
            self.taken = await self._deliver(self.kind, -1, b"")
            stream.take(self.taken)
            self.done.set()
        except GuestError as error:
            log.debug("stream %d stopped: %s", self.id, error)
        except OSError as error:
            log.error("output of a container can't be stored, it is dropped: %s", error)
            stream.reset()
            self.done.set()

    async def stop(self) -> None:
        """Stop reading; ``begin`` may be called again."""
        if self._task is not None:
            self._task.cancel()
            # Not awaited: the end of this task is no concern of ours, our own cancellation is.
            await asyncio.wait({self._task})
            self._task = None


async def drained(pumps: list[Pump]) -> bool:
    """Wait until every pump has seen its end; False if they stopped making progress."""
    waits = {asyncio.ensure_future(pump.done.wait()) for pump in pumps}
    left = waits
    try:
        while left:
            _, left = await asyncio.wait(left, timeout=1.0)
            if left and time.monotonic() - max(p.progress for p in pumps) > DRAIN:
                return False
    finally:
        for wait in waits:
            wait.cancel()
    return True


class Live:
    """One running container in this daemon's hands."""

    def __init__(
        self, core: Core, container: Container, sandbox: Sandbox, handle: int, writer: LogWriter
    ) -> None:
        self.core = core
        self.container = container
        self.sandbox = sandbox
        self.handle = handle
        self.log = writer
        self.hub = core.hub(container.id)
        self.oom_seen = False
        self.oom_told = 0.0
        self.ended: asyncio.Future[messages.ProcessState | None]
        self.ended = asyncio.get_running_loop().create_future()
        self._pumps: list[Pump] = []
        self.exec_ended: dict[int, asyncio.Future[messages.ProcessState]] = {}
        self.exec_pumps: dict[int, list[Pump]] = {}
        self.exec_gates: dict[int, InputGate] = {}
        self.stopping = False
        self.stops = 0
        """Requests to stop that wait for the end, each to be told by an event of its own."""
        self.restarting = False
        """Whether it is stopped to be started again: ``--rm`` waits for another end."""
        self.adopted = False
        """Whether an earlier daemon started the container."""
        self.finished = asyncio.Event()

    @staticmethod
    def streams(container: Container, handle: int) -> Streams:
        """Return the stream ids of the container's first process."""
        config = container.config
        return Streams.of(
            handle,
            stdin=config.open_stdin,
            stdout=True,
            stderr=not config.tty,
        )

    def open_streams(self, streams: Streams) -> None:
        """Begin to move output and accept input, after the process was started."""
        agent = self.sandbox.agent
        assert agent is not None
        self._pumps = [
            Pump(kind, stream, self._deliver, self.log.taken(kind))
            for kind, stream in (
                (StreamKind.STDOUT, streams.stdout),
                (StreamKind.STDERR, streams.stderr),
            )
            if stream
        ]
        for pump in self._pumps:
            pump.begin(agent)
        if streams.stdin:
            self.hub.gate.open(agent.open_input(streams.stdin))

    async def reconnected(self, state: messages.State) -> None:
        """Go on with a new agent connection: streams from where they were, missed exits."""
        agent = self.sandbox.agent
        assert agent is not None
        for pump in self._all_pumps():
            if not pump.done.is_set():
                await pump.stop()
                pump.begin(agent)
        for process in state.processes:
            own = process.handle == self.handle
            gate = self.hub.gate if own else self.exec_gates.get(process.handle)
            if gate is not None and process.running and process.stdin:
                gate.open(agent.open_input(process.stdin, start=process.stdin_taken))
        self.exits_of(state)

    def exits_of(self, state: messages.State) -> None:
        """Take note of the ends that the agent has told nobody of."""
        for process in state.processes:
            if not process.running:
                self.process_exited(process)

    async def _deliver(self, kind: StreamKind, offset: int, data: bytes) -> int:
        if offset < 0:
            self.log.finish(kind)
        else:
            self.log.append(kind, offset, data, time.time_ns())
            await self.log.room()
            if self.hub.sessions:
                await self.hub.feed(kind, data)
        return self.log.taken(kind)

    def process_exited(self, state: messages.ProcessState) -> None:
        """The agent says that a process of this container has ended."""
        if state.handle == self.handle:
            if not self.ended.done():
                self.ended.set_result(state)
        elif (future := self.exec_ended.get(state.handle)) is not None and not future.done():
            future.set_result(state)

    def explains(self, failure: GuestError) -> bool:
        """Tell whether a request failed since the container has ended, whatever came first."""
        if self.ended.done():
            return True
        if not isinstance(failure, AgentFailure):
            return False
        unknown = failure.errno == errno.ENOENT and failure.stage == messages.Stage.OTHER
        return unknown or failure.errno == errno.ESRCH

    def machine_gone(self) -> None:
        """The VMM has ended; if the process had not, this is how it ended."""
        if not self.ended.done():
            self.ended.set_result(None)

    async def settle(self) -> messages.ProcessState | None:
        """Wait for the first process's end and until its output is stored; None = VMM died."""
        state = await self.ended
        if state is not None and not await drained(self._pumps):
            # A client that does not read holds its process back, but not the log of one that ended.
            self.hub.finish()
            if not await drained(self._pumps):
                log.warning("output of %s could not be drained", self.container.id[:12])
        await self._stop_pumps()
        for kind in (StreamKind.STDOUT, StreamKind.STDERR):
            self.log.finish(kind)
        self.hub.finish()
        return state

    async def release(self) -> None:
        """Tell the agent that the exit is stored."""
        try:
            await self.sandbox.call(
                messages.Op.RELEASE, messages.ProcessRef(handle=self.handle), timeout=5.0
            )
        except HyperError as error:
            log.debug("release of %s: %s", self.container.id[:12], error)

    async def detach(self) -> None:
        """Stop moving output without a trace: the daemon stops, the container goes on."""
        await self._stop_pumps()
        self.log.close()

    def _all_pumps(self) -> list[Pump]:
        """Return the pumps of now: execs come and go while one of them is waited for."""
        return [*self._pumps, *(pump for pumps in self.exec_pumps.values() for pump in pumps)]

    async def _stop_pumps(self) -> None:
        for pump in self._all_pumps():
            await pump.stop()
