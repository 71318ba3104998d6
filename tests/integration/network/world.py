"""A small world of network namespaces: the daemon's host, an outside, guests behind real taps.

The daemon's part runs on an event loop whose thread lives in the host's namespace. A guest is a
namespace whose only NIC is a tap of its own; a pump moves frames between it and the tap that the
daemon made for its VMM, so what the guest's kernel sends takes exactly the way of a VM's frames,
with offloads.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hyperstack.config import Config
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId, new_id
from hyperstack.network.manager import Attachment, NetworkManager
from hyperstack.network.rows import Endpoint, Network
from hyperstack.network.sandbox import SandboxNetwork
from hyperstack.platform import netns
from hyperstack.store.database import Database

T = TypeVar("T")

UID = 700_123
OUTSIDE = "192.0.2.2"
HOST = "192.0.2.1"
OUTSIDE6 = "2001:db8::2"
HOST6 = "2001:db8::1"
TIMEOUT = 10.0
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TAP = 0x0002 | 0x1000 | 0x4000
_OFFLOADS = 0x01 | 0x02 | 0x04


def shell(path: Path, script: str) -> str:
    """Run a script in a namespace; fail with what it said."""
    done = subprocess.run(
        ["nsenter", f"--net={path}", "--", "sh", "-ec", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def open_tap(name: str, offloads: int = _OFFLOADS) -> int:
    """Attach to a tap in the calling thread's namespace, as a VMM does."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, offloads)
    return fd


