"""The share of a sandbox: volumes and bind mounts, served by one jailed virtiofsd (design 7).

Each mount is bound to ``/share/NAME`` in the jail of virtiofsd, read-only there if it is read-only,
so what the guest's root does cannot lift it. virtiofsd runs as the host's root with the few
capabilities that make root in the container root on the files (no MKNOD: no device files), sees no
other file of the host, and ends with the VMM, whose connection it serves. The listening socket is
made here and handed over, so the VMM's own uid may connect and nobody else.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import InternalError
from hyperstack.guest.caps import mask
from hyperstack.guest.kit import Kit
from hyperstack.platform import jail
from hyperstack.platform.filters import Program
from hyperstack.platform.process import ProcessHandle, open_process
from hyperstack.volume import extend
from hyperstack.volume.shown import ROOT, ShareMount

TAG = "share"
"""The virtio-fs tag by which the guest mounts it."""
SOCKET = "share.sock"
LISTEN_FD = 3
MAX_FILES = 65_536
"""Descriptors of one virtiofsd: what bounds how many files a guest can hold open."""

# SETPCAP is for virtiofsd itself, which gives up its bounding set and that one with it.
_CAPABILITIES = mask(
    f"CAP_{name}"
    for name in "CHOWN DAC_OVERRIDE FOWNER FSETID SETGID SETUID SETFCAP SETPCAP".split()
)


class Share:
    """Starts and ends the virtiofsd of sandboxes."""

    def __init__(self, config: Config, kit: Kit) -> None:
        self._config = config
        self._kit = kit
        self._servers: dict[str, ProcessHandle] = {}

    async def start(
        self,
        sandbox: str,
        uid: int,
        mounts: Sequence[ShareMount],
        cgroups: Sequence[Path],
        path: Path | None = None,
    ) -> Path:
        """Serve *mounts* and return the vhost-user socket for the VMM that runs as *uid*.

        *path* is where the socket is to be, if not in the sandbox's run folder. Raises
        InternalError if virtiofsd can't be started; nothing is left then.
        """
        path = path or self._config.sandbox_run_dir(sandbox) / SOCKET
        starting = asyncio.to_thread(self._start, path, uid, mounts, cgroups)
        self._servers[sandbox] = await jail.held(starting)
        return path

    def _start(
        self, path: Path, uid: int, mounts: Sequence[ShareMount], cgroups: Sequence[Path]
    ) -> ProcessHandle:
        named = [mount for mount in mounts if mount.beneath is None]
        try:
            with _listen(path, uid) as listening:
                spec = self._spec(listening.fileno(), named, cgroups)
                process = jail.launch_blocking(spec, self._kit.jail)
            try:
                # The jail would follow a link that a guest has put into such a path meanwhile.
                pinned = [mount for mount in mounts if mount.beneath is not None]
                extend.add(process.pid, process.start_time, pinned)
            except BaseException:
                process.signal(signal.SIGKILL)
                process.close()
                raise
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return process

    def _spec(
        self, listening: int, mounts: Sequence[ShareMount], cgroups: Sequence[Path]
    ) -> jail.JailSpec:
        return jail.JailSpec(
            root=self._kit.virtiofsd_root,
            argv=(
                self._kit.virtiofsd_argv0,
                f"--fd={LISTEN_FD}",
                f"--shared-dir={ROOT}",
                f"--tag={TAG}",
                "--sandbox=none",
                "--seccomp=none",
                "--modcaps=-mknod",
                "--cache=auto",
                "--xattr",
                "--inode-file-handles=never",
                "--announce-submounts",
                "--rlimit-nofile=0",
                "--log-level=error",
            ),
            program=Program.VIRTIOFSD,
            uid=0,
            gid=0,
            capabilities=_CAPABILITIES,
            binds=tuple(mount.bind for mount in mounts),
            tmpfs=(jail.Tmpfs(target=ROOT, size=1 << 20, mode=0o755),),
            devices=("/dev/null", "/dev/urandom"),
            proc=True,
            cgroups=tuple(cgroups),
            fds={LISTEN_FD: listening},
            limits={resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: _files()},
        )

    def server(self, sandbox: str) -> tuple[int, int]:
        """Return pid and start time of the virtiofsd that this daemon started for a sandbox."""
        process = self._servers[sandbox]
        return process.pid, process.start_time

    async def gone(self, sandbox: str, server: tuple[int, int]) -> None:
        """Return when the virtiofsd of a sandbox, by its pid and start time, has ended."""
        mine = self._servers.get(sandbox)
        if mine is not None and (mine.pid, mine.start_time) == server:
            await mine.wait()
            return
        if (process := open_process(*server)) is not None:
            try:
                await process.wait()
            finally:
                process.close()

    async def stop(self, sandbox: str) -> None:
        """End the virtiofsd of a sandbox whose VMM is gone, and remove its socket.

        One that an earlier daemon started has ended with its VMM, or ends with the cgroup.
        """
        server = self._servers.pop(sandbox, None)
        if server is not None:
            await server.kill()
            server.close()
        (self._config.sandbox_run_dir(sandbox) / SOCKET).unlink(missing_ok=True)


def _files() -> int:
    """Return the bound on descriptors: not above this process's own, which may not be raised."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)


def _listen(path: Path, uid: int) -> socket.socket:
    """Make a listening unix socket that only *uid* may connect to."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        # The folder belongs to root and is new, so nobody connects before the mode is set. It is
        # named by a descriptor: a path may be longer than a socket's name (unix(7)).
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        path.chmod(0o600)
        os.chown(path, uid, uid)
        listening.listen(1)
    except OSError as error:
        listening.close()
        raise InternalError(f"the sandbox's share has no socket: {error.strerror}") from error
    return listening
