"""Running pulls and pushes to their end, and what they said without the bars."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from hyperstack.image.progress import Progress

BARS = ("Downloading", "Extracting", "Pushing")


async def said(lines: AsyncGenerator[Progress, None]) -> list[tuple[str, str]]:
    """Return id and status of every state, in order; bars are left out."""
    return [(x.id, x.status) async for x in lines if x.status not in BARS and not x.aux]


async def everything(lines: AsyncGenerator[Progress, None]) -> list[Progress]:
    return [line async for line in lines]
