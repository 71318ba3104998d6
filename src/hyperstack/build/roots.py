"""Guests that are kept between steps: one to copy into, one to copy from.

A guest takes longer to boot than most files take to copy. What was copied into it lies on top of
the image that it was booted with, so it goes on as the root of the image that the step made.
"""

from __future__ import annotations

import contextlib

from hyperstack.build.bench import Bench, Root


class _Kept:
    """A root of one image, if there is any."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._stack = contextlib.AsyncExitStack()
        self._root: Root | None = None
        self.image = ""

    async def of(self, image: str) -> Root:
        """Return the root of an image (full id; empty: nothing at all)."""
        if self._root is None or self.image != image:
            await self.close()
            self._root = await self._stack.enter_async_context(self._bench.root(image))
            self.image = image
        return self._root

    async def close(self) -> None:
        """End the guest."""
        self._root = None
        await self._stack.aclose()


class Roots:
    """What one build keeps. Ends with ``close``."""

    def __init__(self, bench: Bench) -> None:
        self._target = _Kept(bench)
        self._source = _Kept(bench)

    async def target(self, image: str) -> Root:
        """Return the root of a stage's image, to write to."""
        return await self._target.of(image)

    def moved(self, old: str, new: str) -> None:
        """Take note that *new* is *old* and what was written to its root."""
        if self._target.image == old:
            self._target.image = new

    async def source(self, image: str) -> Root:
        """Return the root of an image, to read from."""
        return await self._source.of(image)

    async def close(self) -> None:
        """End the guests, until they are wanted again."""
        try:
            await self._target.close()
        finally:
            await self._source.close()
