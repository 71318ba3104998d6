"""Pulling images: from a reference to an image of the store, in Docker's words.

The order is what makes a pull safe to kill: manifest, config, then the layers side by side (each
downloaded, hashed, decompressed and made into its EROFS file at once), and the image's row last.
What was downloaded of a layer before an end of any kind is there for the next pull.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from hyperstack.errors import (
    Forbidden,
    HyperError,
    InternalError,
    InvalidParameter,
)
from hyperstack.ids import Digest
from hyperstack.image.auth import NOBODY, AuthConfig
from hyperstack.image.download import Download
from hyperstack.image.faults import Fault, translate
from hyperstack.image.manifest import (
    MAX_INDEX_DEPTH,
    Descriptor,
    Index,
    Manifest,
    Platform,
    check_image,
    check_rootfs,
    host,
    parse_config,
    parse_manifest,
)
from hyperstack.image.progress import Progress
from hyperstack.image.reference import DEFAULT_TAG, Reference
from hyperstack.image.registry import ATTEMPTS, RawManifest, Repository, connect
from hyperstack.image.reporting import Reporter, reported, together
from hyperstack.image.seam import Images
from hyperstack.image.transport import Transport
from hyperstack.image.values import LayerBlob

log = logging.getLogger(__name__)


async def pull(
    images: Images, name: str, tag: str = "", *, platform: str = "", auth: AuthConfig = NOBODY
) -> AsyncGenerator[Progress, None]:
    """Pull an image and yield what happens, in Docker's order; close the generator to stop.

    *tag* may be a tag or a digest, empty if *name* has one; with neither all tags of the repository
    are pulled. *platform* is ``os/arch[/variant]``, empty for the host's. Raises InvalidParameter
    for a bad name, NotFound if there is none or it may not be had, Unavailable without a registry.
    """
    reference = Reference.parse_with_tag(name, tag)
    if reference.familiar_name == "scratch":
        raise Forbidden("'scratch' is a reserved name")
    wanted = Platform.parse(platform) if platform else None

    async def work(reporter: Reporter) -> None:
        await Pull(images, reference, wanted, auth, reporter).run()

    async with contextlib.aclosing(reported(f"pull {reference}", work)) as lines:
        async for line in lines:
            yield line


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a reference led to: the manifest of one image."""

    root: Digest
    """Digest of the manifest or index that the reference names."""
    raw: RawManifest
    manifest: Manifest


