"""Rows of containers, sandboxes and execs: the engine's model as JSON, one row each.

The engine keeps all of it in memory and writes through; a row is the truth after a crash. Execs are
not stored: they end with the daemon's knowledge of their container's sandbox, as with Docker.
"""

from __future__ import annotations

import sqlite3

import msgspec

from hyperstack.ids import ContainerId, SandboxId
from hyperstack.model import Container
from hyperstack.store.database import Database
from hyperstack.vmm.base import MachineRecord


class SandboxRow(msgspec.Struct, kw_only=True):
    """What the next daemon must know of a sandbox. ``machine`` is None until it was launched."""

    id: SandboxId
    uid: int
    memory: int
    created_ns: int
    runtime: str
    containers: tuple[ContainerId, ...] = ()
    """Those that are in it, or about to be: the first one, and those that joined it."""
    first: ContainerId | None = None
    """The container for which it was booted, which may have ended before others."""
    service: bool = False
    """A service sandbox runs no container; it never outlives its daemon's request."""
    machine: MachineRecord | None = None
    share: tuple[int, int] | None = None
    """Pid and start time of the share's server, if it has one."""
    mounts: dict[ContainerId, tuple[str, ...]] = {}
    """Names of what each container has in the share."""
    sockets: dict[str, str] = {}
    """Where the sockets lie that clients named as binds, resolved when the container started."""


_encoder = msgspec.json.Encoder()
_container = msgspec.json.Decoder(Container)
_sandbox = msgspec.json.Decoder(SandboxRow)


def load_containers(db: Database) -> list[Container]:
    """Read every container."""
    rows = db.read(lambda c: c.execute("SELECT data FROM containers").fetchall())
    return [_container.decode(row[0]) for row in rows]


def load_sandboxes(db: Database) -> list[SandboxRow]:
    """Read every sandbox that an earlier daemon had."""
    rows = db.read(lambda c: c.execute("SELECT data FROM sandboxes").fetchall())
    return [_sandbox.decode(row[0]) for row in rows]


async def put_container(db: Database, container: Container) -> None:
    """Insert or replace a container's row, durably."""
    row = (container.id, container.name, _encoder.encode(container))

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO containers (id, name, data) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name, data = excluded.data",
            row,
        )

    await db.write(write)


async def delete_container(db: Database, container: ContainerId) -> None:
    """Forget a container."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM containers WHERE id = ?", (container,))

    await db.write(write)


async def put_sandbox(db: Database, sandbox: SandboxRow) -> None:
    """Insert or replace a sandbox's row, durably."""
    row = (sandbox.id, _encoder.encode(sandbox))

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO sandboxes (id, data) VALUES (?, ?) "
            "ON CONFLICT (id) DO UPDATE SET data = excluded.data",
            row,
        )

    await db.write(write)


async def delete_sandbox(db: Database, sandbox: SandboxId) -> None:
    """Forget a sandbox of which nothing is left on the host."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox,))

    await db.write(write)
