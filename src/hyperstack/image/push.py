"""Pushing images: every blob that the repository lacks, then the manifest, byte for byte.

A blob is asked for first ("Layer already exists"), then taken over from another repository of the
same registry in which it is known to be ("Mounted from"), and only then sent. Words and their order
are Docker's; layers go by their diff ids here, the topmost first.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncGenerator

from hyperstack.errors import HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.ids import Digest, short
from hyperstack.image.auth import NOBODY, AuthConfig
from hyperstack.image.faults import Fault, Refused, translate
from hyperstack.image.manifest import (
    Descriptor,
    Index,
    Manifest,
    check_rootfs,
    parse_config,
    parse_manifest,
)
from hyperstack.image.progress import Progress
from hyperstack.image.reference import Reference
from hyperstack.image.registry import Repository, connect
from hyperstack.image.reporting import Reporter, reported, together
from hyperstack.image.seam import Images
from hyperstack.image.transport import Transport
from hyperstack.image.upload import Upload, put_manifest

UPLOAD_ATTEMPTS = 5
MAX_SOURCES = 3
"""Repositories that are tried for a mount."""


async def push(
    images: Images, name: str, tag: str = "", *, auth: AuthConfig = NOBODY
) -> AsyncGenerator[Progress, None]:
    """Push an image, or all tags of a repository if there is none; close the generator to stop.

    Raises InvalidParameter for a bad name, NotFound if there is no such image, InternalError or
    Unavailable for what the registry says.
    """
    reference = to_push(name, tag)

    async def work(reporter: Reporter) -> None:
        await Push(images, reference, auth, reporter).run()

    async with contextlib.aclosing(reported(f"push {reference}", work)) as lines:
        async for line in lines:
            yield line


def to_push(name: str, tag: str) -> Reference:
    """Read what is to be pushed; *tag* may be empty. Raises InvalidParameter."""
    reference = Reference.parse(name)
    if tag and reference.digest is not None:
        raise InvalidParameter("cannot import digest reference")
    return reference.with_tag(tag) if tag else reference


class Push:
    """One push."""

    def __init__(
        self, images: Images, reference: Reference, auth: AuthConfig, reporter: Reporter
    ) -> None:
        self._images = images
        self._reference = reference
        self._auth = auth
        self._reporter = reporter

    async def run(self) -> None:
        """Push. Raises HyperError."""
        self._reporter.say(f"The push refers to repository [{self._reference.name}]")
        if self._reference.digest is not None:
            raise InvalidParameter("cannot push a digest reference")
        wanted = self._wanted()
        try:
            async with Transport() as transport:
                await self._to(transport, wanted)
        except Fault as fault:
            raise _worded(fault, self._reference) from fault

    def _wanted(self) -> list[tuple[str, str]]:
        name = self._reference.familiar_name
        tags = self._images.tags_of(name)
        if not tags:
            raise NotFound(f"An image does not exist locally with the tag: {name}")
        if not self._reference.tag:
            return sorted(tags)
        wanted = [(tag, image) for tag, image in tags if tag == self._reference.tag]
        if not wanted:
            raise NotFound(f"tag does not exist: {self._reference.familiar()}")
        return wanted

    async def _to(self, transport: Transport, wanted: list[tuple[str, str]]) -> None:
        config = self._images.config
        found = connect(transport, config, self._reference, self._auth, push=True)
        async with contextlib.aclosing(found) as repositories:
            repository = await anext(repositories)
            for tag, image in wanted:
                await self._one(repository, tag, image)

    async def _one(self, repository: Repository, tag: str, image: str) -> None:
        blob = self._images.manifest_of(image)
        manifest = parse_manifest(blob.data, blob.media_type)
        if isinstance(manifest, Index):
            raise InternalError(f"image {short(image)} has an index for a manifest")
        await self._layers(repository, manifest, self._images.config_of(image))
        await self._config(repository, manifest.config, self._images.config_of(image))
        await put_manifest(repository, tag, blob.data, blob.media_type)
        digest, size = blob.digest, len(blob.data)
        pushed = self._reference.with_digest(Digest(digest)).familiar()
        await self._images.add_digest(image, pushed)
        self._reporter.say(f"{tag}: digest: {digest} size: {size}")
        self._reporter.say("", aux={"Tag": tag, "Digest": digest, "Size": size})

    async def _layers(self, repository: Repository, manifest: Manifest, config: bytes) -> None:
        diff_ids = check_rootfs(parse_config(config), manifest.layers)
        downward = zip(reversed(manifest.layers), reversed(diff_ids), strict=True)
        pairs = {layer.digest: (layer, id) for layer, id in downward}
        for _, diff_id in pairs.values():
            self._reporter.say("Preparing", short(diff_id))
        await together(
            self._layer(repository, layer, short(diff_id)) for layer, diff_id in pairs.values()
        )

    async def _layer(self, repository: Repository, layer: Descriptor, id: str) -> None:
        path = self._images.content.path(layer.digest)
        async with self._images.transfers.upload(self._reporter, id):
            if await repository.has_blob(layer.digest):
                self._reporter.say("Layer already exists", id)
                return
            size = layer.size
            upload = Upload(
                repository,
                layer,
                lambda: path.open("rb"),
                lambda done: self._reporter.bar("Pushing", id, done, size),
            )
            if source := await self._mounted(repository, upload, layer):
                self._reporter.say(f"Mounted from {source}", id)
                return
            await upload.run(UPLOAD_ATTEMPTS)
            self._reporter.say("Pushed", id)

    async def _mounted(
        self, repository: Repository, upload: Upload, layer: Descriptor
    ) -> str | None:
        known = self._images.known_in(layer.digest, self._reference.domain)
        others = [path for path in known if path != repository.path]
        for source in others[:MAX_SOURCES]:
            # A source that may not be read, or is gone, only means that the blob has to be sent.
            with contextlib.suppress(Refused):
                if await upload.mount(source):
                    return source
        return None

    async def _config(self, repository: Repository, config: Descriptor, data: bytes) -> None:
        if not await repository.has_blob(config.digest):
            upload = Upload(repository, config, lambda: io.BytesIO(data), lambda _: None)
            await upload.run(UPLOAD_ATTEMPTS)


def _worded(fault: Fault, reference: Reference) -> HyperError:
    if isinstance(fault, Refused) and fault.code == "NO_CREDENTIALS":
        return InternalError("no basic auth credentials")
    return translate(fault, reference)
