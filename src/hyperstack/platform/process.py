"""The one door for subprocesses, and identity of processes that are not ours to wait for.

Programs run with a clean environment and a bound on their time; a failure is worded here, once.
A process is known by its pid *and* start time (proc(5), field 22 of ``stat``), and held through a
pidfd (pidfd_open(2)), so that a reused pid is never signalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperstack.errors import InternalError

CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/",
}
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a finished program left."""

    stdout: bytes
    stderr: bytes
    returncode: int


async def run(
    argv: Sequence[str | Path],
    *,
    input: bytes | None = None,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a program to its end and return its output.

    *env* is added to a clean environment; *timeout* is in seconds. Raises InternalError, one
    sentence, if the program is missing, fails (unless *check* is false) or takes too long.
    """
    name = Path(argv[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if input is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**CLEAN_ENVIRONMENT, **(env or {})},
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise InternalError(f"{name} can't be run: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(input)
    except TimeoutError:
        raise InternalError(f"{name} did not end within {timeout:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    code = process.returncode or 0
    if check and code:
        raise InternalError(failure(name, code, stderr))
    return Completed(stdout=stdout, stderr=stderr, returncode=code)


def run_blocking(
    argv: Sequence[str | Path],
    *,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end without an event loop. Raises InternalError as ``run`` does."""
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env={**CLEAN_ENVIRONMENT, **(env or {})},
            cwd=cwd,
            check=False,
        )
    except OSError as error:
        raise InternalError(f"{name} can't be run: {error.strerror or error}") from error
    except subprocess.TimeoutExpired:
        raise InternalError(f"{name} did not end within {timeout:.0f} s") from None
    if check and done.returncode:
        raise InternalError(failure(name, done.returncode, done.stderr))
    return Completed(stdout=done.stdout, stderr=done.stderr, returncode=done.returncode)


def failure(name: str, code: int, stderr: bytes) -> str:
    """Word a program's failure: what ran, how it ended, the last line that it said."""
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    ended = f"was killed by signal {-code}" if code < 0 else f"failed with exit status {code}"
    return f"{name} {ended}" + (f": {lines[-1].strip()[:400]}" if lines else "")


def start_time(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot, or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command name may hold blanks and brackets; fields are counted from its last bracket.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


class ProcessHandle:
    """One process for ever: pid, start time and a pidfd."""

    def __init__(self, pid: int, started: int, pidfd: int) -> None:
        self.pid = pid
        self.start_time = started
        self.pidfd = pidfd
        self._gone = False
        self._watch: asyncio.Future[None] | None = None

    def alive(self) -> bool:
        """Tell whether the process still runs (a zombie does not)."""
        if not self._gone:
            self._gone = start_time(self.pid) != self.start_time
            if self._gone:
                self._reap()
        return not self._gone

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process is gone."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    async def wait(self) -> None:
        """Return when the process is gone, whoever its parent is."""
        if self._gone or self.pidfd < 0:
            return
        loop = asyncio.get_running_loop()
        if self._watch is None or self._watch.done():
            self._watch = loop.create_future()
            loop.add_reader(self.pidfd, self._ended, loop)
        await asyncio.shield(self._watch)

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self.pidfd)
        self._gone = True
        self._reap()
        if self._watch is not None and not self._watch.done():
            self._watch.set_result(None)

    def _reap(self) -> None:
        # Ours if the jail's launcher handed it to this daemon (subreaper), else somebody else's.
        if self.pidfd >= 0:
            with contextlib.suppress(ChildProcessError, OSError):
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)

    async def kill(self, timeout: float = 10.0) -> None:
        """Kill the process and wait until it is gone. Raises InternalError if it stays."""
        self.signal(signal.SIGKILL)
        try:
            async with asyncio.timeout(timeout):
                await self.wait()
        except TimeoutError:
            raise InternalError(
                f"process {self.pid} did not end within {timeout:.0f} s of being killed"
            ) from None

    def close(self) -> None:
        """Close the pidfd; the process runs on."""
        if self.pidfd < 0:
            return
        if self._watch is not None and not self._watch.done():
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self.pidfd)
            self._watch.cancel()
        os.close(self.pidfd)
        self.pidfd = -1


def open_process(pid: int, started: int | None = None) -> ProcessHandle | None:
    """Get hold of a process by pid and start time; None if that process is gone.

    Without *started* whatever has the pid now is taken: only for a pid that can't be reused, such
    as that of an unreaped child.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    now = start_time(pid)
    if now is None or (started is not None and now != started):
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        os.close(pidfd)
        return None
    return ProcessHandle(pid, now, pidfd)


def become_subreaper() -> None:
    """Let jailed processes whose launcher has ended become this process's children (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise InternalError(f"prctl: {os.strerror(ctypes.get_errno())}")
