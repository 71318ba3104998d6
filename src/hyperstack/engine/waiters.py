"""Who waits for a container: not-running, next-exit, removed (``docker wait``, ``docker run``)."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from hyperstack.errors import InvalidParameter
from hyperstack.ids import ContainerId
from hyperstack.model import Container, WaitResult

CONDITIONS = ("not-running", "next-exit", "removed")


def check_condition(condition: str) -> None:
    """Raise InvalidParameter in Docker's words unless there is such a condition; "" is one."""
    if condition and condition not in CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')


class Wait:
    """One registered wait; ``result`` returns when the condition came true."""

    def __init__(self, future: asyncio.Future[WaitResult]) -> None:
        self._future = future

    async def result(self) -> WaitResult:
        """Wait for the condition, however long it takes."""
        return await asyncio.shield(self._future)

    def cancel(self) -> None:
        """The waiter is gone."""
        self._future.cancel()


class Waiters:
    """All waits of this daemon."""

    def __init__(self) -> None:
        self._waits: dict[tuple[ContainerId, str], set[asyncio.Future[WaitResult]]]
        self._waits = defaultdict(set)

    def register(self, container: Container, condition: str) -> Wait:
        """Begin to wait. Raises InvalidParameter for an unknown condition."""
        condition = condition or "not-running"
        check_condition(condition)
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        state = container.state
        if condition == "not-running" and not state.status.is_up:
            future.set_result(WaitResult(exit_code=state.exit_code, error=state.error))
        else:
            waits = self._waits[(container.id, condition)]
            waits.add(future)
            future.add_done_callback(waits.discard)
        return Wait(future)

    def exited(self, container: Container) -> None:
        """A process of the container's start ended (a restart may follow)."""
        result = WaitResult(exit_code=container.state.exit_code, error=container.state.error)
        self._resolve(container.id, "next-exit", result)
        if not container.state.status.is_up:
            self._resolve(container.id, "not-running", result)

    def removed(self, container: Container) -> None:
        """The container is gone, well: how it ended is told, not why it did not start."""
        result = WaitResult(exit_code=container.state.exit_code)
        for condition in CONDITIONS:
            self._resolve(container.id, condition, result)
            self._waits.pop((container.id, condition), None)

    def not_removed(self, container: Container, message: str) -> None:
        """The container could not be removed: who waits for that is told why."""
        result = WaitResult(exit_code=container.state.exit_code, error=message)
        self._resolve(container.id, "removed", result)

    def _resolve(self, container: ContainerId, condition: str, result: WaitResult) -> None:
        for future in list(self._waits.get((container, condition), ())):
            if not future.done():
                future.set_result(result)
