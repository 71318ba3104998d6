"""What building needs of the engine: containers for RUN, and roots of images to copy into.

The engine implements it (``engine/workbench.py``): a build never sees a sandbox.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from hyperstack.model import ContainerConfig, HostConfig, PathStat, StreamKind, WaitResult

Sink = Callable[[StreamKind, bytes], Awaitable[None]]


class Closing(Protocol):
    """A tar as it flows out of a guest: exhausted or closed, never neither."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the tar in pieces."""

    async def __anext__(self) -> bytes:
        """Return the next piece."""

    async def aclose(self) -> None:
        """Stop it."""


class Root(Protocol):
    """The root file system of an image in a guest, with a writable layer on top."""

    async def stat(self, path: str) -> PathStat | None:
        """Describe a path, the last link not followed; None if nothing is there."""

    async def get(self, path: str) -> Closing:
        """Return a path as a tar whose names begin with its last component."""

    async def put(self, path: str, body: AsyncIterator[bytes]) -> None:
        """Unpack a plain tar in a directory."""

    async def owner(self, name: str, *, group: bool) -> int:
        """Return the number that a user or group has in the root's own files.

        Raises InvalidParameter, "no such user: ...".
        """

    async def diff(self) -> Closing:
        """Return what was changed since the last time, as a layer."""


class Bench(Protocol):
    """The engine's side of building."""

    async def create(
        self, image: str, config: ContainerConfig, host: HostConfig, *, passing: bool = False
    ) -> tuple[str, list[str]]:
        """Make a container of an image (full id); return its id and warnings.

        *passing*: it is gone soon, and goes with the daemon if that is killed before.
        """

    async def run(self, container: str, sink: Sink, layer: Path) -> WaitResult:
        """Run it to its end, its output going to *sink*; if it ends with 0, write what it changed
        to the file *layer*. Cancelled, it kills the container."""

    async def remove(self, container: str) -> None:
        """Remove it with its anonymous volumes, running or not."""

    def root(self, image: str) -> AbstractAsyncContextManager[Root]:
        """Give the root of an image (full id; empty: nothing at all) while the block runs."""
