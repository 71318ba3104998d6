"""How much volumes hold, counted as dockerd counts: what files are long, each once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

AT_ONCE = 2
"""Trees that are walked at the same time: whoever fills them must not take all threads."""


async def sizes(paths: Sequence[Path]) -> list[int]:
    """Return the bytes of each tree, in the order of *paths*."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(path: Path) -> int:
        async with room:
            return await asyncio.to_thread(size, path)

    return await asyncio.gather(*map(one, paths))


def size(path: Path) -> int:
    """Add up the lengths of a tree's files; blocking.

    A file with several names counts once, a folder nothing, and nothing what vanishes meanwhile.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    stack = [str(path)]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                        continue
                    found = entry.stat(follow_symlinks=False)
                    same = (found.st_dev, found.st_ino)
                    if found.st_nlink > 1 and same in seen:
                        continue
                    if found.st_nlink > 1:
                        seen.add(same)
                    total += found.st_size
        except OSError:
            continue
    return total
