"""HTTP to registries, token servers and blob stores, none of which is trusted.

One request at a time with every bound set: connecting, silence, a rate below which a transfer is
given up, bytes of an answer. Redirects are followed here, by hand: never from https to http, never
to another scheme, never to this host or its link unless the registry is there itself, and what
proves an identity goes to the origin that it was made for and to no other. Cookies are not kept;
netrc is not read; proxies are those of the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import ResolveResult
from yarl import URL

from hyperstack import __version__
from hyperstack.errors import InternalError
from hyperstack.image import endpoints
from hyperstack.image.endpoints import address, is_near, tls_context
from hyperstack.image.faults import (
    MAX_ERROR_BODY,
    Refused,
    asked,
    broken,
    refused,
    unreachable,
)

USER_AGENT = f"hyper/{__version__}"
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
READ_BUFFER = 1 << 20

Body = Callable[[], AsyncIterator[bytes]]
"""Makes a request's body, anew for every try."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on a peer's time, in seconds, and on its slowness."""

    connect: float = 15.0
    idle: float = 30.0
    """Without a byte, while one is due."""
    request: float = 60.0
    """For a whole answer that is not a blob."""
    slow_window: float = 60.0
    slow_bytes: int = 64 << 10
    """A blob of which less than this comes in a window is given up (and asked for again)."""


LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to ask of a server. ``authorization`` is for the origin of ``url`` alone."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str | None = None
    body: Body | bytes | None = None
    length: int | None = None
    """Bytes of a body that is made by a function."""
    verify: bool = True
    """Whether the certificate of the origin of ``url`` has to be proven; others' always has."""

    def __repr__(self) -> str:
        return f"Request({self.method} {self.url.with_query(None)})"


class Transport:
    """Connections to any number of servers for one operation; an async context manager."""

    def __init__(self, limits: Limits | None = None, certs: Sequence[Path] | None = None) -> None:
        self.limits = limits or LIMITS
        self._certs = endpoints.CERTS_DIRS if certs is None else certs
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._session: aiohttp.ClientSession | None = None
        self._resolver = Resolver()

    def name(self, host: str) -> None:
        """Take note of a host that the user or the operator named: it may be near."""
        self._resolver.named.add(host.lower())

    def _timeout(self, data: object) -> aiohttp.ClientTimeout:
        # A peer is silent while it takes a long body: whoever sends one watches that it is taken.
        idle = self.limits.idle if data is None or isinstance(data, bytes) else None
        return aiohttp.ClientTimeout(total=None, sock_connect=self.limits.connect, sock_read=idle)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._resolver, limit_per_host=16),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER,
            max_line_size=16 << 10,
            max_field_size=16 << 10,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, follow redirects and give the answer that is none.

        Raises Unreachable for no answer, InternalError for a redirect that is refused.
        """
        url, method, authorization = request.url, request.method, request.authorization
        for _ in range(MAX_REDIRECTS + 1):
            same = origin(url) == origin(request.url)
            response = await self._send(
                request, method, url, authorization, verify=request.verify or not same
            )
            async with response:
                if response.status not in REDIRECTS or "Location" not in response.headers:
                    yield response
                    return
                target = redirect(request.url, url, response.headers["Location"])
                if response.status in (301, 302, 303) and method != "HEAD":
                    method = "GET"
            if origin(target) != origin(url):
                authorization = None  # and it never comes back
            url = target
        raise InternalError(
            f"{asked(method, request.url)}: stopped after {MAX_REDIRECTS} redirects"
        )

    async def _send(
        self, request: Request, method: str, url: URL, authorization: str | None, *, verify: bool
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise InternalError("the transport is not open")
        headers = dict(request.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        data: AsyncIterator[bytes] | bytes | None = None
        if method == request.method and request.body is not None:
            data = request.body if isinstance(request.body, bytes) else request.body()
            if request.length is not None:
                headers["Content-Length"] = str(request.length)
        context = await self._context(url, verify) if url.scheme == "https" else True
        try:
            return await self._session.request(
                method,
                url,
                headers=headers,
                data=data,
                ssl=context,
                allow_redirects=False,
                proxy=_proxy(url),
                timeout=self._timeout(data),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(method, url, error) from error

    async def _context(self, url: URL, verify: bool) -> ssl.SSLContext:
        key = (f"{url.host}:{url.port}", verify)
        if key not in self._contexts:
            self._contexts[key] = await asyncio.to_thread(
                tls_context, url, verify=verify, dirs=self._certs
            )
        return self._contexts[key]

    async def fetch(self, request: Request, limit: int, *, timed: bool = True) -> Answer:
        """Send a request and read its whole answer, at most *limit* bytes, in bounded time.

        Whoever sends a long body bounds the time and says so by *timed*.
        Raises Unreachable, and InternalError for an answer that is too long.
        """
        try:
            async with (
                asyncio.timeout(self.limits.request if timed else None),
                self.open(request) as response,
            ):
                bound = limit if response.status < 400 else MAX_ERROR_BODY
                body = await self._body(request, response, bound)
                return Answer(response, body)
        except TimeoutError as error:
            raise unreachable(request.method, request.url, error) from error

    async def _body(self, request: Request, response: aiohttp.ClientResponse, limit: int) -> bytes:
        if request.method == "HEAD":
            return b""
        parts = bytearray()
        async for chunk in self.chunks(request, response):
            parts += chunk
            if len(parts) > limit:
                if response.status >= 400:
                    return bytes(parts[:limit])
                raise InternalError(
                    f"{asked(request.method, request.url)}: the answer is longer than {limit} bytes"
                )
        return bytes(parts)

    async def chunks(
        self, request: Request, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[bytes, None]:
        """Yield an answer's body as it comes. Raises Unreachable if it breaks off or crawls."""
        pace = _Pace(self.limits)
        try:
            while chunk := await pace.next(response.content):
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise broken(request.url, error) from error


