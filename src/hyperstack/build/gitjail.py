"""Git in a jail: the host's own git under a uid that nothing else has, with a folder and a relay.

What it is given: the host's ``/usr`` and certificates to read, a folder to write to, a network
namespace whose only way out is the daemon's (``relay.py``). What it is not: the host's files,
configuration, keys, templates, hooks, name servers, terminals. It is limited in memory, processes,
time and in what it writes. What it leaves is read by a ``tar`` in the same jail.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import resource
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hyperstack.build import relay
from hyperstack.build.context import MAX_CONTEXT
from hyperstack.build.repository import Repository
from hyperstack.config import Config
from hyperstack.errors import InternalError
from hyperstack.guest.kit import Kit
from hyperstack.image.content import mapped
from hyperstack.image.layer import RESERVE, check_space
from hyperstack.platform import jail, netns, process
from hyperstack.platform.cgroup import CgroupLimits, Cgroups
from hyperstack.platform.filters import Program

T = TypeVar("T")

PREFIX = "git-"
"""Of the names of the folders of jails."""
MAX_SECONDS = 3600.0
"""For one of git's commands."""
MAX_MEMORY = 2 << 30
"""Bytes of all gits of this daemon together."""
MAX_PROCESSES = 256
MAX_CPU = 1800
MAX_FILES = 1_000_000
"""Files and folders of one repository with its working tree."""
MAX_OUTPUT = 1 << 16
_TMP = "/tmp"  # noqa: S108  # the jail's own
_WORK = "/work"
_CONFIG = "/etc/gitconfig"
_TREE = f"{_WORK}/tree"
_PIECE = 1 << 18
_LOOK = 2.0
"""Seconds between looks at what it has written."""
_PATH = process.CLEAN_ENVIRONMENT["PATH"]
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_READ_ONLY = (
    "/etc/ssl/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ld.so.cache",
    "/etc/ssh/ssh_known_hosts",
)
"""What of the host's ``/etc`` git may see where there is such a thing."""
_SSH = (
    "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/dev/null "
    "-o CheckHostIP=no"
)
_AS_USUAL = ("/bin/sh", "-c", 'umask 022 && exec "$@" 2>&1', "git")
"""In front of git's command line: files get the modes that they have elsewhere, and what it says
comes in its order."""
_ENVIRONMENT = {
    "PATH": _PATH,
    "LANG": "C.UTF-8",
    "HOME": "/",
    "TMPDIR": _TMP,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": _CONFIG,
    "GIT_TEMPLATE_DIR": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_SSH_COMMAND": _SSH,
    "GIT_SSH_VARIANT": "ssh",
}
_SETTINGS = f"""[core]
	hooksPath = /dev/null
	fsmonitor = false
	packedGitWindowSize = 16m
	packedGitLimit = 256m
	deltaBaseCacheLimit = 64m
	bigFileThreshold = 16m
[credential]
	helper =
[gc]
	auto = 0
[http]
	proxy = socks5h://127.0.0.1:{relay.SOCKS_PORT}
	lowSpeedLimit = 1000
	lowSpeedTime = 60
[index]
	threads = 1
[maintenance]
	auto = false
[pack]
	threads = 1
	windowMemory = 64m
"""


def uid_of(config: Config) -> int:
    """Return the host uid of all gits: the last but one of the range, which no sandbox gets."""
    return config.uid_base + config.uid_count - 2


