"""``--chown``: names of users and groups to numbers, by the image's own files.

The files come out of a guest as a tar and are read here as bounded lines of data; nothing of them
reaches a path.
"""

from __future__ import annotations

import contextlib

from hyperstack.build.bench import Root
from hyperstack.build.copying import Owner, locate
from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt

MAX_FILE = 4 << 20
MAX_ID = 0xFFFFFFFE
_WORDS = "unable to convert uid/gid chown string to host mapping: "


async def owner(root: Root, text: str) -> Owner:
    """Return uid and gid of ``user[:group]``; without a group, the group of the user's name.

    Raises InvalidParameter in Docker's words.
    """
    parts = text.split(":")
    if len(parts) > 2:
        raise InvalidParameter(f"{_WORDS}invalid chown string format: {text}")
    user, group = parts[0], parts[-1]
    uid = await _number(root, user, "/etc/passwd", "uid", "user")
    return uid, await _number(root, group, "/etc/group", "gid", "group")


async def _number(root: Root, name: str, path: str, what: str, kind: str) -> int:
    if name.lstrip("+-").isdigit() and name.isascii():
        number = int(name) if len(name) <= 11 else -1
        if 0 <= number <= MAX_ID:
            return number
        raise InvalidParameter(f"{_WORDS}{what} {name} is out of range")
    for line in (await _read(root, path)).split(b"\n"):
        fields = line.strip().split(b":")
        if len(fields) > 2 and fields[0] == name.encode() and fields[2].isdigit():
            number = int(fields[2][:11])
            if number <= MAX_ID:
                return number
    raise InvalidParameter(f"{_WORDS}can't find {what} for {kind} {name}: no such {kind}: {name}")


async def _read(root: Root, path: str) -> bytes:
    """Return the start of a file of the image, empty if there is none."""
    place = await locate(root, path)
    if place.mode is None or place.is_dir:
        return b""
    data = bytearray()
    async with contextlib.aclosing(await root.get(place.path)) as tar:
        async for piece in tar:
            data += piece
            if len(data) > MAX_FILE:
                break
    return _content(bytes(data))


def _content(tar: bytes) -> bytes:
    """Return the bytes of the first file of a tar."""
    at = 0
    while len(tar) >= at + tarfmt.BLOCK:
        header = tarfmt.parse(tar[at : at + tarfmt.BLOCK])
        at += tarfmt.BLOCK
        if header.type == tarfmt.FILE:
            return tar[at : at + header.size]
        at += tarfmt.padded(header.size)
    return b""
