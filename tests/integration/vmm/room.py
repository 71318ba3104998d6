"""A host's part around one machine: network namespace, folders, cgroup; and its guest's agent.

What the engine does for a sandbox, done for a driver alone, with the same parts.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hyperstack.config import Config
from hyperstack.guest import messages
from hyperstack.guest.client import AgentClient
from hyperstack.guest.kit import Kit
from hyperstack.guest.messages import Op
from hyperstack.ids import SandboxId, new_id
from hyperstack.network import taps
from hyperstack.network.rtnetlink import Rtnetlink, link_set
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.platform import netns
from hyperstack.platform.cgroup import CgroupLimits, Cgroups
from hyperstack.vmm.base import Disk, Driver, Machine, MachineSpec, Runtime, Tap
from tests.framework.images import busybox_tar
from tests.integration.agent import machine as agents

MiB = 1 << 20
SLOW = 20
"""How many times longer than others a machine in software emulation may take."""


@dataclass(frozen=True)
class Bench:
    """What all rooms of a session share: the kit and a layer with busybox."""

    config: Config
    kit: Kit
    layer: Disk

    @classmethod
    def make(cls, folder: Path, kit: Kit, config: Config) -> Bench:
        """Make the layer with the kit's mkfs.erofs; blocking."""
        return cls(config=config, kit=kit, layer=make_layer(folder, kit, "busybox", busybox_tar()))


def make_layer(folder: Path, kit: Kit, name: str, tar: bytes) -> Disk:
    """Turn a tar into an EROFS file, as a disk that all may read."""
    root = folder / "mkfs"
    if not root.exists():
        shutil.copytree(kit.mkfs_root, root, symlinks=True)
    (root / "in" / "tar").write_bytes(tar)
    subprocess.run(
        ["chroot", root, kit.mkfs_argv0, "--quiet", "--tar=f", "--sort=none", f"/out/{name}",
         "/in/tar"],
        check=True, timeout=60,
    )  # fmt: skip
    path = folder / f"{name}.erofs"
    (root / "out" / name).rename(path)
    path.chmod(0o444)
    return Disk(path=path, read_only=True, name=name)


def tar_of(**files: str) -> bytes:
    """Return a tar of small text files; ``__`` in a name stands for a slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


@dataclass
class Guest(agents.Machine):
    """A running guest: the agent's client and the machine under it."""

    machine: Machine = field(kw_only=True)
    room: Room = field(kw_only=True)

    def root(self, disk: int | None = None, read_only: bool = False) -> messages.Root:
        """Describe a root on this room's layer alone."""
        return self.root_on()

    def root_on(self, *layers: messages.Source, disk: str = "") -> messages.Root:
        """Describe a root on further layers above the room's, with a disk by name."""
        base = self.machine.layer(self.room.bench.layer.name)
        return messages.Root(layers=(*layers, base), disk=self.machine.disk(disk) if disk else None)

    async def sh(self, script: str, **more: Any) -> str:
        """Run a privileged shell script in a container; return its output, checked."""
        ran = await self.run("/bin/sh", "-c", script, privileged=True, **more)
        assert ran.code == 0, (script, ran)
        return ran.text

    async def ping(self, timeout: float = 10.0) -> None:
        """Ask the agent for nothing."""
        await self.client.call(Op.PING, messages.Empty(), timeout=timeout)


