"""A sandbox's network namespace with the agent's private tap: the part without any container.

The namespace lives as a file named after the sandbox, holds no address but that of the private
link, forwards nothing, and knows no IPv6. Preparing one takes a millisecond or two and depends on
nothing but an id and a uid, so it can be done ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass
from ipaddress import IPv4Interface, ip_address
from pathlib import Path

from hyperstack.config import Config
from hyperstack.errors import HyperError, InternalError
from hyperstack.guest.messages import GUEST_ADDRESS, HOST_ADDRESS, PREFIX
from hyperstack.network import guard, nftables, sysctl, taps
from hyperstack.network.rtnetlink import Rtnetlink, address_add, link_set, neighbour_add
from hyperstack.platform import netns
from hyperstack.vmm.base import AGENT_MAC, AGENT_PEER_MAC, Tap

log = logging.getLogger(__name__)

AGENT_TAP = "agent0"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network namespace that waits for a machine."""

    netns: Path
    agent_tap: Tap


class SandboxNetwork:
    """Makes, finds and removes the network namespaces of sandboxes."""

    def __init__(self, config: Config) -> None:
        self._folder = config.exec_root / "netns"

    def path(self, sandbox: str) -> Path:
        """Return the file as which a sandbox's namespace lives."""
        return self._folder / sandbox[:16]

    async def prepare(self, sandbox: str, uid: int) -> Prepared:
        """Make the namespace and the agent's tap, which belongs to *uid*.

        Raises Unavailable with what to do if the host has no tun device, InternalError if the
        kernel refuses; nothing is left then.
        """
        made = asyncio.create_task(asyncio.to_thread(self._prepare, sandbox, uid))
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            # A thread can't be cancelled: what it makes is removed once it is done.
            await asyncio.shield(self._abandon(made, sandbox))
            raise

    async def _abandon(self, made: asyncio.Task[Prepared], sandbox: str) -> None:
        await asyncio.gather(made, return_exceptions=True)
        await self.release(sandbox)

    def _prepare(self, sandbox: str, uid: int) -> Prepared:
        path = self.path(sandbox)
        netns.create(path)
        try:
            netns.in_netns(path, lambda: _furnish(uid))
        except OSError as error:
            netns.delete(path)
            raise InternalError(f"the agent's link can't be made: {error.strerror}") from error
        except BaseException:
            netns.delete(path)
            raise
        return Prepared(netns=path, agent_tap=Tap(name=AGENT_TAP, mac=AGENT_MAC))

    async def release(self, sandbox: str) -> None:
        """Let go of a sandbox's namespace and all in it; nothing happens if there is none."""
        await asyncio.to_thread(netns.delete, self.path(sandbox))

    async def sweep(self) -> int:
        """Remove namespaces that no process is in (an earlier daemon's); return how many."""
        return await asyncio.to_thread(self._sweep)

    def _sweep(self) -> int:
        files = list(self._folder.iterdir()) if self._folder.is_dir() else []
        used = _namespaces_in_use() if files else set()
        removed = 0
        for path in files:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino in used:
                    continue
            try:
                netns.delete(path)
                removed += 1
            except HyperError as error:
                log.warning("%s", error)
        return removed


def _furnish(uid: int) -> None:
    """Set up a new namespace from inside: no IPv6, no forwarding, the agent's link."""
    for name in ("default", "all"):
        sysctl.put(f"ipv6/conf/{name}/disable_ipv6", "1", optional=True)
    # A new namespace inherits the host's IPv4 settings (devconf_inherit_init_net).
    sysctl.put("ipv4/ip_forward", "0")
    # The daemon's closed connection to a dead guest would keep the namespace alive for minutes.
    sysctl.put("ipv4/tcp_orphan_retries", "1", optional=True)
    taps.make(AGENT_TAP, uid)
    nftables.run(guard.agent_text(AGENT_TAP))
    with Rtnetlink() as kernel:
        link = kernel.link(AGENT_TAP)
        if link is None:
            raise InternalError("the agent's tap has vanished")
        kernel.do(
            link_set(AGENT_TAP, up=True, mac=AGENT_PEER_MAC),
            address_add(link.index, IPv4Interface(f"{HOST_ADDRESS}/{PREFIX}")),
            neighbour_add(link.index, ip_address(GUEST_ADDRESS), AGENT_MAC),
        )


def _namespaces_in_use() -> set[int]:
    """Return the inodes of the network namespaces that processes are in."""
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(Path(f"/proc/{entry.name}/ns/net").stat().st_ino)
    return found
