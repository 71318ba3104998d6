"""Pushing to a repository: OCI distribution specification 1.1, "Pushing manifests" and "blobs".

A blob goes up in one PUT. Should that break off, or be refused as too large, the next try sends
chunks, and goes on after the last one that the registry has. Where the registry tells to upload to
(Location) may be another server: who we are is then not told to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from yarl import URL

from hyperstack.errors import InternalError
from hyperstack.image.faults import Fault, Refused, asked, unreachable
from hyperstack.image.manifest import Descriptor, digest_of
from hyperstack.image.registry import BACKOFF, MAX_WAIT, Repository, backoff
from hyperstack.image.transport import Answer, Request, redirect

CHUNK = 16 << 20
READ = 256 << 10
MAX_ANSWER = 64 << 10
COMMIT_PATIENCE = 300.0
"""Seconds in which a registry may hash and store a blob whose last byte it has."""
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})\Z")
Source = Callable[[], BinaryIO]
Report = Callable[[int], None]


class Upload:
    """The way of one blob of ours into a repository. *source* opens it, as often as needed."""

    def __init__(
        self, repository: Repository, blob: Descriptor, source: Source, report: Report
    ) -> None:
        self._repository = repository
        self._blob = blob
        self._source = source
        self._report = report

    async def mount(self, source: str) -> bool:
        """Ask for the blob to be taken over from another repository of the same registry."""
        query = {"mount": self._blob.digest, "from": source}
        answer = await self._begin(query, (f"repository:{source}:pull",))
        if answer.status == 201:
            return True
        await self._cancel(self._location(self._repository.url("blobs/uploads/"), answer))
        return False

    async def run(self, attempts: int) -> None:
        """Send the blob. Raises Refused, Unreachable, InternalError."""
        location: URL | None = None
        for attempt in range(1, attempts + 1):
            try:
                if location is None:
                    answer = await self._begin({}, ())
                    location = self._location(self._repository.url("blobs/uploads/"), answer)
                    await self._whole(location)
                else:
                    await self._chunks(location)
                return
            except Fault as fault:
                wait = backoff(fault, attempt, 2 * BACKOFF)
                begun = location is not None
                if attempt == attempts or wait > MAX_WAIT or not _again(fault, begun=begun):
                    raise
                if isinstance(fault, Refused) and fault.status in (404, 416):
                    location = None  # the registry forgot the upload: begin anew
                await asyncio.sleep(wait)

    async def _begin(self, query: dict[str, str], scopes: tuple[str, ...]) -> Answer:
        url = self._repository.url("blobs/uploads/").with_query(query)
        request = self._request("POST", url, b"")
        ok = (201, 202) if query else (202,)
        return await self._repository.answer(request, MAX_ANSWER, ok=ok, scopes=scopes)

    async def _whole(self, location: URL) -> None:
        url = self._finish(location)
        await self._send("PUT", url, 0, self._blob.size, (201, 204), COMMIT_PATIENCE)

    async def _chunks(self, location: URL) -> None:
        location, done = await self._status(location)
        while done < self._blob.size:
            size = min(CHUNK, self._blob.size - done)
            answer = await self._send("PATCH", location, done, size, (202, 204), None)
            location = self._location(location, answer)
            done += size
        url = self._finish(location)
        await self._send("PUT", url, done, 0, (201, 204), COMMIT_PATIENCE)

    async def _status(self, location: URL) -> tuple[URL, int]:
        """Return where to go on, and how many bytes the registry has."""
        request = self._request("GET", location)
        answer = await self._repository.answer(request, MAX_ANSWER, ok=(202, 204))
        match = _RANGE.match(answer.headers.get("Range", ""))
        last = int(match[1]) if match else 0
        # "0-0" is what registries say of one byte as well as of none.
        done = last + 1 if last else 0
        if done > self._blob.size:
            raise InternalError(f"the registry has more of {self._blob.digest} than there is")
        return self._location(location, answer), done

    async def _cancel(self, location: URL) -> None:
        """Tell the registry that an upload will not be used; it would expire anyway."""
        request = self._request("DELETE", location)
        try:
            await self._repository.answer(request, MAX_ANSWER, ok=range(200, 500), attempts=1)
        except Fault:
            return

    async def _send(
        self,
        method: str,
        url: URL,
        offset: int,
        size: int,
        ok: tuple[int, ...],
        patience: float | None,
    ) -> Answer:
        headers = {"Content-Type": "application/octet-stream"}
        if method == "PATCH":
            headers["Content-Range"] = f"{offset}-{offset + size - 1}"
        limits = self._repository.transport.limits
        try:
            with self._source() as file:
                async with asyncio.timeout(limits.request) as bound:

                    async def body() -> AsyncIterator[bytes]:
                        async for chunk in self._read(file, offset, size):
                            yield chunk
                            # It was taken; the peer has that long for the next one.
                            now = asyncio.get_running_loop().time()
                            bound.reschedule(now + (patience or limits.request))

                    request = Request(
                        method=method,
                        url=url,
                        headers=headers,
                        body=body if size else b"",
                        length=size or None,
                    )
                    return await self._repository.ask(request, MAX_ANSWER, ok=ok, timed=False)
        except TimeoutError as error:
            raise unreachable(method, url, error) from error
        except OSError as error:
            raise InternalError(f"cannot read blob {self._blob.digest}: {error}") from error

    async def _read(self, file: BinaryIO, offset: int, size: int) -> AsyncIterator[bytes]:
        file.seek(offset)
        left = size
        while left:
            chunk = await asyncio.to_thread(file.read, min(READ, left))
            if not chunk:
                raise InternalError(f"blob {self._blob.digest} is shorter than it should be")
            left -= len(chunk)
            self._report(offset + size - left)
            yield chunk

    def _request(self, method: str, url: URL, body: bytes | None = None) -> Request:
        return Request(method=method, url=url, body=body)

    def _finish(self, location: URL) -> URL:
        # As text: what the registry put into its address must come back as it was.
        text = str(location.with_fragment(None))
        joint = "&" if location.raw_query_string else "?"
        digest = self._blob.digest.replace(":", "%3A")
        return URL(f"{text}{joint}digest={digest}", encoded=True)

    def _location(self, url: URL, answer: Answer) -> URL:
        target = answer.headers.get("Location", "")
        if not target:
            raise InternalError(f"{asked('Post', url)}: the registry does not say where to upload")
        return redirect(url, url, target)


def _again(fault: Fault, *, begun: bool) -> bool:
    """Tell whether the next try, which is another way of sending, may work."""
    return fault.retryable or (
        begun and isinstance(fault, Refused) and fault.status in (404, 413, 416)
    )


async def put_manifest(repository: Repository, name: str, data: bytes, media_type: str) -> None:
    """Store a manifest under a tag or its digest. Raises Refused."""
    request = Request(
        method="PUT",
        url=repository.url(f"manifests/{name}"),
        body=data,
        headers={"Content-Type": media_type},
    )
    answer = await repository.answer(request, MAX_ANSWER, ok=(200, 201, 202))
    stated = answer.headers.get("Docker-Content-Digest")
    if stated and stated != digest_of(data):
        raise InternalError(f"the registry stored the manifest as {stated[:100]!r}")
