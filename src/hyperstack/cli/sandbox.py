"""``hyper sandbox``: a guest by hand, without the daemon; and a look at the daemon's guests.

``run`` boots a sandbox as the engine does, with a root of its own and no network, runs one command
in it and shows what it says: the shortest way to see whether kit, jail, driver and agent work.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import json
import os
import socket
import sys
import tarfile
import tempfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from hyperstack.config import Config, MiB
from hyperstack.errors import HyperError, InvalidParameter, Unavailable
from hyperstack.guest import caps, messages
from hyperstack.guest.client import AgentFailure

if TYPE_CHECKING:
    from hyperstack.engine.sandbox import Sandbox

BUSYBOX = Path("/bin/busybox")
STDOUT, STDERR = 2, 3


def main(options: argparse.Namespace) -> int:
    """Do what ``hyper sandbox`` was asked for; return the exit status."""
    if options.sandbox_verb == "run":
        return asyncio.run(_run(options))
    if options.sandbox_verb == "list":
        return _list(options.host)
    return _console(options.host, options.sandbox)


class _Connection(http.client.HTTPConnection):
    """HTTP over the daemon's unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("hyper", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(host: str, path: str) -> bytes:
    """Return the daemon's answer. Raises HyperError in one sentence."""
    scheme, _, address = host.partition("://")
    if scheme != "unix":
        raise InvalidParameter(f"{host}: give the daemon's unix socket as unix:///path")
    connection = _Connection(address)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(1 << 24)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"no daemon answers on {host}: {error}; is hyperd running?") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise HyperError(json.loads(body).get("message", f"the daemon says {answer.status}"))
    return body


def _list(host: str) -> int:
    rows = [("SANDBOX", "RUNTIME", "PID", "UID", "MEMORY", "KERNEL", "CONTAINERS")]
    for found in json.loads(_ask(host, "/hyper/sandboxes")):
        memory = f"{found['Memory'] // MiB} MiB"
        names = ", ".join(found["Containers"])
        ids = (found["Id"][:12], found["Runtime"], str(found["Pid"]), str(found["Uid"]))
        rows.append((*ids, memory, found["Kernel"], names))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("   ".join(cells).rstrip() + "\n")
    return 0


def _console(host: str, reference: str) -> int:
    name = urllib.parse.quote(reference, safe="")
    sys.stdout.write(_ask(host, f"/hyper/sandboxes/{name}/console").decode() + "\n")
    return 0


def _default_root() -> bytes:
    """Return a root with the host's static busybox as a tar."""
    if not BUSYBOX.exists():
        raise HyperError(
            "there is no /bin/busybox on this host: install busybox-static or give --rootfs a tar"
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "root"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX.resolve(), "bin/busybox")
        for name in ("sh", "ls", "cat", "uname", "ps", "mount", "id", "df", "free", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "/bin/busybox", 0o777
            tar.addfile(link)
    return buffer.getvalue()


async def _run(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise InvalidParameter("no command: hyper sandbox run -- uname -a")
    with tempfile.TemporaryDirectory(prefix="hyper-") as folder:
        root = Path(folder)
        root.chmod(0o711)
        config = Config(
            data_root=root / "data",
            exec_root=root / "exec",
            kit_dir=options.kit_dir,
            allow_uml_fast=True,
        )
        rootfs = options.rootfs
        if rootfs is None:
            rootfs = root / "rootfs.tar"
            rootfs.write_bytes(_default_root())
        return await _boot(config, rootfs, options, command)


async def _boot(
    config: Config, rootfs: Path, options: argparse.Namespace, command: list[str]
) -> int:
    from hyperstack.engine.disks import copy_sparse
    from hyperstack.engine.sandbox import Sandboxes, SandboxPlan, layer_name
    from hyperstack.guest.kit import Kit
    from hyperstack.image.layer import LayerStore
    from hyperstack.network.sandbox import SandboxNetwork
    from hyperstack.platform.cgroup import Cgroups
    from hyperstack.platform.process import become_subreaper
    from hyperstack.platform.tasks import Tasks
    from hyperstack.store.database import Database
    from hyperstack.vmm import choose_default, drivers
    from hyperstack.vmm.base import Runtime

    for made in (config.data_root, config.exec_root):
        made.mkdir(mode=0o711)
    become_subreaper()
    kit, tasks = Kit.load(config.kit), Tasks()
    layers = LayerStore(config, kit, config.data_root / "layers")
    layer = layers.path((await layers.apply(None, rootfs)).diff_id)
    disk = config.data_root / "disk.img"
    await asyncio.to_thread(copy_sparse, kit.ext4_template, disk)
    machines = drivers(config, kit)
    runtime = (await choose_default(config, machines)).runtime
    if options.runtime not in ("", "hyper"):
        if options.runtime not in set(Runtime):
            raise InvalidParameter(f"unknown or invalid runtime name: {options.runtime}")
        runtime = Runtime(options.runtime)
    db = Database(config.data_root / "hyper.db")
    sandboxes = Sandboxes(
        config, db, kit, machines, SandboxNetwork(config), Cgroups.detect(), tasks
    )
    plan = SandboxPlan(
        runtime=runtime,
        memory=options.memory * MiB,
        hostname="hyper",
        layers=(layer,),
        disks=(("scratch", disk),),
    )
    try:
        sandbox = await sandboxes.boot(sandboxes.new_row(plan), plan)
        try:
            source = messages.Root(
                layers=(sandbox.machine.layer(layer_name(layer)),),
                disk=sandbox.machine.disk("scratch"),
            )
            return await _command(sandbox, source, command)
        finally:
            await sandboxes.end(sandbox, clean=True)
    finally:
        await tasks.aclose()
        db.close()


async def _command(sandbox: Sandbox, root: messages.Root, command: list[str]) -> int:
    from hyperstack.engine.spec import ALL_NEW, DEFAULT_PATH

    assert sandbox.agent is not None
    ended: asyncio.Future[messages.ProcessState] = asyncio.get_running_loop().create_future()

    def on_event(kind: messages.EventKind, message: messages.ProcessState) -> None:
        if kind == messages.EventKind.EXIT and not ended.done():
            ended.set_result(message)

    sandbox.on_event = on_event
    process = messages.Process(
        handle=sandbox.next_handle(),
        argv=tuple(command),
        env=(f"PATH={DEFAULT_PATH}",),
        cwd="/",
        stdout=STDOUT,
        stderr=STDERR,
        cap_bounding=caps.DEFAULT_CAPS,
        cap_effective=caps.DEFAULT_CAPS,
        cap_permitted=caps.DEFAULT_CAPS,
    )
    container = messages.Container(
        id="0" * 64,
        root=root,
        hostname="hyper",
        namespaces=int(ALL_NEW),
        process=process,
        shm_size=16 * MiB,
    )
    try:
        await sandbox.call(messages.Op.CONTAINER_START, container)
    except AgentFailure as failure:
        raise HyperError(f"the command can't be run: {failure.detail}") from failure

    async def show(stream: int, target: int) -> None:
        assert sandbox.agent is not None
        output = sandbox.agent.open_output(stream)
        async for offset, data in output:
            os.write(target, data)
            output.take(offset + len(data))

    await asyncio.gather(show(STDOUT, sys.stdout.fileno()), show(STDERR, sys.stderr.fileno()))
    return (await ended).code