class GitJails:
    """What makes jails for git. One per daemon; they share a uid and a cgroup."""

    def __init__(self, config: Config, kit: Kit, cgroups: Cgroups, folder: Path) -> None:
        self._config = config
        self._kit = kit
        self._cgroups = cgroups
        self._folder = folder
        self._group = f"git{uid_of(config)}"
        self._open = 0
        self._left = list(folder.glob(f"{PREFIX}*"))
        for path in cgroups.folders(self._group):
            with contextlib.suppress(OSError):
                path.rmdir()

    async def clear(self) -> None:
        """Remove what jails of an earlier daemon left, whose processes ended with it."""
        for path in self._left:
            await process.run(_removal(path), timeout=MAX_SECONDS, check=False)

    @contextlib.asynccontextmanager
    async def jail(self, repository: Repository) -> AsyncIterator[GitJail]:
        """Give a jail for one repository while the block runs.

        Raises InternalError if this host has no git, or if a wall can't be built.
        """
        git = shutil.which("git", path=_PATH)
        if git is None:
            raise InternalError(
                "a git repository as a build context needs git on the engine's host: install its "
                "package (git), or clone the repository and send its files"
            )
        async with contextlib.AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self._place())
            await asyncio.to_thread(self._furnish, folder, repository)
            namespace = stack.enter_context(netns.passing())
            way = relay.Relay(namespace, repository.host)
            stack.push_async_callback(way.close)
            straight = repository.scheme in ("git", "ssh")
            if straight:
                await asyncio.to_thread(netns.in_netns, namespace, lambda: _claim(repository.host))
            await way.open(repository.port if straight else None)
            groups = await stack.enter_async_context(self._limited())
            uid = uid_of(self._config)
            yield GitJail(self._kit, uid, folder, namespace, groups, way, git)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[Path]:
        with mapped("make a folder for git"):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=PREFIX))
        try:
            yield folder
        finally:
            # Trees may be deeper than a recursion of Python's goes, and are a stranger's.
            await asyncio.shield(process.run(_removal(folder), timeout=MAX_SECONDS, check=False))

    @contextlib.asynccontextmanager
    async def _limited(self) -> AsyncIterator[tuple[Path, ...]]:
        limits = CgroupLimits(memory=MAX_MEMORY, pids=MAX_PROCESSES)
        groups = self._cgroups.create(self._group, limits)
        self._open += 1
        try:
            yield groups
        finally:
            self._open -= 1
            if not self._open:
                await self._cgroups.remove(self._group)

    def _furnish(self, folder: Path, repository: Repository) -> None:
        """Make the jail's root and the folder that git writes to."""
        uid = uid_of(self._config)
        root, work = folder / "root", folder / "work"
        with mapped("make a folder for git"):
            for name in ("", "dev", "etc", "tmp", "work"):
                (root / name).mkdir(mode=0o755)
                (root / name).chmod(0o755)
            work.mkdir(mode=0o700)
            os.chown(work, uid, uid)
            for text in _SYSTEM:
                if (path := Path(text)).is_symlink():
                    (root / path.name).symlink_to(path.readlink())
            for bind in _binds(work):
                _make_target(bind, root / bind.target.lstrip("/"))
            for name, text in _etc(uid, repository).items():
                (root / "etc" / name).write_text(text)
                (root / "etc" / name).chmod(0o644)
            private = root / _CONFIG.lstrip("/")
            os.chown(private, uid, uid)
            private.chmod(0o400)


def _removal(path: Path) -> Sequence[str | Path]:
    return ("rm", "-rf", "--one-file-system", "--", path)


def _binds(work: Path) -> list[jail.Bind]:
    found = [Path(text) for text in _SYSTEM if Path(text).is_dir() and not Path(text).is_symlink()]
    found += [Path(text) for text in _READ_ONLY if Path(text).exists()]
    binds = [jail.Bind(source=path, target=str(path)) for path in found]
    return [*binds, jail.Bind(source=work, target=_WORK, read_only=False)]


def _make_target(bind: jail.Bind, target: Path) -> None:
    if bind.source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=0o644)


def _etc(uid: int, repository: Repository) -> dict[str, str]:
    """Return the files of the jail's ``/etc``: git's configuration, who it is, what leads where."""
    hosts = "127.0.0.1 localhost\n"
    if repository.scheme in ("git", "ssh") and _address(repository.host) is None:
        hosts += f"127.0.0.1 {repository.host}\n"
    return {
        Path(_CONFIG).name: _SETTINGS + _credentials(repository),
        "group": f"git:x:{uid}:\n",
        "hosts": hosts,
        "nsswitch.conf": "group: files\nhosts: files\npasswd: files\n",
        "passwd": f"git:x:{uid}:{uid}::/:/bin/false\n",
    }


def _credentials(repository: Repository) -> str:
    """Return the setting that adds the address's credentials, which no command line may have."""
    if not repository.user:
        return ""
    plain = repository.root
    full = plain.replace("://", f"://{repository.user}@", 1)
    return f'[url "{_quoted(full)}"]\n\tinsteadOf = "{_quoted(plain)}"\n'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _claim(host: str) -> None:
    """Let an address lead to the relay: it becomes loopback's in the namespace of the caller."""
    address = _address(host)
    if address is not None and address.version == 4 and not address.is_loopback:
        netns.add_to_loopback(str(address))


