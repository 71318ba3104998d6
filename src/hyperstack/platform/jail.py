"""Start a program in the jail (``native/jail``, see ``docs/jail.md``).

The launcher ends as soon as the jailed process exists, so what runs in a jail is nobody's child
that could die with the daemon: it falls to the daemon as subreaper while that lives, then to init.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from hyperstack.errors import HyperError, InternalError
from hyperstack.platform.filters import Program, filter_file
from hyperstack.platform.process import CLEAN_ENVIRONMENT, Completed, ProcessHandle, open_process

log = logging.getLogger(__name__)

LAUNCH_TIMEOUT = 20.0
END_TIMEOUT = 10.0
REPORT_LIMIT = 8192
SHMEM_HUGE = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
OOM_SCORE = 100
"""``native/ports`` has the same."""


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of the host that shows up in the jail. No device, no setuid in it."""

    source: Path
    target: str
    read_only: bool = True
    recursive: bool = False
    """With the mounts below *source*, as Docker's binds."""
    read_only_below: bool = True
    """A read-only one makes those read-only too."""


@dataclass(frozen=True, kw_only=True)
class Tmpfs:
    """A tmpfs in the jail. *size* in bytes; *executable*: memory of it may be mapped executable.

    *huge*: its pages are large ones where the host's kernel has them and can spare them at once.
    """

    target: str
    size: int
    mode: int = 0o700
    executable: bool = False
    huge: bool = False

    def options(self, uid: int, gid: int) -> str:
        """Return the mount options of one that belongs to *uid* and *gid* (tmpfs(5))."""
        made = f"size={self.size},mode={self.mode:o},uid={uid},gid={gid}"
        # A kernel without huge pages knows no such option.
        return f"{made},huge=within_size" if self.huge and SHMEM_HUGE.exists() else made


@dataclass(frozen=True, kw_only=True)
class JailSpec:
    """What runs in a jail, and what it may see.

    *root* is a folder that becomes the read-only root; targets of binds and tmpfs must exist in it
    or lie in one of the tmpfs. *devices* are character devices of the host. *netns* None means a
    new, empty network namespace. *fds* maps descriptor numbers in the jail to the caller's.
    *limits* maps resources of ``resource`` (RLIMIT_*) to values. *capabilities* are bits and 0 for
    everything that runs a guest.
    """

    root: Path
    argv: tuple[str, ...]
    program: Program | None
    uid: int
    gid: int
    env: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    devices: tuple[str, ...] = ()
    netns: Path | None = None
    cgroups: tuple[Path, ...] = ()
    fds: Mapping[int, int] = field(default_factory=dict)
    limits: Mapping[int, int] = field(default_factory=dict)
    capabilities: int = 0
    no_aslr: bool = False
    oom_score: int = OOM_SCORE
    """Above the daemon's own: when the host's memory ends, machines go first."""
    proc: bool = False
    """A /proc that shows the jail's own processes and nothing else."""

    def options(self, report: int, filter_fd: int | None) -> list[str]:
        """Return the launcher's command line after its name."""
        made = ["--report", str(report), "--root", str(self.root)]
        made += ["--uid", str(self.uid), "--gid", str(self.gid)]
        if self.capabilities:
            made += ["--caps", str(self.capabilities)]
        if self.netns is not None:
            made += ["--netns", str(self.netns)]
        if filter_fd is not None:
            made += ["--filter", f"/proc/self/fd/{filter_fd}"]
        if self.no_aslr:
            made.append("--no-aslr")
        if self.proc:
            made.append("--proc")
        made += ["--oom-score", str(self.oom_score)]
        for path in self.cgroups:
            made += ["--cgroup", str(path)]
        for device in self.devices:
            made += ["--device", device]
        for mount in self.tmpfs:
            option = "--exec-tmpfs" if mount.executable else "--tmpfs"
            made += [option, mount.target, mount.options(self.uid, self.gid)]
        for bind in self.binds:
            mode = ("r-" if bind.recursive else "") + ("ro" if bind.read_only else "rw")
            if mode == "r-ro" and not bind.read_only_below:
                mode = "r-ro-top"
            made += ["--bind", str(bind.source), bind.target, mode]
        for target, source in self.fds.items():
            made += ["--fd", str(target), str(source)]
        for resource, value in self.limits.items():
            made += ["--limit", str(resource), str(value)]
        for name, text in self.env.items():
            made += ["--env", f"{name}={text}"]
        return [*made, "--", *self.argv]


async def launch(spec: JailSpec, launcher: Path) -> ProcessHandle:
    """Start the program and return it once it has been executed.

    *launcher* is the jail's binary, ``Kit.jail``. Raises InternalError with the launcher's sentence
    if a wall could not be built or the program not be executed; nothing is left then, nor if the
    caller is cancelled.
    """
    return await held(asyncio.to_thread(launch_blocking, spec, launcher))


async def held(launching: Coroutine[Any, Any, ProcessHandle]) -> ProcessHandle:
    """Await a launch; whoever is cancelled meanwhile leaves no process."""
    started = asyncio.ensure_future(launching)
    try:
        return await asyncio.shield(started)
    except asyncio.CancelledError:
        # The launcher can't be interrupted half way: take what it made, and end it.
        try:
            process = await started
            await process.kill()
            process.close()
        except HyperError as error:
            log.debug("a cancelled launch failed by itself: %s", error)
        raise