@dataclass
class Room:
    """One sandbox's place on the host."""

    bench: Bench
    driver: Driver
    uid: int
    id: SandboxId = field(default_factory=lambda: SandboxId(new_id()))
    cgroups: Cgroups = field(default_factory=Cgroups.detect)

    @property
    def sandbox_dir(self) -> Path:
        return self.bench.config.sandbox_dir(self.id)

    @property
    def run_dir(self) -> Path:
        return self.bench.config.sandbox_run_dir(self.id)

    @property
    def bound(self) -> float:
        """Seconds within which a guest answers."""
        return 15.0 * (SLOW if self.driver.runtime == Runtime.TCG else 1)

    async def enter(self) -> MachineSpec:
        """Prepare everything that a launch needs."""
        network = SandboxNetwork(self.bench.config)
        prepared = await network.prepare(self.id, self.uid)
        for folder in (self.sandbox_dir, self.run_dir):
            folder.mkdir(parents=True)
        return MachineSpec(
            id=self.id,
            uid=self.uid,
            memory=256 * MiB,
            cpus=1,
            kit=self.bench.kit.path,
            sandbox_dir=self.sandbox_dir,
            run_dir=self.run_dir,
            netns=prepared.netns,
            cgroups=self.cgroups.create(self.id, CgroupLimits()),
            agent_tap=prepared.agent_tap,
            layers=(self.bench.layer,),
        )

    async def leave(self) -> None:
        """Give everything back."""
        await self.cgroups.remove(self.id)
        await SandboxNetwork(self.bench.config).release(self.id)
        for folder in (self.sandbox_dir, self.run_dir):
            shutil.rmtree(folder, ignore_errors=True)

    def disk(self, name: str, size: int = 64 * MiB, *, read_only: bool = False) -> Disk:
        """Make an empty raw file as a disk."""
        path = self.sandbox_dir / f"{name}.img"
        with path.open("wb") as file:
            file.truncate(size)
        return Disk(path=path, read_only=read_only, name=name)

    def ext4(self, name: str) -> Disk:
        """Make a container's disk from the kit's template."""
        path = self.sandbox_dir / f"{name}.img"
        subprocess.run(
            ["cp", "--sparse=always", self.bench.kit.ext4_template, path], check=True, timeout=60
        )
        return Disk(path=path, read_only=False, name=name)

    def tap(self, name: str, mac: str) -> Tap:
        """Make a tap in the namespace."""
        path = SandboxNetwork(self.bench.config).path(self.id)

        def make() -> None:
            taps.make(name, self.uid)
            with Rtnetlink() as kernel:
                kernel.do(link_set(name, up=True))

        netns.in_netns(path, make)
        return Tap(name=name, mac=mac)

    @asynccontextmanager
    async def guest(self, spec: MachineSpec, *, share_tag: str = "") -> AsyncIterator[Guest]:
        """Launch a machine, wait for its agent, and kill it at the end."""
        machine = await self.driver.launch(spec)
        client = None
        try:
            guest = await self.connect(machine, spec.netns, share_tag)
            client = guest.client
            yield guest
        except BaseException:
            print(machine.console_tail())
            raise
        finally:
            if client is not None:
                await client.close()
            await machine.kill()
            await machine.close()

    async def connect(self, machine: Machine, namespace: Path, share_tag: str = "") -> Guest:
        """Wait for the agent's line, connect and set up."""
        async with asyncio.timeout(self.bound):
            await machine.console_ready()
        assert machine.alive(), machine.console_tail()
        client = await AgentClient.connect(namespace, deadline=self.bound)
        setup = messages.Setup(
            clock_ns=time.time_ns(), entropy=os.urandom(64), hostname="guest", share_tag=share_tag
        )
        await client.call(Op.SETUP, setup)
        made = Guest(client=client, layers=(), namespace=namespace, machine=machine, room=self)
        client.on_event = made.note
        return made


@asynccontextmanager
async def room(bench: Bench, driver: Driver, uid: int) -> AsyncIterator[tuple[Room, MachineSpec]]:
    """Give a room and the plainest machine in it, and see that nothing stays behind."""
    made = Room(bench=bench, driver=driver, uid=uid)
    try:
        yield made, await made.enter()
    finally:
        await made.leave()
    assert not processes_of(uid), "processes were left behind"
    mounts = Path("/proc/self/mountinfo").read_text()
    assert made.id[:16] not in mounts, "mounts were left behind"


def processes_of(uid: int, name: str = "") -> list[int]:
    """Return the processes that run as *uid* and whose name begins with *name*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "status").read_text()
            except OSError:
                continue
            mine = f"\nUid:\t{uid}\t" in status and status.startswith(f"Name:\t{name}")
            if mine and "\nState:\tZ" not in status:
                found.append(int(entry.name))
    return found


__all__ = ["Bench", "Guest", "Room", "make_layer", "processes_of", "replace", "room", "tar_of"]