class GitJail:
    """A jail for one repository: ``git`` runs in it, ``tar`` gives what it has checked out."""

    def __init__(
        self,
        kit: Kit,
        uid: int,
        folder: Path,
        namespace: Path,
        groups: tuple[Path, ...],
        way: relay.Relay,
        git: str,
    ) -> None:
        self._kit = kit
        self._uid = uid
        self._folder = folder
        self._namespace = namespace
        self._groups = groups
        self._way = way
        self._git = git

    @property
    def tree(self) -> Path:
        """Where the working tree is on the host, a stranger's: never to be followed into links."""
        return self._folder / "work" / "tree"

    @property
    def failed(self) -> relay.Refused | None:
        """Why the last connection that was not made wasn't."""
        return self._way.failed

    async def git(self, *words: str, protocols: Sequence[str] = ()) -> process.Completed:
        """Run a git command on the tree; *protocols* are those that it may fetch by.

        Raises InternalError if it takes too long, or writes too much.
        """
        argv = (self._git, "-C", _TREE, *words)
        if words[0] == "init":
            argv = (self._git, *words, _TREE)
        spec = self._spec(
            (*_AS_USUAL, *argv), {"GIT_ALLOW_PROTOCOL": ":".join(protocols) or "none"}
        )
        run = jail.run(spec, self._kit.jail, timeout=MAX_SECONDS, limit=MAX_OUTPUT)
        return await _watched(run, self._watch())

    def _spec(
        self, argv: tuple[str, ...], env: dict[str, str], fds: dict[int, int] | None = None
    ) -> jail.JailSpec:
        return jail.JailSpec(
            root=self._folder / "root",
            argv=argv,
            program=Program.GIT,
            uid=self._uid,
            gid=self._uid,
            env={**_ENVIRONMENT, **env},
            binds=tuple(_binds(self._folder / "work")),
            tmpfs=(jail.Tmpfs(target=_TMP, size=16 << 20),),
            devices=("/dev/null", "/dev/urandom", "/dev/zero"),
            netns=self._namespace,
            cgroups=self._groups,
            fds=fds or {},
            oom_score=500,
            limits={
                resource.RLIMIT_CPU: MAX_CPU,
                resource.RLIMIT_FSIZE: relay.MAX_BYTES,
                resource.RLIMIT_NOFILE: 1024,
                resource.RLIMIT_NPROC: MAX_PROCESSES,
            },
        )

    async def _watch(self) -> None:
        """Raise InternalError once the tree is too large, or the disk nearly full."""
        for limit, option, what in itertools.cycle(
            (
                (MAX_CONTEXT, "--block-size=1", f"{MAX_CONTEXT >> 30} GiB"),
                (MAX_FILES, "--inodes", f"{MAX_FILES} files"),
            )
        ):
            await asyncio.sleep(_LOOK)
            check_space(self._folder, RESERVE)
            found = await process.run(
                ("du", "-s", option, "--", self._folder), timeout=MAX_SECONDS, check=False
            )
            size = found.stdout.split(b"\t")[0]
            if size.isdigit() and int(size) > limit:
                raise InternalError(f"the repository has more than {what}")

    async def tar(self, folder: str) -> AsyncGenerator[bytes, None]:
        """Yield a folder of the tree (relative, without links in it) as a tar.

        Raises InternalError if it can't be read.
        """
        read, write = os.pipe2(os.O_CLOEXEC)
        spec = self._spec(_tar_argv(folder), {}, {1: write})
        job = asyncio.create_task(
            jail.run(spec, self._kit.jail, timeout=MAX_SECONDS, limit=MAX_OUTPUT), name="tar"
        )
        job.add_done_callback(lambda _: os.close(write))
        pipe = os.fdopen(read, "rb", buffering=0)
        reader = asyncio.StreamReader(limit=_PIECE)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), pipe
            )
            try:
                while data := await reader.read(_PIECE):
                    yield data
            finally:
                transport.close()
            done = await job
        finally:
            job.cancel()
            await asyncio.wait({job})
            pipe.close()
        if done.returncode:
            raise InternalError(process.failure("tar", done.returncode, done.stderr))


def _tar_argv(folder: str) -> tuple[str, ...]:
    program = shutil.which("tar", path=_PATH) or "/bin/tar"
    return (
        program,
        "--create",
        "--format=gnu",
        "--sort=name",
        "--numeric-owner",
        "--owner=0",
        "--group=0",
        "--transform=s,^\\./,,SH",
        f"--directory={_TREE}/{folder}",
        ".",
    )


async def _watched(work: Coroutine[Any, Any, T], watch: Coroutine[Any, Any, None]) -> T:
    """Await *work*, which is cancelled if *watch* raises. Raises what either does."""
    job, beside = asyncio.create_task(work, name="git"), asyncio.create_task(watch, name="du")
    try:
        await asyncio.wait({job, beside}, return_when=asyncio.FIRST_COMPLETED)
        if beside.done():
            beside.result()
        return await job
    finally:
        for task in (job, beside):
            task.cancel()
        await asyncio.gather(job, beside, return_exceptions=True)
