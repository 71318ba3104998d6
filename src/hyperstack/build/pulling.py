"""Base images: one that is here, or one that is pulled while its progress is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from hyperstack.build.options import BuildOptions, Output
from hyperstack.errors import NotFound
from hyperstack.image.service import Image, ImageService


async def base_image(
    images: ImageService,
    name: str,
    platform: str,
    options: BuildOptions,
    say: Callable[[Output], Awaitable[None]],
) -> Image:
    """Return an image by name, id or prefix; pull it if it is missing, or if pulling is asked for.

    Raises InvalidParameter for a bad name or platform, and what a pull raises.
    """
    if not options.pull:
        # One that is here will do whatever its platform is, as with Docker.
        with contextlib.suppress(NotFound):
            return images.get(name)
    # These take longer to import than most builds need them for.
    from hyperstack.image.auth import choose
    from hyperstack.image.reference import Reference

    reference = Reference.parse(name).tagged()
    auth = choose(options.auth, reference.domain)
    lines = images.pull(reference.familiar(), platform=platform, auth=auth)
    async with contextlib.aclosing(lines):
        async for line in lines:
            await say(Output(progress=line))
    return images.get(name)


def check_platform(platform: str) -> None:
    """Raise InvalidParameter for a platform that is none."""
    from hyperstack.image.manifest import Platform

    Platform.parse(platform)
