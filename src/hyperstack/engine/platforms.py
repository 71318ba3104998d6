"""For which platform an image is made, and whether this host is one.

Follows moby's ``daemon/create.go`` and containerd's ``platforms`` (``compare.go``,
``cpuinfo_linux.go``): levels of amd64 are those of the psABI.
"""

from __future__ import annotations

import functools
from pathlib import Path

from msgspec.structs import replace

from hyperstack.errors import NotFound
from hyperstack.image.manifest import Platform, host
from hyperstack.image.service import Image

_LEVELS = (
    "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3".split(),
    "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split(),
    "avx512f avx512bw avx512cd avx512dq avx512vl".split(),
)
"""What a processor has from the second level on, in the words of /proc/cpuinfo."""


def check(name: str, image: Image, wanted: Platform) -> None:
    """Raise NotFound, upon which the CLI pulls, if an image is for another platform."""
    made = of(image)
    if not (wanted.accepts(made) or _runs(made.normal(), wanted.normal())):
        raise NotFound(
            f"image with reference {name} was found but its platform ({made.normal()}) does not "
            f"match the specified platform ({wanted.normal()})"
        )


def warning(image: Image) -> str:
    """Return what to say of an image that was not made for this host, "" if it was."""
    made, here = of(image), detected()
    older = (image.os, image.architecture, here.architecture) == ("linux", "386", "amd64")
    if older or here.accepts(made) or _runs(made.normal(), here):
        return ""
    return (
        f"The requested image's platform ({made}) does not match the detected host platform "
        f"({here}) and no specific platform was requested"
    )


def of(image: Image) -> Platform:
    """Return the platform that an image names."""
    return Platform(os=image.os, architecture=image.architecture, variant=image.variant)


def _runs(made: Platform, wanted: Platform) -> bool:
    """Tell whether a processor of a later level (``amd64/v3``) is asked for than an image needs."""
    same = (made.os, made.architecture) == (wanted.os, wanted.architecture)
    levels = [platform.variant.removeprefix("v") or "1" for platform in (made, wanted)]
    return same and made.architecture == "amd64" and levels[0] <= levels[1]


@functools.cache
def detected() -> Platform:
    """Return this host's platform with its processor's level, ``linux/amd64/v3``."""
    here = host()
    if here.architecture != "amd64":
        return here
    return replace(here, variant=f"v{level(_flags())}")


def level(flags: frozenset[str]) -> int:
    """Return the level of an amd64 processor, 1 to 4, by its flags in /proc/cpuinfo."""
    found = 1
    for needed in _LEVELS:
        if not flags.issuperset(needed):
            break
        found += 1
    return found


def _flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
