"""A client of one repository of a registry: OCI distribution specification 1.1, pull side.

``connect`` finds an endpoint that answers; a ``Repository`` asks it for manifests, blobs and tags.
Everything that has a digest is compared with it here or by the content store; everything else is
bounded. Pushing is in ``upload``, the HTTP rules are in ``transport``. Raised are the faults of
``faults`` (a registry that can't be reached or says no) and InternalError (one that breaks rules).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, replace

import aiohttp
import msgspec
from yarl import URL

from hyperstack.config import Config
from hyperstack.errors import InternalError
from hyperstack.ids import Digest
from hyperstack.image.auth import AuthConfig, Authorizer
from hyperstack.image.endpoints import Endpoint, address, endpoints
from hyperstack.image.faults import (
    MAX_ERROR_BODY,
    Fault,
    Refused,
    Unreachable,
    asked,
    unreachable,
)
from hyperstack.image.manifest import ACCEPT, MAX_MANIFEST, Descriptor, digest_of, without_nulls
from hyperstack.image.reference import Reference, is_digest
from hyperstack.image.transport import Answer, Request, Transport, fault_of, origin

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Tries of a request that is not a blob; blobs have ``config.max_download_attempts``."""
BACKOFF = 0.25
MAX_WAIT = 10.0
MAX_TAGS = 50_000
MAX_TAG_PAGES = 200
MAX_TAG_PAGE = 4 << 20
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z")
_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;[^,]*\brel="?next"?')
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}\Z")


@dataclass(frozen=True, kw_only=True)
class RawManifest:
    """A manifest or index as it came: its digest is that of ``data``."""

    data: bytes
    media_type: str
    digest: Digest


