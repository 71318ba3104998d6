"""Import of what lies at a web address."""

from __future__ import annotations

import pytest
from aiohttp import web

from hyperstack.errors import Forbidden, HyperError, InternalError, NotFound
from hyperstack.image import fetch
from hyperstack.image.service import ImageService
from tests.integration.image.tars import files
from tests.integration.registry.servers import Server, serving

ROOT = files(a=b"x" * 1000)


async def answer(request: web.Request) -> web.StreamResponse:
    """Serve ROOT, refusals by their status, and what leads elsewhere."""
    path = request.path
    if path == "/root.tar":
        return web.Response(body=ROOT)
    if path == "/moved":
        return web.Response(status=302, headers={"Location": "/root.tar"})
    if path == "/file":
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})
    if path == "/garbage":
        return web.Response(body=b"x" * 1024)
    return web.Response(status=int(path[1:]), text="words")


async def lines(images: ImageService, source: str) -> list[str]:
    return [line.status async for line in images.import_(source, repo="fetched")]


@pytest.mark.parametrize("path", ["root.tar", "moved"])
async def test_an_image_is_made_of_what_an_address_has(images: ImageService, path: str) -> None:
    async with serving(answer) as server:
        said = await lines(images, f"{server.host}/{path}")
    image = images.get("fetched")
    assert said[0] == f"Downloading from {server.base}/{path}"
    assert said[1:] == ["Importing", image.id]
    assert image.comment == f"Imported from {server.base}/{path}"
    assert image.size == 1000


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("404", NotFound, "404 Not Found: words"),
        ("403", Forbidden, "403 Forbidden: words"),
        ("409", InternalError, "409 Conflict: words"),
        ("500", InternalError, "500 Internal Server Error: words"),
    ],
)
async def test_a_refusal_is_told_with_its_status(
    images: ImageService, path: str, kind: type[HyperError], words: str
) -> None:
    async with serving(answer) as server:
        with pytest.raises(kind) as caught:
            await lines(images, f"{server.base}/{path}")
        assert caught.value.message == f"failed to GET {server.base}/{path} with status {words}"


async def bad(images: ImageService, server: Server, path: str) -> str:
    with pytest.raises(InternalError) as caught:
        await lines(images, f"{server.base}/{path}")
    assert images.count() == 0
    return caught.value.message


async def test_what_is_no_tar_or_lies_elsewhere_makes_no_image(
    images: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(answer) as server:
        assert await bad(images, server, "garbage") == "archive/tar: invalid tar header"
        assert "refused" in await bad(images, server, "file")
        monkeypatch.setattr(fetch, "MAX_BYTES", 100)
        assert "more than" in await bad(images, server, "root.tar")
    assert "connection refused" in await bad(images, server, "root.tar")
