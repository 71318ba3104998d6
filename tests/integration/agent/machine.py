"""A User Mode Linux guest with the agent that was just built, without daemon and jail around it.

It boots from a copy of the kit's folders, so that a test may put layers and disks beside. The
network namespace holds the agent's private tap, the far end of each further NIC, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperstack.guest import caps, messages
from hyperstack.guest.client import AgentClient
from hyperstack.guest.messages import EventKind, Mount, Op, Process, Root, Source, SourceKind
from hyperstack.platform import netns
from hyperstack.vmm.uml.command import BOOT, VIRTIO_ID_FS
from hyperstack.volume.share import TAG as SHARE_TAG
from tests.framework.host import KIT_DIR

NATIVE = Path(__file__).parents[3] / "native"
BOOT_BOUND = 20.0
NEW = 0x2C020000 | 0x02000000 | 0x40000000
"""Namespaces of an ordinary container: mount, uts, ipc, pid, cgroup, net."""
ENV = ("PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C")
CAPS = caps.resolve((), (), privileged=False)
MASKED = ("/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware", "/proc/scsi", "/secret")
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True)
class Kitchen:
    """The folders from which machines of one test session boot."""

    root: Path
    """Root of UML's process."""
    template: Path
    mkfs: Path
    virtiofsd: Path

    @classmethod
    def make(cls, path: Path) -> Kitchen:
        """Copy the kit, build the agent; blocking."""
        kit = (KIT_DIR / "current").resolve()
        root = path / "uml"
        shutil.copytree(kit / "uml", root, symlinks=True)
        shutil.copytree(kit / "guest", root / "guest", dirs_exist_ok=True)
        for folder in ("mkfs", "virtiofsd"):
            shutil.copytree(kit / folder, path / folder, symlinks=True)
        subprocess.run(
            ["make", "-s", "-j2", "-C", NATIVE / "agent", f"BUILD={path}", path / "agent"],
            check=True,
            timeout=300,
        )
        shutil.copy(path / "agent", root / "guest" / "agent")
        for folder in ("dev", "dev/shm", "dev/net", "disks", "layers", "uml"):
            (root / folder).mkdir(exist_ok=True)
        for name, number in (("null", (1, 3)), ("urandom", (1, 9)), ("net/tun", (10, 200))):
            node = root / "dev" / name
            if not node.exists():
                os.mknod(node, 0o20666, os.makedev(*number))
        return cls(
            root=root, template=kit / "ext4.img", mkfs=path / "mkfs", virtiofsd=path / "virtiofsd"
        )

    def layer(self, name: str, fill: Callable[[tarfile.TarFile], None]) -> str:
        """Make an EROFS layer of what *fill* puts into a tar; return its path in the guest."""
        work = self.mkfs / "out"
        with tarfile.open(work / "in.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            fill(tar)
        subprocess.run(
            [
                "chroot",
                self.mkfs,
                "/mkfs.erofs",
                "--quiet",
                "--tar=f",
                "--aufs",
                "--sort=none",
                "-b4096",
                f"/out/{name}",
                "/out/in.tar",
            ],
            check=True,
            timeout=60,
        )
        shutil.move(work / name, self.root / "layers" / name)
        return f"/layers/{name}"

    def disk(self, name: str) -> str:
        """Make an empty writable disk; return its name."""
        target = self.root / "disks" / name
        subprocess.run(["cp", "--sparse=always", self.template, target], check=True, timeout=60)
        return name


@dataclass
class Ran:
    """A process that has ended: its exit and what it wrote."""

    out: bytes
    err: bytes
    state: messages.ProcessState

    @property
    def code(self) -> int:
        """The exit code."""
        return self.state.code

    @property
    def text(self) -> str:
        """What it wrote to stdout, without the last line's end."""
        return self.out.decode().rstrip("\r\n")


@dataclass
class Machine:
    """A running guest, and a client of its agent."""

    client: AgentClient
    layers: tuple[str, ...]
    namespace: Path
    disks: tuple[Path, ...] = ()
    handles: int = 0
    containers: int = 0
    events: list[tuple[EventKind, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, kind: EventKind, message: Any) -> None:
        """Keep an event."""
        self.events.append((kind, message))
        self.changed.set()

    async def event(self, wanted: Callable[[EventKind, Any], bool], bound: float = 20.0) -> Any:
        """Return the message of the first event that *wanted* accepts, once it has come."""
        async with asyncio.timeout(bound):
            while True:
                for kind, message in self.events:
                    if wanted(kind, message):
                        return message
                self.changed.clear()
                await self.changed.wait()

    async def exit(self, handle: int) -> messages.ProcessState:
        """Wait for the end of a process."""
        state = await self.event(
            lambda kind, message: kind == EventKind.EXIT and message.handle == handle
        )
        assert isinstance(state, messages.ProcessState)
        return state

    def process(self, *argv: str, **more: Any) -> Process:
        """Describe a process as Docker's defaults have it."""
        self.handles += 1
        fields: dict[str, Any] = {
            "handle": self.handles,
            "argv": argv,
            "env": ENV,
            "cwd": "/",
            "stdout": self.handles * 4 + 2,
            "stderr": self.handles * 4 + 3,
            "cap_bounding": CAPS,
            "cap_effective": CAPS,
            "cap_permitted": CAPS,
        }
        return Process(**(fields | more))

    def root(self, disk: int | None = 0, read_only: bool = False) -> Root:
        """Describe a root on the layers of this machine and one of its disks."""
        device = Source(kind=SourceKind.BLOCK, path=f"/dev/ubd{chr(ord('b') + (disk or 0))}")
        return Root(
            layers=tuple(Source(kind=SourceKind.FILE, path=path) for path in self.layers),
            disk=None if disk is None else device,
            read_only=read_only,
        )

    def container(
        self, *argv: str, process: dict[str, Any] | None = None, **more: Any
    ) -> messages.Container:
        """Describe a container as Docker's defaults have it, without a disk of its own."""
        self.containers += 1
        fields: dict[str, Any] = {
            "id": f"{self.containers:064x}",
            "root": self.root(None),
            "hostname": "box",
            "namespaces": NEW,
            "masked_paths": MASKED,
            "readonly_paths": READONLY,
            "process": self.process(*argv, **(process or {})),
        }
        return messages.Container(**(fields | more))

    async def start(self, container: messages.Container) -> messages.Started:
        """Start a container."""
        started = await self.client.call(Op.CONTAINER_START, container)
        assert isinstance(started, messages.Started)
        return started

    async def exec(self, container: messages.Container, *argv: str, **more: Any) -> Ran:
        """Run a further process in a container to its end."""
        process = self.process(*argv, **more)
        await self.client.call(Op.EXEC, messages.Exec(container=container.id, process=process))
        return await self.finish(process)

    async def run(self, *argv: str, process: dict[str, Any] | None = None, **more: Any) -> Ran:
        """Run a container to its end and remove it."""
        container = self.container(*argv, process=process, **more)
        await self.start(container)
        assert container.process is not None
        ran = await self.finish(container.process)
        await self.remove(container)
        return ran

    async def remove(self, container: messages.Container) -> None:
        """Remove a container."""
        await self.client.call(Op.CONTAINER_REMOVE, messages.ContainerRef(id=container.id))

    async def finish(self, process: Process) -> Ran:
        """Collect what a started process writes, and its end."""
        out, err = await asyncio.gather(self.read(process.stdout), self.read(process.stderr))
        state = await self.exit(process.handle)
        await self.client.call(Op.RELEASE, messages.ProcessRef(handle=process.handle))
        return Ran(out, err, state)

    async def read(self, stream: int) -> bytes:
        """Read an output stream to its end."""
        data = b""
        if not stream:
            return data
        output = self.client.open_output(stream)
        async with asyncio.timeout(30):
            async for offset, piece in output:
                data += piece
                output.take(offset + len(piece))
        return data

    def disk_bytes(self, number: int) -> int:
        """Tell how much of a disk the host really stores."""
        return self.disks[number].stat().st_blocks * 512

    def outside(self, *argv: str) -> str:
        """Run a command in the machine's network namespace; blocking."""
        done = subprocess.run(
            ["nsenter", f"--net={self.namespace}", "--", *argv],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout


def _taps(namespace: Path, nics: Sequence[str]) -> None:
    def run(*words: str) -> None:
        subprocess.run(
            ["nsenter", f"--net={namespace}", "--", "ip", *words], check=True, timeout=30
        )

    run("link", "set", "lo", "up")
    run("tuntap", "add", "dev", "agent0", "mode", "tap", "vnet_hdr")
    run("link", "set", "agent0", "address", "02:48:59:50:00:02", "up")
    run("addr", "add", "169.254.77.1/30", "dev", "agent0")
    run("neigh", "add", "169.254.77.2", "lladdr", "02:48:59:50:00:01", "dev", "agent0")
    for number, _ in enumerate(nics):
        run("tuntap", "add", "dev", f"nic{number}", "mode", "tap", "vnet_hdr")
        run("addr", "add", f"10.9.{number}.1/24", "dev", f"nic{number}")
        run("addr", "add", f"fd00:{number}::1/64", "dev", f"nic{number}", "nodad")
        run("link", "set", f"nic{number}", "up")


def _argv(
    kitchen: Kitchen, namespace: Path, disks: Sequence[str], nics: Sequence[str], memory: int
) -> list[str]:
    words = [
        "/linux",
        f"mem={memory}M",
        "uml_dir=/uml/",
        "umid=test",
        "seccomp=off",
        *BOOT,
        "vec0:transport=tap,ifname=agent0,mac=02:48:59:50:00:01,depth=128,gro=1",
    ]
    words += [f"ubd{number}d=/disks/{name}" for number, name in enumerate(disks, 1)]
    words += [
        f"vec{number}:transport=tap,ifname=nic{number - 1},mac={mac},depth=128,gro=1"
        for number, mac in enumerate(nics, 1)
    ]
    return [
        "unshare", "--mount", "nsenter", f"--net={namespace}", "sh", "-c",
        f'mount -t tmpfs -o mode=1777 shm "{kitchen.root}/dev/shm" && '
        f'mount -t tmpfs -o mode=1777 uml "{kitchen.root}/uml" && '
        f'exec setarch -R chroot "{kitchen.root}" "$@"', "sh", *words,
    ]  # fmt: skip


@contextmanager
def _served(kitchen: Kitchen, share: Path | None) -> Iterator[list[str]]:
    """Serve a folder of the host as the guest's share; gives UML's words for it."""
    if share is None:
        yield []
        return
    socket = kitchen.root / "run" / "fs.sock"
    socket.unlink(missing_ok=True)
    root = kitchen.virtiofsd
    words = ["--socket-path=/run/fs.sock", "--shared-dir=/share", f"--tag={SHARE_TAG}",
             "--sandbox=none", "--seccomp=none", "--modcaps=-mknod", "--cache=auto", "--xattr",
             "--inode-file-handles=never", "--rlimit-nofile=0", "--log-level=error"]  # fmt: skip
    server = subprocess.Popen([
        "unshare", "--mount", "sh", "-c",
        f'mount --bind "{share}" "{root}/share" && mount --bind "{kitchen.root}/run" "{root}/run"'
        f' && mount -t proc proc "{root}/proc" && exec chroot "{root}" /virtiofsd "$@"',
        "sh", *words,
    ])  # fmt: skip
    try:
        bound = time.monotonic() + BOOT_BOUND
        while not socket.exists():
            assert server.poll() is None, "virtiofsd has ended"
            assert time.monotonic() < bound, "virtiofsd does not listen"
            time.sleep(0.01)
        yield [f"virtio_uml.device=/run/fs.sock:{VIRTIO_ID_FS}"]
    finally:
        server.kill()
        server.wait()
        socket.unlink(missing_ok=True)
        socket.touch()


@asynccontextmanager
async def machine(
    kitchen: Kitchen,
    path: Path,
    *,
    layers: Sequence[str],
    disks: Sequence[str] = (),
    nics: Sequence[str] = (),
    memory: int = 512,
    share: Path | None = None,
) -> AsyncIterator[Machine]:
    """Boot a guest and connect to its agent; end it afterwards."""
    namespace = path / "net"
    netns.create(namespace)
    console = path / "console"
    with ExitStack() as stack:
        stack.callback(netns.delete, namespace)
        _taps(namespace, nics)
        words = stack.enter_context(_served(kitchen, share))
        with console.open("wb") as log:
            process = subprocess.Popen(
                [*_argv(kitchen, namespace, disks, nics, memory), *words],
                env={"HOME": "/", "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        try:
            client = await AgentClient.connect(namespace, deadline=BOOT_BOUND)
        except BaseException:
            print(console.read_text(errors="replace")[-4000:])
            raise
        made = Machine(
            client=client,
            layers=tuple(layers),
            namespace=namespace,
            disks=tuple(kitchen.root / "disks" / name for name in disks),
        )
        client.on_event = made.note
        setup = messages.Setup(
            clock_ns=time.time_ns(),
            entropy=os.urandom(64),
            hostname="guest",
            share_tag=SHARE_TAG if share else "",
        )
        await client.call(Op.SETUP, setup)
        try:
            yield made
            await client.call(Op.POWEROFF, messages.Empty())
            await asyncio.to_thread(process.wait, 20)
        except BaseException:
            print(console.read_text(errors="replace")[-4000:])
            raise
        finally:
            await client.close()


__all__ = ["Kitchen", "Machine", "Mount", "Ran", "machine"]
