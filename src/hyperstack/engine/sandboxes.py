"""Sandboxes as the operator sees them: which there are, what they hold, what their consoles say."""

from __future__ import annotations

from dataclasses import dataclass

from hyperstack.engine.core import Core
from hyperstack.engine.sandbox import Sandbox
from hyperstack.errors import NotFound

CONSOLE = 64 << 10
"""Bytes of a console that are shown at most; what is kept may be less."""


@dataclass(frozen=True, kw_only=True)
class SandboxFacts:
    """One running virtual machine. Memory in bytes, times in ns since the epoch."""

    id: str
    runtime: str
    pid: int
    uid: int
    memory: int
    created_ns: int
    kernel: str
    containers: tuple[str, ...]
    """Their names."""


class SandboxService:
    """What the operator may ask about sandboxes."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def list(self) -> list[SandboxFacts]:
        """Return every running sandbox, oldest first."""
        live = sorted(self._core.sandboxes.live.values(), key=lambda s: s.row.created_ns)
        return [self._facts(sandbox) for sandbox in live]

    def _facts(self, sandbox: Sandbox) -> SandboxFacts:
        row = sandbox.row
        found = (self._core.table.find(identifier) for identifier in row.containers)
        return SandboxFacts(
            id=row.id,
            runtime=row.runtime,
            pid=sandbox.machine.pid,
            uid=row.uid,
            memory=row.memory,
            created_ns=row.created_ns,
            kernel=sandbox.info.kernel_release if sandbox.info else "",
            containers=tuple(container.name for container in found if container is not None),
        )

    def console(self, reference: str) -> str:
        """Return the last lines of a console, by container or by sandbox id (a prefix will do).

        Raises NotFound if no such sandbox runs.
        """
        for sandbox in self._core.sandboxes.live.values():
            if sandbox.id.startswith(reference):
                return sandbox.machine.console_tail(CONSOLE)
        live = self._core.live.get(self._core.table.get(reference).id)
        if live is None:
            raise NotFound(f"container {reference} has no running sandbox")
        return live.sandbox.machine.console_tail(CONSOLE)
