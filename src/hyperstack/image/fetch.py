"""A file from a web address, for ``import`` and ``build``: within bounds, by transport.py's rules.

``http`` and ``https`` alone; what the user named may be near (this host, its link), what it
redirects to only then. A server that is silent or crawls is given up, and so is a body that is
longer or takes longer than the caller allows. Words and statuses are dockerd's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from hyperstack.errors import (
    Forbidden,
    HyperError,
    InternalError,
    InvalidParameter,
    NotFound,
    Unauthorized,
)
from hyperstack.image.endpoints import address
from hyperstack.image.faults import Fault, printable, unreachable
from hyperstack.image.transport import Request, Transport

LONGEST = 6 * 3600.0
"""Seconds that an archive to import may take."""
MAX_BYTES = 128 << 30
"""Bytes that it may have."""
MAX_WORDS = 1024
"""Bytes of a refusal that are told."""
MAX_REASON = 100
"""Characters of the server's name for it."""
_KINDS: dict[int, type[HyperError]] = {
    400: InvalidParameter,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
}
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)\Z", re.DOTALL)
_PORT = re.compile(r"(?:\[[^\]]*\]|[^\[\]:]*)(?::([0-9]*))?\Z")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A body on its way: its bytes, if the server told how many (0 if not), and the chunks."""

    url: URL
    """Without redirects."""
    size: int
    chunks: AsyncGenerator[bytes, None]
    headers: Mapping[str, str]


def source_of(text: str) -> str:
    """Return the address that is meant; without a scheme it is http. Raises InvalidParameter."""
    if text != text.strip():
        raise InvalidParameter(
            f'parse "{printable(text)}": first path segment in URL cannot contain colon'
        )
    match = _SCHEME.match(text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("http", text)
    host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if host.startswith("[") and "]" not in host:
        raise InvalidParameter(f"parse \"{printable(text)}\": missing ']' in host")
    if wrong := re.search(r"[\x00-\x20\x7f<>\"]", host):
        raise InvalidParameter(
            f'parse "{printable(text)}": invalid character "{printable(wrong[0]) or " "}" '
            "in host name"
        )
    if not _PORT.match(host):
        port = host[host.rfind(":") :]
        raise InvalidParameter(
            f'parse "{scheme}://{printable(rest)}": invalid port "{printable(port)}" after host'
        )
    return f"{scheme}://{rest}"


@contextlib.asynccontextmanager
async def fetched(
    source: str, *, longest: float | None = None, most: int | None = None
) -> AsyncIterator[Fetched]:
    """Open what lies at *source*, an address with its scheme.

    *longest* is in seconds, for everything that the block does, *most* in bytes; what is not said
    is as for an archive to import. Raises InternalError if it can't be had, or what the server's
    refusal stands for.
    """
    url = _url(source)
    longest = LONGEST if longest is None else longest
    most = MAX_BYTES if most is None else most
    try:
        async with asyncio.timeout(longest), Transport() as transport:
            transport.name(url.host or "")
            request = Request(method="GET", url=url)
            async with transport.open(request) as response:
                if response.status >= 400:
                    raise await _refusal(transport, request, response)
                size = max(response.content_length or 0, 0)
                chunks = _bounded(transport.chunks(request, response), source, size, most)
                async with contextlib.aclosing(chunks):
                    yield Fetched(url=url, size=size, chunks=chunks, headers=response.headers)
    except Fault as fault:
        raise InternalError(fault.message) from fault
    except TimeoutError as error:
        raise InternalError(unreachable("GET", url, error).message) from error


def _url(source: str) -> URL:
    scheme, _, rest = source.partition("://")
    if scheme not in ("http", "https"):
        raise InternalError(f'Get "{printable(source)}": unsupported protocol scheme "{scheme}"')
    if not rest or rest[0] in "/?#":
        shown = f"{scheme}://{rest}" if rest else f"{scheme}:"
        raise InternalError(f'Get "{printable(shown)}": http: no Host in request URL')
    try:
        url = address(source.partition("#")[0])
    except ValueError as error:
        port = (_PORT.match(re.split("[/?#]", rest, maxsplit=1)[0]) or ["", ""])[1]
        raise InternalError(
            f'Get "{printable(source)}": dial tcp: address {port}: invalid port'
        ) from error
    return url if url.raw_path else url.with_path("/")


async def _refusal(
    transport: Transport, request: Request, response: aiohttp.ClientResponse
) -> HyperError:
    words = b""
    with contextlib.suppress(Fault, TimeoutError):
        async with asyncio.timeout(transport.limits.request):
            async for chunk in transport.chunks(request, response):
                words = (words + chunk)[:MAX_WORDS]
                if len(words) == MAX_WORDS:
                    break
    kind = _KINDS.get(response.status, InternalError)
    told = printable(words.decode(errors="replace"))
    shown = request.url.with_user(None) if request.url.user else request.url
    status = f"{response.status} {printable(response.reason or '')[:MAX_REASON]}"
    return kind(f"failed to GET {shown} with status {status}: {told}")


async def _bounded(
    chunks: AsyncGenerator[bytes, None], source: str, announced: int, most: int
) -> AsyncGenerator[bytes, None]:
    size = 0
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            size += len(chunk)
            if max(size, announced) > most:
                raise InternalError(f'Get "{printable(source)}": more than {most >> 30} GiB')
            yield chunk