def launch_blocking(spec: JailSpec, launcher: Path) -> ProcessHandle:
    """Do what ``launch`` does; blocking."""
    filter_fd = filter_file(spec.program).fd if spec.program else None
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        started = subprocess.Popen(
            [launcher, *spec.options(write, filter_fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=_kept(spec, write, filter_fd),
            env=CLEAN_ENVIRONMENT,
        )
    except OSError as error:
        os.close(read)
        raise _no_launcher(error) from error
    finally:
        os.close(write)
    text, process = b"", None
    try:
        for part in _report_parts(read):
            text += part
            # At once: only until the launcher's end is the pid certain to be that one.
            process = process or _reported(text)
        return _outcome(spec, text, process)
    except BaseException:
        if process is not None:
            process.signal(signal.SIGKILL)
            process.close()
        raise
    finally:
        os.close(read)
        started.kill()
        started.wait()


def _kept(spec: JailSpec, report: int, filter_fd: int | None) -> tuple[int, ...]:
    """Return the descriptors that the launcher inherits."""
    kept = {report, *spec.fds.values()}
    return tuple(kept if filter_fd is None else kept | {filter_fd})


def _no_launcher(error: OSError) -> InternalError:
    return InternalError(f"the jail can't be started: {error}; is the kit complete?")


async def run(spec: JailSpec, launcher: Path, *, timeout: float, limit: int = 1 << 20) -> Completed:
    """Run a program in a jail to its end and return what it left; it dies with this process.

    Its input is ``spec.fds[0]`` or nothing. Output and errors are cut at *limit* bytes each; exit
    status 128+n means signal n. Raises InternalError if the jail fails or *timeout* seconds pass;
    the program is gone then, as it is when the caller is cancelled.
    """
    filter_fd = filter_file(spec.program).fd if spec.program else None
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        process = await asyncio.create_subprocess_exec(
            launcher,
            *("--fd", "1", "1", "--fd", "2", "2", "--wait"),
            *spec.options(write, filter_fd),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=_kept(spec, write, filter_fd),
            env=CLEAN_ENVIRONMENT,
        )
    except BaseException as error:
        os.close(read)
        if isinstance(error, OSError):
            raise _no_launcher(error) from error
        raise
    finally:
        os.close(write)
    report = bytearray()
    pipe = os.fdopen(read, "rb", buffering=0)
    try:
        async with asyncio.timeout(timeout):
            done = await _collect(process, pipe, report, limit)
    except TimeoutError:
        name = Path(spec.argv[0]).name
        raise InternalError(f"{name} did not end within {timeout:.0f} s") from None
    finally:
        pipe.close()
        if process.returncode is None:
            await _end(process, bytes(report))
    _raise_failure(spec, report.decode(errors="replace"))
    return done


async def _collect(
    process: asyncio.subprocess.Process, pipe: FileIO, report: bytearray, limit: int
) -> Completed:
    """Read all that comes out until the program has ended."""
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr, _ = await asyncio.gather(
        _bounded(process.stdout, limit), _bounded(process.stderr, limit), _report(pipe, report)
    )
    code = await process.wait()
    return Completed(stdout=stdout, stderr=stderr, returncode=code)


async def _report(pipe: FileIO, report: bytearray) -> None:
    """Read the launcher's report and close its pipe."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        while part := await reader.read(REPORT_LIMIT):
            report += part[: REPORT_LIMIT - len(report)]
    finally:
        transport.close()


async def _end(process: asyncio.subprocess.Process, report: bytes) -> None:
    """Kill the launcher, with which the program dies, and see that it is gone."""
    handle = _reported(report)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await asyncio.shield(process.wait())
    if handle is None:
        return
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await handle.wait()
    except TimeoutError:
        log.warning("process %d did not end with the launcher of its jail", handle.pid)
    finally:
        handle.close()


async def _bounded(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Read a stream to its end, keeping its first *limit* bytes."""
    kept = bytearray()
    while part := await stream.read(1 << 16):
        kept += part[: limit - len(kept)]
    return bytes(kept)


def _report_parts(fd: int) -> Iterator[bytes]:
    """Read until the pipe's other end is gone: executed, or failed. Raises InternalError."""
    deadline = time.monotonic() + LAUNCH_TIMEOUT
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    for _ in range(REPORT_LIMIT):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            break
        part = os.read(fd, REPORT_LIMIT)
        if not part:
            return
        yield part
    raise InternalError(f"the jail was not ready within {LAUNCH_TIMEOUT:.0f} s")


def _reported(report: bytes) -> ProcessHandle | None:
    """Return the process that a report names."""
    for line in report.decode(errors="replace").splitlines(keepends=True):
        if line.endswith("\n") and line.strip().isdigit():
            return open_process(int(line))
    return None


def _raise_failure(spec: JailSpec, text: str) -> None:
    """Raise InternalError with the launcher's sentence if it reported one."""
    for line in text.splitlines():
        if line.startswith("error: "):
            name = Path(spec.argv[0]).name
            raise InternalError(f"the jail of {name} failed: {line.removeprefix('error: ')}")


def _outcome(spec: JailSpec, report: bytes, process: ProcessHandle | None) -> ProcessHandle:
    _raise_failure(spec, report.decode(errors="replace"))
    if process is None:
        raise InternalError(f"{Path(spec.argv[0]).name} ended as soon as it was started")
    return process
