"""Containers: their files, as tars: archive, export, changes; and images made of them."""

from __future__ import annotations

import base64
import re
import stat as st
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from hyperstack.api.docker import gojson
from hyperstack.api.docker.closing import closing
from hyperstack.api.docker.gotime import moment
from hyperstack.api.docker.request import Request
from hyperstack.api.docker.router import Router
from hyperstack.api.docker.schema.config import read_whole_config
from hyperstack.errors import InvalidParameter
from hyperstack.model import ContainerConfig, PathStat

if TYPE_CHECKING:
    from hyperstack.engine.engine import Engine

TAR = "application/x-tar"
PIECE = 16 << 10
"""Compressed bytes that are expanded at once."""

_TAG = re.compile(r"\w[\w.-]{0,127}\Z", re.ASCII)
# Go's os.FileMode: the permission bits are Unix's, the rest is not.
_GO_TYPES = {
    st.S_IFDIR: 1 << 31,
    st.S_IFLNK: 1 << 27,
    st.S_IFBLK: 1 << 26,
    st.S_IFCHR: 1 << 26 | 1 << 21,
    st.S_IFIFO: 1 << 25,
    st.S_IFSOCK: 1 << 24,
}
_GO_BITS = ((st.S_ISUID, 1 << 23), (st.S_ISGID, 1 << 22), (st.S_ISVTX, 1 << 20))


def add_to(router: Router) -> None:
    """Add the routes."""
    router.add("HEAD", "/containers/{name}/archive", archive_stat)
    router.add("GET", "/containers/{name}/archive", archive_get)
    router.add("PUT", "/containers/{name}/archive", archive_put)
    router.add("GET", "/containers/{name}/export", export, waits=True)
    router.add("GET", "/containers/{name}/changes", changes)
    router.add("POST", "/commit", commit)


def go_mode(mode: int) -> int:
    """Return a st_mode as Go's ``os.FileMode``."""
    made = mode & 0o777 | _GO_TYPES.get(st.S_IFMT(mode), 0)
    for bit, go_bit in _GO_BITS:
        if mode & bit:
            made |= go_bit
    return made


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")  # as dockerd 28 has it
    return path


def _stat_header(found: PathStat) -> tuple[str, str]:
    made = {
        "name": found.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": moment(found.mtime_ns),
        "linkTarget": found.link_target,
    }
    encoded = base64.b64encode(gojson.encode(made).strip()).decode()
    return "X-Docker-Container-Path-Stat", encoded


async def archive_stat(request: Request, engine: Engine) -> None:
    """``HEAD /containers/{name}/archive``"""
    found = await engine.containers.archive_stat(request.name, _path(request))
    await request.answer(200, headers=[_stat_header(found)])


async def archive_get(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/archive``"""
    found, chunks = await engine.containers.archive_get(request.name, _path(request))
    await _send_tar(request, chunks, TAR, [_stat_header(found)])


async def _send_tar(
    request: Request,
    chunks: AsyncIterator[bytes],
    content_type: str,
    headers: list[tuple[str, str]],
) -> None:
    async with closing(chunks):
        stream = await request.start(content_type=content_type, headers=headers)
        async for chunk in chunks:
            await stream.write(chunk)
        await stream.end()


async def archive_put(request: Request, engine: Engine) -> None:
    """``PUT /containers/{name}/archive``"""
    await engine.containers.archive_put(
        request.name,
        _path(request),
        plain(request.stream()),
        no_overwrite_dir_non_dir=request.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid=request.query.flag("copyUIDGID"),
    )
    await request.answer(200)


async def plain(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a tar that may come compressed (gzip, bzip2, xz, zstd), piece by piece."""
    from hyperstack.image.compression import Compression, SniffingDecoder

    pieces: list[bytes] = []
    decoder = SniffingDecoder(pieces.append)
    async for data in body:
        # What is compressed may expand a thousandfold: little of it at once.
        step = len(data) if decoder.kind is Compression.NONE else PIECE
        for start in range(0, len(data), step):
            decoder.write(data[start : start + step])
            while pieces:
                yield pieces.pop(0)
    decoder.finish()
    for piece in pieces:
        yield piece


async def export(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/export``"""
    chunks = await engine.containers.export(request.name)
    await _send_tar(request, chunks, "application/octet-stream", [])


async def changes(request: Request, engine: Engine) -> None:
    """``GET /containers/{name}/changes``"""
    found = await engine.containers.changes(request.name)
    await request.answer_json([{"Path": c.path, "Kind": c.kind} for c in found] or None)


async def commit(request: Request, engine: Engine) -> None:
    """``POST /commit``"""
    raw: Any = await request.json(lenient=True)
    config: ContainerConfig | None = read_whole_config(raw) if raw is not None else None
    query = request.query
    if not query.text("container"):
        raise InvalidParameter('invalid name or ID supplied: ""')
    if (tag := query.text("tag")) and not _TAG.match(tag):
        raise InvalidParameter("invalid tag format")
    identifier = await engine.containers.commit(
        query.text("container"),
        repo=query.text("repo"),
        tag=query.text("tag"),
        comment=query.text("comment"),
        author=query.text("author"),
        pause=query.flag("pause", True),
        changes=query.all("changes"),
        config=config,
    )
    await request.answer_json({"Id": identifier}, 201)
