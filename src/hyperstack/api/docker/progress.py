"""Progress of pull, push, load and import as JSON lines, with the bars that old clients print.

As moby's ``pkg/streamformatter`` and ``pkg/jsonmessage``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from hyperstack.api.docker import gojson
from hyperstack.api.docker.closing import closing
from hyperstack.api.docker.gotime import human_size
from hyperstack.api.docker.request import Request, Stream
from hyperstack.errors import HyperError
from hyperstack.image.progress import Progress

log = logging.getLogger(__name__)

_PLAIN = ("Pulling from ", "Digest: ", "Status: ", "The push refers to ")
"""Lines that Docker sends as messages, without ``progressDetail``."""


def bar(current: int, total: int) -> str:
    """Return the text of a progress bar; empty if nothing is known."""
    if current <= 0 and total <= 0:
        return ""
    shown = human_size(current)
    if total <= 0:
        return f"{shown:>8}"
    filled = min(int(current / total * 100) // 2, 50)
    numbers = f"{shown:>8}" + (f"/{human_size(total)}" if current <= total else "")
    return f"[{'=' * filled}>{' ' * (50 - filled)}] {numbers}"


def line(progress: Progress) -> bytes:
    """Return one line of the stream."""
    made: dict[str, Any] = {}
    if progress.stream:
        made["stream"] = progress.stream
    if progress.status:
        made["status"] = progress.status
    if not progress.stream and (progress.aux or _has_detail(progress)):
        detail = {}
        if progress.current > 0:
            detail["current"] = progress.current
        if progress.total > 0:
            detail["total"] = progress.total
        made["progressDetail"] = detail
        if text := bar(progress.current, progress.total):
            made["progress"] = text
    if progress.id:
        made["id"] = progress.id
    if progress.aux is not None:
        made["aux"] = dict(progress.aux)
    return gojson.encode(made).rstrip(b"\n") + b"\r\n"


def _has_detail(progress: Progress) -> bool:
    counted = bool(progress.current or progress.total)
    return counted or bool(progress.id and not progress.status.startswith(_PLAIN))


def error_line(message: str) -> bytes:
    """Return the line by which a stream under way says that it failed."""
    made = {"errorDetail": {"message": message}, "error": message}
    return gojson.encode(made).rstrip(b"\n") + b"\r\n"


async def send(
    request: Request,
    steps: AsyncIterator[Progress],
    *,
    silent: bool = False,
    started: bool = False,
) -> None:
    """Answer with progress lines. A failure before the first is a plain error, unless *started*.

    Raises HyperError only if nothing was sent; *silent* drops all but the last word.
    """
    stream: Stream | None = await request.start() if started else None
    try:
        async with closing(steps):
            async for step in steps:
                if stream is None:
                    stream = await request.start()
                if not silent or step.stream or step.aux:
                    await stream.write(line(step))
    except HyperError as error:
        if stream is None:
            raise
        log.info("%s: %s", request.head.target.partition("?")[0], error)
        await stream.write(error_line(error.message))
    if stream is None:
        stream = await request.start()
    await stream.end()
