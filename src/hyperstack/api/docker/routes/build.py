"""``POST /build``: the classic builder, its output as the JSON lines that clients print."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from hyperstack.api.docker import gojson
from hyperstack.api.docker.closing import closing
from hyperstack.api.docker.progress import line
from hyperstack.api.docker.request import Request, Stream
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema.build import read_options
from hyperstack.build.options import Output, StepFailed
from hyperstack.errors import HyperError

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

log = logging.getLogger(__name__)

AUX_SINCE = "1.30"


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("POST", "/build", build, waits=True)


async def build(request: Request, engine: Engine) -> None:
    """``POST /build``"""
    options = read_options(request.query, request.head.headers.get("x-registry-config"))
    answer = _Answer(request, quiet=options.quiet)
    pieces = engine.builds.build(options, _context(request))
    async with closing(pieces):
        try:
            async for piece in pieces:
                await answer.put(piece)
        except HyperError as error:
            if not await answer.fail(error):
                raise
    await answer.end()


async def _context(request: Request) -> AsyncIterator[bytes]:
    """Yield the body; from its end on the build ends with its client."""
    async for data in request.stream():
        yield data
    request.connection.end_when_gone()


class _Answer:
    """The stream of JSON lines. A quiet build keeps its output until it has failed."""

    def __init__(self, request: Request, *, quiet: bool) -> None:
        self._request = request
        self._quiet = quiet
        self._kept: list[bytes] = []
        self._stream: Stream | None = None
        self._image = ""

    async def put(self, piece: Output) -> None:
        """Send one piece of output."""
        self._image = piece.built or self._image
        if (text := self._line(piece)) is None:
            return
        if self._quiet:
            self._kept.append(text)
        else:
            await self._write(text)

    def _line(self, piece: Output) -> bytes | None:
        if piece.progress is not None:
            return line(piece.progress)
        if piece.image:
            aux = {"aux": {"ID": piece.image}}
            return _encoded(aux) if self._request.at_least(AUX_SINCE) else None
        text = f"\x1b[91m{piece.text}\x1b[0m" if piece.stderr else piece.text
        return _encoded({"stream": text})

    async def _write(self, data: bytes) -> None:
        if self._stream is None:
            self._stream = await self._request.start()
        await self._stream.write(data)

    async def fail(self, error: HyperError) -> bool:
        """Say that it failed; False if nothing was sent yet, so that the status can say it."""
        for data in self._kept:
            await self._write(data)
        if self._stream is None:
            return False
        log.info("build: %s", error)
        detail: dict[str, Any] = {"message": error.message}
        if isinstance(error, StepFailed):
            detail = {"code": error.code, **detail}
        await self._write(_encoded({"errorDetail": detail, "error": error.message}))
        self._image = ""
        return True

    async def end(self) -> None:
        """Complete the answer."""
        if self._quiet and self._image:
            await self._write(_encoded({"stream": f"{self._image}\n"}))
        if self._stream is None:
            self._stream = await self._request.start()
        await self._stream.end()


def _encoded(value: dict[str, Any]) -> bytes:
    return gojson.encode(value).rstrip(b"\n") + b"\r\n"
