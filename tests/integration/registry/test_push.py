"""Pushes to a real registry and to one that breaks off, refuses or leads elsewhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web

from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.image import upload
from hyperstack.image.auth import AuthConfig
from hyperstack.image.pull import pull
from hyperstack.image.push import push
from hyperstack.image.registryside import RegistrySide
from tests.integration.registry.artefacts import Built, image, layer, noise, publish, sha256
from tests.integration.registry.hostile import Shelf, hostile
from tests.integration.registry.lines import everything, said
from tests.integration.registry.servers import Registry, free_port, running_registry, serving


@pytest.fixture
async def built(registry: Registry, images: RegistrySide) -> Built:
    """An image of three layers in the store, one of them zstd."""
    layers = [layer({"a": noise(900_000)}), layer({"b": b"b"}), layer({"c": b"c"}, "zstd")]
    made = image(layers, oci=True)
    publish(registry.base, "push/source", "v1", made)
    await said(pull(images, f"{registry.host}/push/source", "v1"))
    return made


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("other")) as running:
        yield running


def ids(built: Built) -> list[str]:
    return [x.diff_id[7:19] for x in reversed(built.layers)]


async def test_a_push_says_what_docker_says_and_is_byte_exact(
    other: Registry, images: RegistrySide, built: Built
) -> None:
    name = f"{other.host}/foo/new"
    await images.tag(built.id, f"{name}:v1")
    lines = await everything(push(images, name, "v1"))
    states = [(x.id, x.status) for x in lines if x.status != "Pushing" and not x.aux]
    assert states[:4] == [
        ("", f"The push refers to repository [{name}]"),
        *((id, "Preparing") for id in ids(built)),
    ]
    assert sorted(states[4:-1]) == sorted((id, "Pushed") for id in ids(built))
    size = len(built.manifest)
    assert states[-1] == ("", f"v1: digest: {built.digest} size: {size}")
    assert lines[-1].aux == {"Tag": "v1", "Digest": built.digest, "Size": size}

    assert other.manifest("foo/new", "v1") == built.manifest
    for digest, data in built.blobs.items():
        assert other.blob(digest) == data
    assert images.lookup(f"{name}@{built.digest}") == built.id


async def test_a_second_push_finds_everything_there(
    other: Registry, images: RegistrySide, built: Built
) -> None:
    name = f"{other.host}/foo/twice"
    await images.tag(built.id, f"{name}:v1")
    await said(push(images, name, "v1"))
    lines = await said(push(images, name, "v1"))
    assert sorted(lines[4:-1]) == sorted((id, "Layer already exists") for id in ids(built))


async def test_blobs_are_taken_over_from_another_repository(
    other: Registry, images: RegistrySide, built: Built
) -> None:
    await images.tag(built.id, f"{other.host}/foo/first:v1")
    await said(push(images, f"{other.host}/foo/first", "v1"))
    await images.tag(built.id, f"{other.host}/foo/second:v1")
    lines = await said(push(images, f"{other.host}/foo/second", "v1"))
    assert sorted(lines[4:-1]) == sorted((id, "Mounted from foo/first") for id in ids(built))
    assert other.manifest("foo/second", "v1") == built.manifest


async def test_all_tags_are_pushed_without_one(
    other: Registry, images: RegistrySide, built: Built
) -> None:
    for tag in ("x", "y"):
        await images.tag(built.id, f"{other.host}/foo/all:{tag}")
    lines = await said(push(images, f"{other.host}/foo/all"))
    ends = [status.split(":")[0] for _, status in lines if " digest: " in status]
    assert ends == ["x", "y"]
    assert sum(status.startswith("The push refers") for _, status in lines) == 1


async def test_what_was_pushed_is_pulled_again_elsewhere(
    other: Registry, images: RegistrySide, built: Built
) -> None:
    name = f"{other.host}/foo/back"
    await images.tag(built.id, f"{name}:v1")
    await said(push(images, name, "v1"))
    assert await said(pull(images, name, "v1")) == [
        ("v1", "Pulling from foo/back"),
        ("", f"Digest: {built.digest}"),
        ("", f"Status: Image is up to date for {name}:v1"),
    ]


async def test_what_is_not_here_is_not_pushed(
    registry: Registry, images: RegistrySide, built: Built
) -> None:
    name = f"{registry.host}/foo/none"
    for tag in ("v1", ""):
        with pytest.raises(NotFound) as caught:
            await said(push(images, name, tag))
        assert caught.value.message == f"An image does not exist locally with the tag: {name}"
    await images.tag(built.id, f"{name}:v1")
    with pytest.raises(NotFound, match="tag does not exist"):
        await said(push(images, name, "v2"))
    with pytest.raises(InvalidParameter, match="cannot push a digest reference"):
        await said(push(images, f"{name}@{built.digest}"))
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        await said(push(images, name, built.digest))


async def test_the_first_line_comes_before_the_registry_is_asked(
    images: RegistrySide, built: Built
) -> None:
    name = f"127.0.0.1:{free_port()}/foo"
    await images.tag(built.id, f"{name}:v1")
    lines = push(images, name, "v1")
    assert (await anext(lines)).status == f"The push refers to repository [{name}]"
    with pytest.raises(InternalError, match="connection refused"):
        await anext(lines)


class Upload:
    """The upload side of a registry in memory: by one PUT, or by chunks that add up."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.parts: dict[str, bytearray] = {}
        self.break_whole = 0
        self.break_chunk = 0
        self.too_large = 1 << 40
        self.where = ""
        shelf.tricks["/uploads/"] = self.begin

    async def begin(self, request: web.Request, data: bytes) -> web.StreamResponse:
        name = f"u{len(self.parts)}"
        self.parts[name] = bytearray()
        self.shelf.tricks[f"/upload/{name}"] = self.go_on
        where = f"{self.where}/upload/{name}?_state=a%2Bb%3D%3D"
        return web.Response(status=202, headers={"Location": where})

    async def go_on(self, request: web.Request, data: bytes) -> web.StreamResponse:
        assert request.query["_state"] == "a+b=="
        name = request.path.rsplit("/", 1)[-1]
        part = self.parts[name]
        if request.method == "GET":
            return self._state(name, 204)
        if int(request.headers.get("Content-Length", 0)) > self.too_large:
            return web.Response(status=413)
        kind = "break_whole" if request.method == "PUT" else "break_chunk"
        if getattr(self, kind) and int(request.headers.get("Content-Length", 0)) > 100_000:
            setattr(self, kind, getattr(self, kind) - 1)
            taken = await request.content.readexactly(100_000)
            if request.method == "PATCH":
                part += taken
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if request.method == "PATCH":
            match = re.fullmatch(r"([0-9]+)-([0-9]+)", request.headers["Content-Range"])
            assert match
            assert int(match[1]) == len(part)
        part += await request.read()
        if request.method == "PATCH":
            return self._state(name, 202)
        assert sha256(bytes(part)) == request.query["digest"]
        self.shelf.blobs[request.query["digest"]] = bytes(part)
        return web.Response(status=201)

    def _state(self, name: str, status: int) -> web.Response:
        size = len(self.parts[name])
        return web.Response(status=status, headers={
            "Location": f"{self.where}/upload/{name}?_state=a%2Bb%3D%3D",
            "Range": f"0-{max(0, size - 1)}",
        })  # fmt: skip


