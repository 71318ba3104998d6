"""Keeps the table of rules in the kernel: one writer, and a look-out for those who remove it.

Firewall managers flush what they don't know. The kernel tells every listener of a removed table
(nfnetlink group NFNLGRP_NFTABLES); the daemon then writes its own again, and connections that
were translated go on, since conntrack remembers them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable

from hyperstack.errors import HyperError
from hyperstack.network import firewall, nftables
from hyperstack.network.firewall import Policy, Published

log = logging.getLogger(__name__)

SETTLE = 0.2
"""Seconds after a removal before the table is looked for: its remover may not be done."""
_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_DELTABLE = 10 << 8 | 2
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE"""


class Table:
    """The table ``inet hyper``. *policy* gives all of it as it should be at that moment."""

    def __init__(self, policy: Callable[[], Policy]) -> None:
        self._policy = policy
        self._lock = asyncio.Lock()
        self._monitor: socket.socket | None = None
        self._restoring: asyncio.Task[None] | None = None

    async def write(self) -> None:
        """Write the whole table, in one transaction. Raises HyperError."""
        async with self._lock:
            await asyncio.to_thread(nftables.run, firewall.table(self._policy()))

    async def open(self, published: tuple[Published, ...]) -> None:
        """Open ports that the policy has. Raises HyperError."""
        text = firewall.publish(published)
        if not text:
            return
        async with self._lock:
            try:
                await asyncio.to_thread(nftables.run, text)
            except nftables.NftablesError as error:
                log.warning("the table of rules is written anew: %s", error)
                await asyncio.to_thread(nftables.run, firewall.table(self._policy()))

    async def close(self, published: tuple[Published, ...]) -> None:
        """Close ports that the policy no longer has. Raises HyperError."""
        text = firewall.withdraw(published)
        if not text:
            return
        async with self._lock:
            try:
                await asyncio.to_thread(nftables.run, text)
            except nftables.NftablesError:
                # One of them is gone already, so nothing was done: say how all of it should be.
                await asyncio.to_thread(nftables.run, firewall.table(self._policy()))

    def watch(self) -> None:
        """Write the table again whenever somebody removes it, until ``unwatch``."""
        if self._monitor is not None:
            return
        monitor = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        try:
            monitor.setblocking(False)
            monitor.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        except OSError as error:
            monitor.close()
            log.warning("nobody tells when the firewall is reloaded: %s", error.strerror)
            return
        self._monitor = monitor
        asyncio.get_running_loop().add_reader(monitor, self._heard)

    def unwatch(self) -> None:
        """Stop watching; the table stays."""
        if self._restoring is not None:
            self._restoring.cancel()
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor)
            self._monitor.close()
            self._monitor = None

    def _heard(self) -> None:
        assert self._monitor is not None
        try:
            data = self._monitor.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # ENOBUFS: more was said than we heard, so look
        if data and not removes_ours(data):
            return
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.get_running_loop().create_task(self._restore())

    async def _restore(self) -> None:
        await asyncio.sleep(SETTLE)
        with contextlib.suppress(HyperError):
            async with self._lock:
                await asyncio.to_thread(nftables.run, firewall.present())
            return
        try:
            await self.write()
            log.warning("somebody had removed the table of rules; it is there again")
        except HyperError as error:
            log.error("the table of rules was removed and can't be written: %s", error)


def removes_ours(data: bytes) -> bool:
    """Tell whether a netlink notification says that our table is gone."""
    offset = 0
    while offset + 16 <= len(data):
        size, kind = struct.unpack_from("IH", data, offset)
        if size < 16:
            return False
        name = firewall.TABLE.encode() + b"\0"
        if kind == _DELTABLE and name in data[offset + 16 : offset + size]:
            return True
        offset += (size + 3) & ~3
    return False