class Guest:
    """A guest's kernel behind the tap of an endpoint."""

    def __init__(self, world: World, endpoint: Endpoint, network: Network) -> None:
        self.endpoint = endpoint
        self.path = world.namespace(f"guest-{endpoint.id[:8]}")
        sandbox = world.sandboxes.path(endpoint.sandbox)
        self._outer = netns.in_netns(sandbox, lambda: open_tap(endpoint.tap))
        self._inner = netns.in_netns(self.path, lambda: open_tap("eth0"))
        self._stop, self._stopped = os.pipe()
        self._threads = [
            threading.Thread(target=self._pump, args=pair, daemon=True)
            for pair in ((self._outer, self._inner), (self._inner, self._outer))
        ]
        for thread in self._threads:
            thread.start()
        lines = [f"ip link set eth0 address {endpoint.mac} mtu 1500 up", "ip link set lo up"]
        for address, pool in ((endpoint.ipv4, network.pool(4)), (endpoint.ipv6, network.pool(6))):
            if address and pool is not None:
                prefix = pool.subnet.partition("/")[2]
                lines.append(f"ip addr add {address}/{prefix} dev eth0 nodad || true")
                lines.append(f"ip route add default via {pool.gateway}")
        if not endpoint.ipv6:
            lines.insert(0, "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
        shell(self.path, "\n".join(lines))

    def _pump(self, source: int, target: int) -> None:
        import select

        while True:
            ready, _, _ = select.select([source, self._stop], [], [])
            if self._stop in ready:
                return
            with contextlib.suppress(OSError):
                os.write(target, os.read(source, 70_000))

    def send_raw(self, frame: bytes) -> None:
        """Send a frame as a hostile guest would, past its kernel."""
        os.write(self._outer, b"\0" * 10 + frame)

    def run(self, work: Callable[[], T]) -> T:
        """Run *work* in the guest."""
        return netns.in_netns(self.path, work)

    def close(self) -> None:
        os.write(self._stopped, b"x")
        for thread in self._threads:
            thread.join()
        for fd in (self._outer, self._inner, self._stop, self._stopped):
            os.close(fd)


class Server:
    """A TCP or UDP server in a namespace that says its name and who asked."""

    def __init__(self, path: Path, address: str, port: int, name: str, udp: bool = False) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self.socket = netns.socket_in(path, family, kind)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((address, port))
        self._name, self._udp = name, udp
        if not udp:
            self.socket.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self._udp:
                    _, peer = self.socket.recvfrom(4096)
                    if not peer:
                        return  # shut down
                    self.socket.sendto(f"{self._name} {peer[0]}".encode(), peer)
                else:
                    connection, peer = self.socket.accept()
                    with connection:
                        connection.sendall(f"{self._name} {peer[0]}".encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._thread.join(5)


def ask(path: Path, address: str, port: int, *, udp: bool = False, timeout: float = 3.0) -> str:
    """Connect from a namespace and return what the server says. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = netns.socket_in(path, family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    with sock:
        sock.settimeout(timeout)
        sock.connect((address, port))
        if udp:
            sock.send(b"?")
        text = sock.recv(4096).decode()
        if not udp and not text:
            raise ConnectionError("closed without a word")
        return text


@dataclass
class Held:
    """A container's part of the network: endpoint and guest."""

    endpoint: Endpoint
    guest: Guest


class World:
    """The daemon's host, an outside of it, and whatever guests a test makes."""

    def __init__(self, root: Path, *, resolv: str = "", **config: Any) -> None:
        self._root = root
        self._stack = contextlib.ExitStack()
        (root / "data").mkdir(exist_ok=True)
        (root / "run").mkdir(exist_ok=True)
        self.config = Config(data_root=root / "data", exec_root=root / "run", **config)
        self.host = self.namespace("host")
        self.outside = self.namespace("outside")
        self._connect()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self.db: Database | None = None
        self.held: list[Held] = []
        self.start()

    def namespace(self, name: str) -> Path:
        """Make a namespace that ends with the world."""
        path = self._root / "ns" / name
        netns.create(path)
        self._stack.callback(netns.delete, path)
        shell(path, "ip link set lo up")
        return path

    def _connect(self) -> None:
        # A new namespace takes over from the machine whether it routes (ip-sysctl.rst,
        # devconf_inherit_init_net): the host of this world routes for nobody yet.
        shell(
            self.host,
            f"""
            echo 0 > /proc/sys/net/ipv4/ip_forward
            ip link add eth0 type veth peer name eth1
            ip addr add {HOST}/24 dev eth0; ip -6 addr add {HOST6}/64 dev eth0 nodad
            ip link set eth0 up
            """,
        )
        self.move("eth1", self.outside)
        shell(
            self.outside,
            f"""
            ip addr add {OUTSIDE}/24 dev eth1; ip -6 addr add {OUTSIDE6}/64 dev eth1 nodad
            ip link set eth1 up
            """,
        )
        shell(self.host, f"ip route add default via {OUTSIDE}")

    def move(self, link: str, path: Path) -> None:
        """Move an interface of the host into another namespace."""
        with path.open() as file:
            name = f"/proc/self/fd/{file.fileno()}"
            subprocess.run(
                ["nsenter", f"--net={self.host}", "--", "ip", "link", "set", link, "netns", name],
                check=True,
                pass_fds=[file.fileno()],
            )

    def _live(self) -> None:
        with self.host.open() as file:
            if netns._libc.setns(file.fileno(), netns.CLONE_NEWNET):
                raise OSError("setns")
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Run a coroutine where the daemon lives."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout)

    def start(self) -> None:
        """Start a daemon's networks."""
        self.run(self._start())

    async def _start(self) -> None:
        self.db = Database(self.config.data_root / "hyper.db")
        self.events = EventBus()
        self.sandboxes = SandboxNetwork(self.config)
        self.manager = NetworkManager(self.config, self.db, self.sandboxes, self.events)
        await self.manager.start()

    def stop(self) -> None:
        """Stop the daemon's part, as SIGTERM would; what it made stays."""
        self.run(self.manager.close())
        assert self.db is not None
        self.db.close()

    def crash(self) -> None:
        """Lose the daemon, as kill -9 would: nothing is said goodbye to."""
        self.run(self._forget())

    async def _forget(self) -> None:
        self.manager._table.unwatch()
        for bound in self.manager.publisher._sockets.values():
            for _, sock in bound:
                sock.close()
        assert self.db is not None
        self.db.close()

    def plug(self, network: str = "bridge", **wish: Any) -> Held:
        """Make a sandbox, attach it and put a guest behind its tap."""
        found = self.manager.get(network)
        sandbox = new_id()
        endpoint = self.run(self._attach(found, sandbox, wish))
        held = Held(endpoint=endpoint, guest=Guest(self, endpoint, found))
        self.held.append(held)
        return held

    async def _attach(self, network: Network, sandbox: str, wish: dict[str, Any]) -> Endpoint:
        container = ContainerId(wish.pop("container", new_id()))
        await self.sandboxes.prepare(sandbox, UID)
        attachment = Attachment(
            network=network,
            container=container,
            container_name=wish.pop("name", "web"),
            sandbox=sandbox,
            uid=UID,
            **wish,
        )
        try:
            endpoint = await self.manager.attach(attachment)
        except BaseException:
            await self.sandboxes.release(sandbox)
            raise
        await self.manager.publish(container, UID)
        return endpoint

    def unplug(self, held: Held) -> None:
        """End a container and its sandbox."""
        self.held.remove(held)
        self.run(self.manager.detach(held.endpoint.container))
        held.guest.close()
        self.run(self.sandboxes.release(held.endpoint.sandbox))

    def close(self) -> None:
        for held in list(self.held):
            self.unplug(held)
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._stack.close()
