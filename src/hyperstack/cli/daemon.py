"""The daemon's life: one per data root, its pid file, its listeners, signals, and its end.

Order matters: what can fail cheaply fails first, the sockets are bound before the engine starts (a
client that comes early waits), and READY=1 is said when requests are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import faulthandler
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hyperstack import log as logs
from hyperstack.api.docker import listen
from hyperstack.api.docker.tls import server_context
from hyperstack.cli import options
from hyperstack.config import Config
from hyperstack.errors import Conflict, Forbidden, HyperError, InternalError
from hyperstack.platform.memory import keep_freed_memory
from hyperstack.platform.process import become_subreaper, start_time

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

log = logging.getLogger(__name__)

FILES = 1 << 20
OOM_SCORE = "-500"
"""As Docker's unit gives dockerd."""
SETTLED = 5.0
"""Seconds after the first answer at which the start's garbage is collected."""
RELOADABLE = ("debug", "log_level", "labels", "shutdown_timeout")


def run(config: Config) -> int:
    """Run until SIGTERM or SIGINT. Raises HyperError if the daemon can't start."""
    if os.geteuid() != 0:
        raise Forbidden("hyperd needs to be started with root privileges")
    logs.setup(config.log_level)
    faulthandler.register(signal.SIGUSR1)
    _raise_file_limit()
    _protect()
    keep_freed_memory()
    become_subreaper()
    with contextlib.ExitStack() as stack:
        stack.enter_context(data_root_lock(config.data_root))
        if config.pidfile is not None:
            stack.enter_context(pid_file(config.pidfile))
        listeners = listen.open_all(config, server_context(config))
        stack.callback(listen.close_all, listeners)
        return asyncio.run(_Daemon(config, listeners).main())


@contextlib.contextmanager
def data_root_lock(folder: Path) -> Iterator[None]:
    """Hold a data root alone. Raises Conflict if another daemon has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o710)
        descriptor = os.open(folder / "hyperd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InternalError(f"data root {folder} can't be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            raise Conflict(
                f"failed to start daemon: data root {folder} is used by another hyperd"
                + (f" (PID {holder})" if holder else "")
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """Write our pid. Raises Conflict if the process that the file names still runs."""
    holder = _read_pid(path)
    if holder and holder != os.getpid() and start_time(holder) is not None:
        raise Conflict(
            f"failed to start daemon, ensure hyperd is not running or delete {path}: process with "
            f"PID {holder} is still running"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{os.getpid()}")
    except OSError as error:
        raise InternalError(f"pid file {path} can't be written: {error.strerror}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _read_pid(path: Path) -> int:
    try:
        found = path.read_text(errors="replace").strip()
    except OSError:
        return 0
    return int(found) if found.isascii() and found.isdigit() and len(found) < 10 else 0


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(FILES, hard), hard):
        if soft < wanted:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
                return


def _protect() -> None:
    """Be among the last that the kernel kills for memory, unless whoever started us chose a score.

    Takes CAP_SYS_RESOURCE. Machines and helpers have a score of their own (``platform/jail.py``).
    """
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        if score.read_text().strip() == "0":
            score.write_text(OOM_SCORE)


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); nothing happens without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)


def _freeze() -> None:
    """Take what is here after the start, and will stay, out of the collector's sight."""
    gc.collect()
    gc.freeze()


class _Daemon:
    """The running daemon: engine and server on one event loop."""

    def __init__(self, config: Config, listeners: list[listen.Listener]) -> None:
        self._config = config
        self._listeners = listeners
        self._stop = asyncio.Event()
        self._engine: Engine | None = None

    async def main(self) -> int:
        """Start, serve, stop."""
        from hyperstack.api.docker.routes import all_routes
        from hyperstack.api.docker.server import ApiServer
        from hyperstack.engine.engine import Engine

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        engine = self._engine = Engine(self._config)
        starting = loop.create_task(engine.start())
        if not await self._until_started(starting):
            return 0
        server = ApiServer(engine, all_routes())
        serving = await listen.serve(server, self._listeners)
        if self._config.metrics_addr:
            serving.append(await listen.serve_metrics(engine, self._config.metrics_addr))
        loop.call_later(SETTLED, _freeze)
        notify(f"READY=1\nMAINPID={os.getpid()}")
        for listener in self._listeners:
            log.info("API listen on %s", listener.name)
        await self._stop.wait()
        await self._shut_down(server, serving)
        return 0

    async def _until_started(self, starting: asyncio.Task[None]) -> bool:
        """Wait for the engine; False if we were told to stop meanwhile. Raises HyperError."""
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        assert self._engine is not None
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self._engine.close()
            return False
        try:
            starting.result()
        except BaseException:
            with contextlib.suppress(Exception):
                await self._engine.close()
            raise
        return True

    async def _shut_down(
        self, server: listen.Server, serving: list[asyncio.base_events.Server]
    ) -> None:
        """Stop answering and let go of the sandboxes, which run on."""
        assert self._engine is not None
        log.info("stopping; sandboxes run on")
        notify("STOPPING=1")
        for one in serving:
            one.close()
        try:
            async with asyncio.timeout(self._config.shutdown_timeout):
                await server.close()
                await self._engine.close()
        except TimeoutError:
            log.error("not everything ended within %d s", self._config.shutdown_timeout)

    def _reload(self) -> None:
        """Take up what may change while the daemon runs, from the configuration file."""
        assert self._engine is not None
        notify("RELOADING=1")
        try:
            new = _reread(self._config)
        except HyperError as error:
            log.error("the configuration was not reloaded: %s", error)
        else:
            self._config = self._engine.config = new
            logs.setup(new.log_level)
            self._engine.events.publish(
                "daemon",
                "reload",
                "",
                {"debug": str(new.debug).lower(), "labels": f"[{' '.join(new.labels)}]"},
            )
            log.info("the configuration was reloaded: %s", ", ".join(RELOADABLE))
        notify("READY=1")


def _reread(old: Config) -> Config:
    """Return *old* with what the file says of the reloadable options."""
    arguments = ["--config-file", str(old.config_file)] if old.config_file else []
    if old.config_file == options.DEFAULT_FILE and not options.DEFAULT_FILE.exists():
        arguments = []
    new, _ = options.parse(arguments)
    return dataclasses.replace(old, **{name: getattr(new, name) for name in RELOADABLE})