class Pull:
    """One pull."""

    def __init__(
        self,
        images: Images,
        reference: Reference,
        platform: Platform | None,
        auth: AuthConfig,
        reporter: Reporter,
    ) -> None:
        self._images = images
        self._reference = reference
        self._platform = platform
        self._auth = auth
        self._reporter = reporter

    async def run(self) -> None:
        """Pull. Raises HyperError."""
        try:
            async with Transport() as transport:
                await self._endpoints(transport)
        except Fault as fault:
            raise translate(fault, self._reference, pull=True) from fault

    async def _endpoints(self, transport: Transport) -> None:
        found = connect(transport, self._images.config, self._reference, self._auth)
        async with contextlib.aclosing(found) as repositories:
            async for repository in repositories:
                try:
                    await self._from(repository)
                    return
                except (Fault, HyperError) as error:
                    if not repository.endpoint.mirror:
                        raise
                    log.info("mirror %s: %s", repository.endpoint.base, error.message)
        raise InternalError(f"no mirror has {self._reference.familiar()}")

    async def _from(self, repository: Repository) -> None:
        reference = self._reference
        if not reference.is_name_only:
            newer = await self._one(repository, reference)
        else:
            newer = False
            for tag in await repository.tags():
                newer |= await self._one(repository, reference.with_tag(tag))
        state = "Downloaded newer image" if newer else "Image is up to date"
        self._reporter.say(f"Status: {state} for {reference.familiar()}")
        self._warn()

    async def _one(self, repository: Repository, reference: Reference) -> bool:
        """Pull one image; tell whether the store has another one under the name than before."""
        before = self._images.lookup(reference.familiar())
        head = None if reference.digest else await repository.head(reference.object)
        digest = reference.digest or (head[0] if head else None)
        image = self._known(reference, digest)
        if image is not None and digest is not None:
            self._begin(reference)
            if not reference.digest and image != before:
                await self._images.tag(image, reference.familiar())
        else:
            resolved = await self._resolve(repository, reference, digest)
            digest, image = resolved.root, await self._fetch(repository, reference, resolved)
        self._reporter.say(f"Digest: {digest}")
        return image != before

    def _warn(self) -> None:
        """Say so if the image is not for the platform that the user named."""
        image = self._images.lookup(self._reference.familiar())
        if self._platform is None or image is None or self._reference.is_name_only:
            return
        actual = self._images.platform(image)
        if not self._platform.accepts(actual):
            self._reporter.say(
                f"WARNING: image with reference {self._reference.familiar()} was found but its "
                f"platform ({actual}) does not match the specified platform ({self._platform})"
            )

    def _begin(self, reference: Reference) -> None:
        id = reference.canonical() if reference.digest else reference.tag or DEFAULT_TAG
        self._reporter.say(f"Pulling from {reference.path}", id)

    def _known(self, reference: Reference, digest: Digest | None) -> str | None:
        """Return the image that the store has by this digest, if it is the wanted platform's."""
        if digest is None:
            return None
        image = self._images.lookup(reference.with_digest(digest).familiar())
        if image is None or not self._whole(image):
            return None
        wanted = self._platform or host()
        return image if wanted.accepts(self._images.platform(image)) else None

    def _whole(self, image: str) -> bool:
        """Tell whether no layer of an image was lost: else it is pulled again."""
        config = parse_config(self._images.config_of(image))
        return all(self._images.layers.has(diff_id) for diff_id in config.rootfs.diff_ids)

    async def _resolve(
        self, repository: Repository, reference: Reference, digest: Digest | None
    ) -> Resolved:
        raw = await repository.manifest(digest or reference.object)
        parsed = parse_manifest(raw.data, raw.media_type, reference.canonical())
        self._begin(reference)
        root, depth = raw.digest, 0
        while isinstance(parsed, Index):
            depth += 1
            if depth > MAX_INDEX_DEPTH:
                raise InvalidParameter(f"the image's indexes are nested more than {depth - 1} deep")
            entry = parsed.select(self._platform)
            if entry.platform is not None and entry.platform.os not in ("", "linux"):
                raise InvalidParameter("operating system is not supported")
            raw = await repository.manifest(entry.digest)
            parsed = parse_manifest(raw.data, raw.media_type, reference.canonical())
        check_image(parsed)
        return Resolved(root=root, raw=raw, manifest=parsed)

    async def _fetch(self, repository: Repository, reference: Reference, resolved: Resolved) -> str:
        manifest = resolved.manifest
        config_bytes = await self._config(repository, manifest.config)
        config = parse_config(config_bytes)
        if config.os not in ("", "linux"):
            raise InvalidParameter(
                f'image operating system "{config.os}" cannot be used on this platform'
            )
        diff_ids = check_rootfs(config, manifest.layers)
        known = self._images.has_image(manifest.config.digest)
        if not (known and self._has_all(manifest.layers, diff_ids)):
            await self._layers(repository, manifest.layers, diff_ids)
        return await self._images.add_image(
            config=config_bytes,
            manifest=resolved.raw.data,
            media_type=manifest.media_type or resolved.raw.media_type.split(";")[0].strip(),
            names=() if reference.digest else (reference.familiar(),),
            digest_ref=reference.with_digest(resolved.root).familiar(),
            layers=[
                LayerBlob(digest=layer.digest, size=layer.size, media_type=layer.media_type)
                for layer in manifest.layers
            ],
        )

    async def _config(self, repository: Repository, config: Descriptor) -> bytes:
        what = "error pulling image configuration"
        try:
            return await repository.small_blob(config)
        except InternalError as error:
            raise InternalError(f"{what}: {error.message}") from error
        except Fault as fault:
            tries = ATTEMPTS if fault.retryable else 1
            sentence = f"{what}: download failed after attempts={tries}: {fault.message}"
            raise InternalError(sentence) from fault

    def _has_all(self, layers: tuple[Descriptor, ...], diff_ids: tuple[Digest, ...]) -> bool:
        return all(
            self._has(layer, diff_id) for layer, diff_id in zip(layers, diff_ids, strict=True)
        )

    def _has(self, layer: Descriptor, diff_id: Digest) -> bool:
        """Tell whether a layer is here, its blob too, and the one known to hold the other."""
        proven = self._images.layers.proven(diff_id, layer.digest)
        return proven and self._images.content.has(layer.digest)

    async def _layers(
        self, repository: Repository, layers: tuple[Descriptor, ...], diff_ids: tuple[Digest, ...]
    ) -> None:
        pairs = zip(layers, diff_ids, strict=True)
        # A layer may occur twice (an empty one often does), but not as two layers.
        wanted = {(layer.digest, diff_id): (layer, diff_id) for layer, diff_id in pairs}
        missing: list[Download] = []
        for layer, diff_id in wanted.values():
            below = missing[-1] if missing else None
            job = Download(self._images, repository, layer, diff_id, self._reporter, below)
            if self._has(layer, diff_id):
                self._reporter.say("Already exists", job.id)
            else:
                self._reporter.say("Pulling fs layer", job.id)
                missing.append(job)
        await together(job.run() for job in missing)
