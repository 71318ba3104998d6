"""Base images: one that is here, or one that is pulled while its progress is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from hyperstack.build.options import BuildOptions, Output
from hyperstack.errors import InvalidParameter, NotFound
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
        with contextlib.suppress(NotFound):
            image = images.get(name)
            if _fits(image, platform):
                return image
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


def _fits(image: Image, platform: str) -> bool:
    """Tell whether an image is what was asked for. Raises InvalidParameter for a bad platform."""
    if not platform:
        return True
    from hyperstack.image.manifest import Platform

    try:
        wanted = Platform.parse(platform)
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to parse platform {platform}: {error.message}") from error
    its = Platform(os=image.os or "linux", architecture=image.architecture, variant=image.variant)
    return wanted.accepts(its)
