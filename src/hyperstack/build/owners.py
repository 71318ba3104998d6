"""``--chown``: users and groups to numbers; names are looked up in the image, by its guest."""

from __future__ import annotations

import re

from hyperstack.build.bench import Root
from hyperstack.build.copying import Owner
from hyperstack.errors import InvalidParameter

UNCHANGED = 0xFFFFFFFF
"""What chown(2) takes for "leave it"; everything that is copied is root's to begin with."""
_WORDS = "unable to convert uid/gid chown string to host mapping: "


async def owner(root: Root, text: str) -> Owner:
    """Return uid and gid of ``user[:group]``; without a group, the group of the user's name.

    Raises InvalidParameter in Docker's words.
    """
    parts = text.split(":")
    if len(parts) > 2:
        raise InvalidParameter(f"{_WORDS}invalid chown string format: {text}")
    user, group = parts[0], parts[-1]
    return await _number(root, user, group=False), await _number(root, group, group=True)


async def _number(root: Root, name: str, *, group: bool) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", name):
        number = int(name) & 0xFFFFFFFF  # as Docker hands it to the kernel
        return 0 if number == UNCHANGED else number
    try:
        return await root.owner(name, group=group)
    except InvalidParameter as error:
        what, kind = ("gid", "group") if group else ("uid", "user")
        words = f"can't find {what} for {kind} {name}: {error.message}"
        raise InvalidParameter(_WORDS + words) from error