@pytest.fixture
async def uploads(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upload]:
    monkeypatch.setattr(upload, "BACKOFF", 0.01)
    monkeypatch.setattr(upload, "CHUNK", 300_000)
    async with hostile() as shelf:
        made = Upload(shelf)

        async def manifest(request: web.Request, data: bytes) -> web.StreamResponse:
            shelf.manifests["put"] = (await request.read(), request.content_type)
            return web.Response(status=201)

        shelf.tricks["/manifests/v1"] = manifest
        yield made


async def pushed(images: RegistrySide, uploads: Upload, built: Built, **more: AuthConfig) -> None:
    name = f"{uploads.shelf.host}/foo"
    await images.tag(built.id, f"{name}:v1")
    await said(push(images, name, "v1", **more))
    assert uploads.shelf.manifests["put"] == (built.manifest, built.media_type)
    for digest, data in built.blobs.items():
        assert uploads.shelf.blobs[digest] == data


async def test_a_blob_goes_up_in_one_request(
    images: RegistrySide, uploads: Upload, built: Built
) -> None:
    await pushed(images, uploads, built)
    assert uploads.shelf.server.asked("/upload/", "PATCH") == []


async def test_an_upload_that_breaks_off_goes_on_in_chunks(
    images: RegistrySide, uploads: Upload, built: Built
) -> None:
    uploads.break_whole, uploads.break_chunk = 1, 1
    uploads.shelf.server.seen.clear()
    await pushed(images, uploads, built)
    sent = [s.headers["Content-Range"] for s in uploads.shelf.server.asked("/upload/", "PATCH")]
    assert sent[0] == "0-299999"
    assert sent[1].startswith("100000-")  # after what the registry had of the broken chunk


async def test_an_upload_that_is_too_large_at_once_goes_in_chunks(
    images: RegistrySide, uploads: Upload, built: Built
) -> None:
    uploads.too_large = 400_000
    await pushed(images, uploads, built)
    assert len(uploads.shelf.server.asked("/upload/", "PATCH")) >= 3


async def test_who_we_are_is_not_told_where_the_registry_has_blobs_sent(
    images: RegistrySide, uploads: Upload, built: Built
) -> None:
    async def ping(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    uploads.shelf.tricks["/v2/"] = ping

    async def store(request: web.Request) -> web.StreamResponse:
        return await uploads.go_on(request, b"")

    async with serving(store) as elsewhere:
        uploads.where = elsewhere.base
        await pushed(images, uploads, built, auth=AuthConfig(username="u", password="p"))
        assert elsewhere.seen
        assert all("Authorization" not in s.headers for s in elsewhere.seen)
    assert all("Authorization" in s.headers for s in uploads.shelf.server.seen if s.path != "/v2/")


async def test_a_registry_that_denies_a_push_is_quoted(
    images: RegistrySide, uploads: Upload, built: Built
) -> None:
    async def deny(request: web.Request, data: bytes) -> web.StreamResponse:
        body = {"errors": [{"code": "DENIED", "message": "requested access is denied"}]}
        return web.json_response(body, status=403)

    uploads.shelf.tricks["/uploads/"] = deny
    with pytest.raises(Exception, match=r"^denied: requested access is denied$"):
        await pushed(images, uploads, built)


async def test_an_upload_to_nowhere_is_refused(
    images: RegistrySide, uploads: Upload, built: Built
) -> None:
    for where in ("", "file:///etc/passwd"):

        async def begin(
            request: web.Request, data: bytes, where: str = where
        ) -> web.StreamResponse:
            return web.Response(status=202, headers={"Location": where} if where else {})

        uploads.shelf.tricks["/uploads/"] = begin
        with pytest.raises(Exception, match=r"upload|redirect"):
            await pushed(images, uploads, built)
