from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hyperstack.errors import Conflict, InternalError
from hyperstack.store.database import Database

SCRIPT = "CREATE TABLE things (name TEXT PRIMARY KEY)"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "x.db", (SCRIPT,))
    yield database
    database.close()


def names(db: Database) -> list[str]:
    rows = db.read(lambda c: c.execute("SELECT name FROM things ORDER BY name").fetchall())
    return [row[0] for row in rows]


async def put(db: Database, name: str) -> None:
    await db.write(lambda c: c.execute("INSERT INTO things VALUES (?)", (name,)) and None)


async def test_a_write_is_seen_by_the_next_read(db: Database) -> None:
    await put(db, "a")
    assert names(db) == ["a"]


async def test_a_write_that_fails_takes_no_other_of_its_group_with_it(db: Database) -> None:
    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES ('half')")
        raise Conflict("no")

    outcomes = await asyncio.gather(
        put(db, "a"), db.write(bad), put(db, "b"), put(db, "a"), return_exceptions=True
    )
    assert [type(o) for o in outcomes] == [type(None), Conflict, type(None), InternalError]
    assert names(db) == ["a", "b"]


async def test_a_queued_write_of_a_cancelled_caller_is_carried_out(db: Database) -> None:
    task = asyncio.create_task(put(db, "a"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await put(db, "b")
    assert names(db) == ["a", "b"]


def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(InternalError, match="cannot read the database"):
        db.read(lambda c: c.execute("INSERT INTO things VALUES ('a')"))
    assert names(db) == []


def test_only_missing_migrations_run(tmp_path: Path) -> None:
    Database(tmp_path / "x.db", (SCRIPT,)).close()
    second = Database(tmp_path / "x.db", (SCRIPT, "CREATE TABLE more (a)"))
    assert second.read(lambda c: c.execute("SELECT * FROM more").fetchall()) == []
    second.close()
    with pytest.raises(InternalError, match="newer version"):
        Database(tmp_path / "x.db", (SCRIPT,))


def test_a_failed_migration_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InternalError):
        Database(tmp_path / "x.db", ("CREATE TABLE a (x); CREATE TABLE a (x)",))
    Database(tmp_path / "x.db", ("CREATE TABLE a (x)",)).close()


def test_a_damaged_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(InternalError, match="cannot open the database"):
        Database(tmp_path / "x.db", (SCRIPT,))


def test_what_was_awaited_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys, pathlib\n"
        "from hyperstack.store.database import Database\n"
        f"db = Database(pathlib.Path(sys.argv[1]), ({SCRIPT!r},))\n"
        "async def main():\n"
        "    await db.write(lambda c: c.execute(\"INSERT INTO things VALUES ('a')\") and None)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    path = tmp_path / "x.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program, path], env=environment, check=False)
    assert ended.returncode == -9
    db = Database(path, (SCRIPT,))
    assert names(db) == ["a"]
    db.close()


async def test_on_a_full_disk_rows_are_still_written(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: no file may become larger than it is."""
    database = Database(tmp_path / "h.db")
    database.close()
    database = Database(tmp_path / "h.db")
    most = max(path.stat().st_size for path in tmp_path.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        for number in range(300):
            await database.write(partial(_insert, row=(f"{number}", f"{number}", os.urandom(2000))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
        database.close()
    assert (tmp_path / "h.db").stat().st_size <= most


def _insert(connection: sqlite3.Connection, row: tuple[str, str, bytes]) -> None:
    connection.execute("INSERT INTO containers VALUES (?, ?, ?)", row)