class Repository:
    """One repository at one endpoint of its registry."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        authorizer: Authorizer,
        path: str,
        *,
        actions: str = "pull",
    ) -> None:
        self.transport = transport
        self.endpoint = endpoint
        self.authorizer = authorizer
        self.path = path
        self.scopes = (f"repository:{path}:{actions}",)

    def url(self, suffix: str) -> URL:
        """Return the address of something of this repository."""
        return self.endpoint.url(f"/v2/{self.path}/{suffix}")

    async def head(self, name: str) -> tuple[Digest, str] | None:
        """Return digest and media type of a manifest by tag or digest, if the registry tells.

        Raises as ``manifest`` does.
        """
        request = self._request("HEAD", f"manifests/{name}", {"Accept": ACCEPT})
        answer = await self.answer(request, 0, ok=range(200, 600))
        if answer.status >= 400:
            # The words are in the body, which HEAD has not.
            await self.manifest(name)
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        if not is_digest(digest):
            return None
        return Digest(digest), answer.headers.get("Content-Type", "")

    async def manifest(self, name: str) -> RawManifest:
        """Return a manifest by tag or digest; a digest is verified.

        Raises Refused if there is none or it may not be had.
        """
        request = self._request("GET", f"manifests/{name}", {"Accept": ACCEPT})
        answer = await self.answer(request, MAX_MANIFEST)
        digest = digest_of(answer.body)
        if is_digest(name) and digest != name:
            raise InternalError(f"manifest verification failed for digest {name}")
        kind = answer.headers.get("Content-Type", "")
        return RawManifest(data=answer.body, media_type=kind, digest=digest)

    async def small_blob(self, blob: Descriptor) -> bytes:
        """Return a blob that fits into memory, such as a config; size and digest are verified."""
        request = self._request("GET", f"blobs/{blob.digest}")
        answer = await self.answer(request, blob.size, ok=(*range(200, 300), 404))
        if answer.status == 404:
            raise _unknown_blob()
        data = answer.body
        if len(data) != blob.size or digest_of(data) != blob.digest:
            raise InternalError(f"image config verification failed for digest {blob.digest}")
        return data

    @contextlib.asynccontextmanager
    async def blob(
        self, blob: Descriptor, offset: int = 0
    ) -> AsyncIterator[tuple[int, AsyncGenerator[bytes, None]]]:
        """Open a blob from *offset* on; gives the offset at which its bytes really begin.

        That is 0 if the registry knows no ranges. The content is for the caller to verify; more
        bytes than the descriptor has are not refused here either.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = self._request("GET", f"blobs/{blob.digest}", headers)
        async with self._authorized(request) as response:
            if response.status == 404:
                raise _unknown_blob()
            if response.status >= 300:
                raise await self._fault(request, response)
            start = _start(response, blob, offset)
            yield start, self.transport.chunks(request, response)

    async def has_blob(self, digest: str) -> bool:
        """Tell whether the repository has a blob."""
        request = self._request("HEAD", f"blobs/{digest}")
        answer = await self.answer(request, 0, ok=(*range(200, 300), 404))
        return answer.status != 404

    async def tags(self) -> list[str]:
        """Return all tags of the repository. Raises Refused if there is no such repository."""
        found: list[str] = []
        url = self.url("tags/list")
        for _ in range(MAX_TAG_PAGES):
            request = Request(method="GET", url=url)
            answer = await self.answer(request, MAX_TAG_PAGE)
            found += _tags(answer.body)
            if len(found) > MAX_TAGS:
                raise InternalError(f"the repository has more than {MAX_TAGS} tags")
            following = _following(url, answer.headers)
            if following is None:
                return list(dict.fromkeys(found))
            url = following
        raise InternalError(f"the list of tags has more than {MAX_TAG_PAGES} pages")

    def _request(
        self, method: str, suffix: str, headers: Mapping[str, str] | None = None
    ) -> Request:
        return Request(method=method, url=self.url(suffix), headers=headers or {})

    async def answer(
        self,
        request: Request,
        limit: int,
        *,
        ok: range | tuple[int, ...] = range(200, 300),
        scopes: tuple[str, ...] = (),
        attempts: int = ATTEMPTS,
    ) -> Answer:
        """Ask, as often as makes sense, and return an answer whose status is among *ok*.

        *scopes* are wanted beside the repository's own. Raises Unreachable or Refused.
        """
        for attempt in range(1, attempts + 1):
            try:
                return await self.ask(request, limit, ok=ok, scopes=scopes)
            except Fault as fault:
                wait = backoff(fault, attempt, BACKOFF)
                if not fault.retryable or attempt == attempts or wait > MAX_WAIT:
                    raise
                log.debug("%r: %s; trying again in %.1f s", request, fault.message, wait)
                await asyncio.sleep(wait)
        raise InternalError("no attempt was allowed")

    async def ask(
        self,
        request: Request,
        limit: int,
        *,
        ok: range | tuple[int, ...] = range(200, 300),
        scopes: tuple[str, ...] = (),
        timed: bool = True,
    ) -> Answer:
        """Ask once, and once more if the registry only then says what token it wants."""
        for again in (False, True):
            allowed = await self._allow(request, scopes)
            answer = await self.transport.fetch(allowed, limit, timed=timed)
            if answer.status != 401 or again:
                break
            self._learn(answer.headers.getall("WWW-Authenticate", []))
        if answer.status not in ok or (answer.status == 401 and request.method != "HEAD"):
            raise answer.fault()
        return answer

    @contextlib.asynccontextmanager
    async def _authorized(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        allowed = await self._allow(request)
        async with self._open(allowed) as response:
            if response.status != 401:
                yield response
                return
            self._learn(response.headers.getall("WWW-Authenticate", []))
        async with self._open(await self._allow(request)) as response:
            yield response

    @contextlib.asynccontextmanager
    async def _open(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        opened = False
        try:
            async with asyncio.timeout(self.transport.limits.request) as bound:
                async with self.transport.open(request) as response:
                    bound.reschedule(None)  # the body has bounds of its own
                    opened = True
                    yield response
        except TimeoutError as error:
            if opened:
                raise
            raise unreachable(request.method, request.url, error) from error

    async def _allow(self, request: Request, scopes: tuple[str, ...] = ()) -> Request:
        if origin(request.url) != origin(self.endpoint.base):
            # Some registries have blobs uploaded elsewhere: nobody there learns who we are.
            return replace(request, authorization=None, verify=True)
        header = await self.authorizer.header(request, (*self.scopes, *scopes))
        return replace(request, authorization=header, verify=self.endpoint.verify)

    def _learn(self, challenges: list[str]) -> None:
        self.authorizer.forget()
        self.authorizer.learn(challenges, late=True)

    async def _fault(self, request: Request, response: aiohttp.ClientResponse) -> Refused:
        body = bytearray()
        with contextlib.suppress(TimeoutError, Fault):
            async with asyncio.timeout(self.transport.limits.idle):
                async for chunk in self.transport.chunks(request, response):
                    body += chunk
                    if len(body) >= MAX_ERROR_BODY:
                        break
        return fault_of(response.status, response.headers, bytes(body[:MAX_ERROR_BODY]))


async def connect(
    transport: Transport,
    config: Config,
    reference: Reference,
    auth: AuthConfig,
    *,
    push: bool = False,
) -> AsyncGenerator[Repository, None]:
    """Yield the repository at each endpoint that answers, the best first.

    Raises Unreachable, that of the last one, if none does.
    """
    last: Unreachable | None = None
    found = False
    for endpoint in endpoints(config, reference.domain, mirrors=not push):
        transport.name(endpoint.base.host or "")
        authorizer = Authorizer(transport, endpoint, auth)
        try:
            await ping(transport, endpoint, authorizer)
        except Unreachable as fault:
            if not fault.endpoint_down and not endpoint.mirror:
                raise
            log.debug("%s", fault.message)
            last = fault
            continue
        found = True
        actions = "pull,push" if push else "pull"
        yield Repository(transport, endpoint, authorizer, reference.path, actions=actions)
    if not found and last is not None:
        raise last


async def ping(transport: Transport, endpoint: Endpoint, authorizer: Authorizer) -> None:
    """See that a registry answers, and learn how it wants to be told who asks.

    Any answer will do, as with Docker. Raises Unreachable.
    """
    request = Request(method="GET", url=endpoint.url("/v2/"), verify=endpoint.verify)
    try:
        async with asyncio.timeout(transport.limits.request), transport.open(request) as response:
            if response.status == 401:
                authorizer.learn(response.headers.getall("WWW-Authenticate", []))
    except TimeoutError as error:
        raise unreachable("GET", request.url, error) from error


def backoff(fault: Fault, attempt: int, first: float) -> float:
    """Return how many seconds to wait after a failed attempt, the first being 1."""
    asked_for = fault.retry_after if isinstance(fault, Refused) else None
    return max(asked_for or 0.0, first * 2.0 ** (attempt - 1))


def _unknown_blob() -> Refused:
    return Refused("unknown blob", status=404, code="BLOB_UNKNOWN")


def _start(response: aiohttp.ClientResponse, blob: Descriptor, offset: int) -> int:
    where = asked("Get", response.url)
    if response.status != 206:
        if response.content_length not in (None, blob.size):
            raise InternalError(f"filesystem layer verification failed for digest {blob.digest}")
        return 0
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != offset or match[3] not in ("*", str(blob.size)):
        raise InternalError(f"{where}: the registry answers another range than the one asked for")
    return offset


def _tags(body: bytes) -> list[str]:
    try:
        document = without_nulls(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InternalError("the registry's list of tags is not valid JSON") from error
    tags = document.get("tags", []) if isinstance(document, dict) else []
    if not isinstance(tags, list):
        return []
    return [tag for tag in tags if isinstance(tag, str) and _TAG.match(tag)]


def _following(url: URL, headers: Mapping[str, str]) -> URL | None:
    match = _NEXT.search(headers.get("Link", "")[:8192])
    if match is None:
        return None
    try:
        target = address(str(url.join(address(match[1]))))
    except ValueError as error:
        raise InternalError("the registry's next page of tags has no valid address") from error
    if target.origin() != url.origin():
        raise InternalError("the registry's next page of tags lies elsewhere: refused")
    return target
