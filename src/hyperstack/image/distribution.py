"""``GET /distribution/NAME/json``: what a registry has under a name, without pulling it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from hyperstack.config import Config
from hyperstack.errors import HyperError, InternalError
from hyperstack.ids import is_id
from hyperstack.image.auth import NOBODY, AuthConfig
from hyperstack.image.faults import Fault, Refused, translate
from hyperstack.image.manifest import (
    CONFIG_TYPES,
    MAX_CONFIG,
    Index,
    Manifest,
    Platform,
    parse_config,
    parse_manifest,
)
from hyperstack.image.reference import Reference
from hyperstack.image.registry import Repository, connect
from hyperstack.image.transport import Transport
from hyperstack.image.values import OCI_MANIFEST


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What a name stands for at its registry: ``size`` is the manifest's, in bytes."""

    media_type: str
    digest: str
    size: int
    platforms: tuple[Platform, ...]


async def inspect(config: Config, name: str, *, auth: AuthConfig = NOBODY) -> Distribution:
    """Return what *name* (``latest`` if it has no tag) is at its registry.

    Raises InvalidParameter for a bad name, NotFound if there is none, InternalError if it may not
    be seen, Unavailable without a registry.
    """
    if is_id(name):
        raise InternalError("no manifest found for full image ID")
    reference = Reference.parse(name).tagged()
    try:
        async with Transport() as transport:
            found = connect(transport, config, reference, auth)
            async with contextlib.aclosing(found) as repositories:
                async for repository in repositories:
                    try:
                        return await _inspect(repository, reference)
                    except (Fault, HyperError):
                        if not repository.endpoint.mirror:
                            raise
    except Fault as fault:
        raise translate(fault) from fault
    raise InternalError(f"no mirror has {reference.familiar()}")


async def _inspect(repository: Repository, reference: Reference) -> Distribution:
    if not reference.digest:
        await repository.head(reference.object)  # as dockerd, whose words name this request
    raw = await repository.manifest(reference.object)
    parsed = parse_manifest(raw.data, raw.media_type, reference.canonical())
    if isinstance(parsed, Index):
        platforms = tuple(entry.platform or Platform() for entry in parsed.manifests)
    elif raw.media_type.split(";")[0].strip() in (OCI_MANIFEST, ""):
        platforms = ()  # dockerd looks into configs of Docker's own kind alone
    else:
        platforms = await _platform(repository, parsed)
    return Distribution(
        media_type=parsed.media_type or raw.media_type,
        digest=raw.digest,
        size=len(raw.data),
        platforms=platforms,
    )


async def _platform(repository: Repository, manifest: Manifest) -> tuple[Platform, ...]:
    if manifest.config.media_type not in CONFIG_TYPES or manifest.config.size > MAX_CONFIG:
        return ()  # an artifact, not an image
    try:
        platform = parse_config(await repository.small_blob(manifest.config)).platform
    except (Refused, HyperError):
        return ()  # as dockerd, to which only the manifest matters
    return (platform,) if platform.os or platform.architecture else ()
