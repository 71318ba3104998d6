"""The daemon's SQLite database: one writer thread with group commit, reads beside it.

Design section 10. WAL with ``synchronous=FULL``: a write that was awaited survives kill -9 and a
power cut. Writes that wait at the same time share one commit, since the fsync is what costs; each
runs in a savepoint of its own, so that one which fails takes no other with it. What is stored is
the business of the modules beside this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hyperstack.errors import HyperError, InternalError
from hyperstack.store.migrations import MIGRATIONS

T = TypeVar("T")

_GROUP = 256
"""Writes that share one commit at most: bounds how long the first of them waits."""
_BUSY_MS = 10_000
RESERVE = 2 << 20
"""Bytes that the database file has free in itself, and its log at least: on a full disk containers
can still be stopped and removed, and what happened to them is still recorded."""
ROOM_FOR_INDEX = 64 << 10


@dataclass(frozen=True, kw_only=True)
class _Write:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Hand the outcome to the loop that waits for it."""
        try:
            self.future.get_loop().call_soon_threadsafe(_resolve, self.future, result, error)
        except RuntimeError:
            pass  # the loop was closed: nobody is left to be told


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Database:
    """The database file, opened and brought to the newest schema.

    :raise InternalError: the file cannot be opened, is damaged or comes from a newer version.
    """

    def __init__(self, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
        self.path = path
        with _mapped("open the database"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _room(path).unlink(missing_ok=True)
            _only_ours(path)
            with contextlib.ExitStack() as undo:
                self._writer = _connect(path)
                undo.callback(self._writer.close)
                _prepare(self._writer)
                _migrate(self._writer, migrations)
                self._reader = _connect(path)
                undo.callback(self._reader.close)
                _prepare(self._reader)
                self._reader.execute("PRAGMA query_only = ON")
                _reserve(self._writer, path)
                undo.pop_all()
        self._read_lock = threading.RLock()
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._thread.start()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* in a transaction and return its result once it is durable.

        A write that was queued is carried out, in order, even if the caller is cancelled while it
        waits. What *work* raises undoes its own changes only and is raised here.
        """
        if self._closed:
            raise InternalError("the database is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Write(work=work, future=future))
        return await future

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* on one consistent snapshot; it sees every write that was awaited."""
        with self._read_lock, _mapped("read the database"):
            self._reader.execute("BEGIN")
            try:
                return work(self._reader)
            finally:
                self._reader.execute("ROLLBACK")

    def close(self) -> None:
        """Carry out what is queued, then close the file."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()
        # SQLite has removed its log: what it took is kept for the next daemon's.
        with contextlib.suppress(OSError), _room(self.path).open("wb") as room:
            os.posix_fallocate(room.fileno(), 0, 2 * RESERVE + ROOM_FOR_INDEX)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, last = self._gather(first)
            self._commit(group)
            if last:
                return

    def _gather(self, first: _Write) -> tuple[list[_Write], bool]:
        group = [first]
        while len(group) < _GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _commit(self, group: list[_Write]) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(write) for write in group]
            self._writer.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            outcomes = [(None, error)] * len(group)
        for write, (result, failure) in zip(group, outcomes, strict=True):
            write.settle(result, _foreign("write to the database", failure))

    def _attempt(self, write: _Write) -> tuple[Any, BaseException | None]:
        self._writer.execute("SAVEPOINT one")
        try:
            result = write.work(self._writer)
        except Exception as error:
            # An error such as SQLITE_FULL ends the whole transaction, savepoint included: then
            # ROLLBACK TO fails, and the group with it.
            self._writer.execute("ROLLBACK TO one")
            self._writer.execute("RELEASE one")
            return None, error
        self._writer.execute("RELEASE one")
        return result, None


def _room(path: Path) -> Path:
    return path.with_name(f"{path.name}-room")


def _only_ours(path: Path) -> None:
    """Make the file, or close it to others: it holds environments. SQLite's own follow its mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(name).chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise InternalError(
            f"the database was written by a newer version of Hyper (schema {version}, "
            f"this one knows {len(migrations)})"
        )
    for number, script in enumerate(migrations[version:], version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script};\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _reserve(connection: sqlite3.Connection, path: Path) -> None:
    """Let the file keep free pages and its write-ahead log have its blocks already.

    SQLite takes pages that were freed before it makes a file longer, and begins the log anew in
    place after a checkpoint. On a disk that is full already this comes with a later start.
    """
    try:
        page, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "freelist_count")
        )
        if page * free < RESERVE:
            connection.executescript(
                "BEGIN IMMEDIATE;\nCREATE TABLE room (data BLOB);\n"
                f"INSERT INTO room VALUES (zeroblob({2 * RESERVE}));\nDROP TABLE room;\nCOMMIT;\n"
                "PRAGMA wal_checkpoint(PASSIVE);"
            )
        # Not the database itself: to close that would give up SQLite's locks (fcntl_locking(2)).
        with path.with_name(f"{path.name}-wal").open("ab") as log:
            os.posix_fallocate(log.fileno(), 0, 2 * RESERVE)
    except (sqlite3.Error, OSError):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _foreign(action: str, error: BaseException | None) -> BaseException | None:
    if not isinstance(error, (sqlite3.Error, OSError)):
        return error
    mapped = InternalError(f"cannot {action}: {_words(error)}")
    mapped.__cause__ = error
    return mapped


def _words(error: sqlite3.Error | OSError) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) == errno.ENOSPC:
        return "no space left on device; make room where the data root lies"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{error}; stop hyperd and restore it from a backup, or move it away to begin anew"
    return str(error)


@contextlib.contextmanager
def _mapped(action: str) -> Iterator[None]:
    try:
        yield
    except HyperError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise InternalError(f"cannot {action}: {_words(error)}") from error
