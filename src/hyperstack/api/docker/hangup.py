"""Tells a peer that is gone from one that only closed its sending side.

Both look like end of file to a reader. On a unix socket the kernel reports EPOLLHUP once the peer
has closed altogether (unix(7), af_unix.c's unix_poll), and epoll reports that whether asked or not:
so sockets are kept here with an empty interest, in an epoll of their own that the loop watches.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable


class HangupWatch:
    """Calls back once when the peer of a watched socket has closed both directions."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Watch a socket until it hangs up or ``forget`` is called."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, 0)

    def forget(self, fd: int) -> None:
        """Stop watching; nothing happens if the socket is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0, 64):
            callback = self._callbacks.get(fd)
            self.forget(fd)
            if callback is not None:
                callback()

    def close(self) -> None:
        """Stop watching anything; may be called twice."""
        if self._epoll.closed:
            return
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()
