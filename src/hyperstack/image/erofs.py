"""One layer's tar into one EROFS file, by mkfs.erofs in a jail (threat model, "image bytes").

The tar comes through a pipe as its standard input. It runs under a uid that no sandbox has, without
capabilities or network, sees its own libraries and one empty folder, and is limited in memory, CPU
time and size of output. What it wrote is looked at only as a file: root's, sealed, renamed.

    mkfs.erofs --tar=f --aufs --sort=none -b4096 -T0 --mkfs-time -U... /out/layer

``--sort=none`` writes the files' bytes as they come (no second copy); ``--aufs`` turns ``.wh.``
files into overlayfs's whiteouts and opaque marks. Nothing is compressed: a guest reads layers at
the disk's speed, and page caches would hold the plain bytes anyway.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import secrets
import shutil
import signal
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.guest.kit import Kit
from hyperstack.image.content import mapped
from hyperstack.platform import jail
from hyperstack.platform.filters import Program
from hyperstack.platform.process import Completed

OUTPUT = "/out"
"""The folder in the kit's root that the job's own is bound on."""
NAME = "layer"
BLOCK = 4096
JOB_TIMEOUT = 6 * 3600.0
"""Seconds: as long as the slowest download that is still worth waiting for."""
PATIENCE = 5.0
"""Seconds that a conversion which was given up may take to end by itself."""
MAX_MEMORY = 2 << 30
MAX_CPU = 600
"""Seconds; mkfs.erofs takes 20 for 60,000 files in one folder, and four times that for twice: it
looks through the folder for each name, whatever their order, and no option of 1.9 changes that."""
MAX_FILE = 128 << 30
MAGIC, SUPER_AT = 0xE0F5E1E2, 1024
_SUPER = struct.Struct("<I8xB23xI")
"""Of EROFS's superblock: magic, binary logarithm of the block size, number of blocks."""
_UUID = "00000000-0000-0000-0000-000000000000"


def uid_of(config: Config) -> int:
    """Return the host uid of conversions: the last of the range, which no sandbox gets."""
    return config.uid_base + config.uid_count - 1


class Conversion:
    """A running mkfs.erofs. The tar goes to ``fd``, a pipe that never blocks its writer;
    ``finish`` closes it and waits."""

    def __init__(self, config: Config, kit: Kit, folder: Path) -> None:
        self._uid = uid_of(config)
        self._kit = kit
        self._folder = folder
        self._job: asyncio.Task[Completed] | None = None
        self._read = -1
        self.fd = -1

    @property
    def output(self) -> Path:
        """The file that it writes."""
        return self._folder / NAME

    def start(self) -> None:
        """Make folder and pipe and start the program."""
        with mapped("prepare a layer"):
            self._folder.mkdir(mode=0o700)
            os.chown(self._folder, self._uid, self._uid)
            self._read, self.fd = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.fd, False)
            _widen(self.fd)
        job = asyncio.create_task(self._run(), name="mkfs.erofs")
        job.add_done_callback(lambda _: self._close_read())
        self._job = job

    async def _run(self) -> Completed:
        spec = jail.JailSpec(
            root=self._kit.mkfs_root,
            argv=(
                self._kit.mkfs_argv0,
                *("--quiet", "--tar=f", "--aufs", "--sort=none", f"-b{BLOCK}"),
                *("-T0", "--mkfs-time", "-U", _UUID, f"{OUTPUT}/{NAME}"),
            ),
            env={"TMPDIR": OUTPUT},
            program=Program.MKFS_EROFS,
            uid=self._uid,
            gid=self._uid,
            binds=(jail.Bind(source=self._folder, target=OUTPUT, read_only=False),),
            fds={0: self._read},
            oom_score=500,
            limits={
                resource.RLIMIT_AS: MAX_MEMORY,
                resource.RLIMIT_CPU: MAX_CPU,
                resource.RLIMIT_FSIZE: MAX_FILE,
                resource.RLIMIT_NOFILE: 64,
            },
        )
        return await jail.run(spec, self._kit.jail, timeout=JOB_TIMEOUT, limit=1 << 16)

    async def finish(self) -> None:
        """Say that the tar has ended and wait for the file.

        Raises InvalidParameter if mkfs.erofs refused the tar, InternalError if it could not work.
        """
        assert self._job is not None
        self.close_input()
        done = await self._job
        if done.returncode:
            raise _refusal(done)

    def close_input(self) -> None:
        """Close the pipe's write end."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _close_read(self) -> None:
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    async def abort(self) -> None:
        """End the program, whatever it does. Nobody may be writing to ``fd`` any more.

        It ends by itself at the end of its input; killed, it would be left to be reaped.
        """
        self.close_input()
        if self._job is not None:
            await asyncio.wait([self._job], timeout=PATIENCE)
            self._job.cancel()
            await asyncio.wait([self._job])
            if not self._job.cancelled():
                self._job.exception()  # seen: ``finish`` has told it, or nobody asks any more
        self._close_read()


@asynccontextmanager
async def conversion(config: Config, kit: Kit, jobs: Path) -> AsyncIterator[Conversion]:
    """Run a mkfs.erofs whose output lies in a folder of its own below *jobs*, gone afterwards."""
    folder = jobs / secrets.token_hex(8)
    job = Conversion(config, kit, folder)
    try:
        job.start()
        yield job
    finally:
        await asyncio.shield(_end(job, folder))


async def _end(job: Conversion, folder: Path) -> None:
    await job.abort()
    await asyncio.to_thread(shutil.rmtree, folder, True)


def seal(path: Path, target: Path) -> int:
    """Make a jail's output root's, read-only and durable under *target*; return bytes on disk.

    Blocking; to be called when the jail is gone. Raises InternalError if it is no plain file.
    """
    with mapped("store a layer"):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or not status.st_size:
                raise InternalError("mkfs.erofs left no layer")
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o444)
            os.fsync(fd)
        finally:
            os.close(fd)
        path.rename(target)
        return status.st_blocks * 512


def is_whole(path: Path) -> bool:
    """Tell whether a layer's file is there and as long as its superblock says; blocking, brief.

    A layer's content is never read again once it was verified; this finds a file that is gone, cut
    off or something else.
    """
    try:
        with path.open("rb", buffering=0) as file:
            raw = os.pread(file.fileno(), _SUPER.size, SUPER_AT)
            magic, block_bits, blocks = _SUPER.unpack(raw)
            return bool(magic == MAGIC and blocks << block_bits == os.fstat(file.fileno()).st_size)
    except (OSError, struct.error):
        return False


def _refusal(done: Completed) -> Exception:
    code = done.returncode
    text = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1].removeprefix("<E> erofs:").strip()[:300] if lines else ""
    if "Error 28" in said or code == 128 + signal.SIGXFSZ:
        return InternalError("cannot store a layer: no space left on device")
    if code in (128 + signal.SIGXCPU, 128 + signal.SIGKILL):
        return InvalidParameter("layer can't be converted: it takes too much time or memory")
    if code > 128:
        return InvalidParameter(
            f"layer can't be converted: mkfs.erofs ended by signal {code - 128}"
        )
    if code >= 125:
        return InternalError(f"mkfs.erofs can't be run: {said or code}")
    return InvalidParameter(f"layer is not a valid file system: {said or f'exit status {code}'}")


def _widen(fd: int) -> None:
    """Let the pipe hold a MiB: fewer switches between us and mkfs.erofs."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass  # over the user's limit: only slower