class Resolver(aiohttp.ThreadedResolver):
    """Looks up names, and refuses those of others that lead to this host or its link.

    If a registry that the user named is near itself, so may its token server and its store be.
    """

    def __init__(self) -> None:
        super().__init__()
        self.named: set[str] = set()
        self._near = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return a host's addresses. Raises OSError if they are none of a stranger's business."""
        found = await super().resolve(host, port, family)
        near = any(is_near(entry["host"]) for entry in found)
        if host.lower() in self.named:
            self._near = self._near or near
        elif near and not self._near:
            raise OSError(f"{host} leads to this host")
        return found


class Answer:
    """An answer that has been read: ``status``, ``headers``, ``body``, and where it came from."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    def fault(self) -> Refused:
        """Word an answer that says no."""
        return fault_of(self.status, self.headers, self.body)


def fault_of(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """Word an answer that says no."""
    challenge = headers.get("WWW-Authenticate", "").lower()
    return refused(
        status,
        body,
        media_type=headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        retry_after=_seconds(headers.get("Retry-After", "")),
        scope_denied=status == 401 and 'error="insufficient_scope"' in challenge,
    )


class _Pace:
    """Watches that a peer does not crawl; only the time in which it is waited for counts."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waited = 0.0
        self._bytes = 0

    async def next(self, content: aiohttp.StreamReader) -> bytes:
        start = time.monotonic()
        chunk = await content.readany()
        self._waited += time.monotonic() - start
        self._bytes += len(chunk)
        if self._waited >= self._limits.slow_window:
            if chunk and self._bytes < self._limits.slow_bytes:
                raise TimeoutError("too slow")
            self._waited, self._bytes = 0.0, 0
        return chunk


def origin(url: URL) -> tuple[str, str, int | None]:
    """Return what credentials are bound to: scheme, host and port."""
    return url.scheme, (url.host or "").lower(), url.port


def redirect(first: URL, current: URL, location: str) -> URL:
    """Return where a redirect leads. Raises InternalError if it must not be followed."""
    where = asked("Get", first)
    try:
        target = address(str(current.join(address(location))))
    except ValueError as error:
        raise InternalError(f"{where}: the redirect's address is malformed") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise InternalError(f"{where}: a redirect to {target.scheme or 'nowhere'}: is refused")
    if target.user or target.password:
        raise InternalError(f"{where}: a redirect with credentials in it is refused")
    if target.scheme == "http" and current.scheme == "https":
        raise InternalError(f"{where}: a redirect from https to http is refused")
    if is_near(target.host) and not is_near(first.host or ""):
        raise InternalError(f"{where}: a redirect to {target.host} is refused")
    return target


def _seconds(text: str) -> float | None:
    return float(text) if text.isdigit() and len(text) < 8 else None


def _proxy(url: URL) -> URL | None:
    proxies = urllib.request.getproxies_environment()
    chosen = proxies.get(url.scheme)
    if not chosen or is_near(url.host or "") or urllib.request.proxy_bypass(url.host or ""):
        return None
    return URL(chosen if "://" in chosen else f"http://{chosen}")
