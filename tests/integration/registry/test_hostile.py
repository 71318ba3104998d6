"""Registries that lie, stall, lead astray or break off."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from hyperstack.errors import (
    HyperError,
    InternalError,
    InvalidParameter,
    NotFound,
    RateLimited,
    Unauthorized,
)
from hyperstack.image import distribution, download, transport
from hyperstack.image.auth import AuthConfig
from hyperstack.image.pull import pull
from hyperstack.image.registryside import RegistrySide
from hyperstack.image.transport import Limits
from tests.integration.registry.artefacts import Built, Layer, image, index, layer, noise, sha256
from tests.integration.registry.hostile import Shelf, cut, hostile, ranged
from tests.integration.registry.lines import said
from tests.integration.registry.servers import Certificates, serving

ONE = layer({"big": noise(2_000_000)})
AUTH = AuthConfig(username="user", password="secret")


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    async with hostile() as made:
        yield made


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(connect=2, idle=1, request=3, slow_window=1, slow_bytes=64 << 10)
    monkeypatch.setattr(transport, "LIMITS", limits)
    monkeypatch.setattr(download, "FIRST_WAIT", 0.01)


async def get(images: RegistrySide, shelf: Shelf, **more: str) -> list[tuple[str, str]]:
    return await said(pull(images, f"{shelf.host}/a/b", "v1", auth=AUTH, **more))


def nothing_is_left(images: RegistrySide, shelf: Shelf, one: Layer = ONE) -> None:
    assert images.lookup(f"{shelf.host}/a/b:v1") is None
    assert not images.content.has(one.digest)
    assert list(images.layers.diff_ids()) == []
    assert list((images.layers.root / "jobs").iterdir()) == []


async def test_a_blob_that_breaks_off_is_continued_where_it_ended(
    images: RegistrySide, shelf: Shelf
) -> None:
    cuts = iter((500_000, 700_000))

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        length = next(cuts, None)
        if length is None:
            return ranged(request, data)
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        await response.prepare(request)
        await response.write(data[start : start + length])
        await asyncio.sleep(0.2)
        assert request.transport is not None
        request.transport.close()
        return response

    shelf.put(image([ONE]))
    shelf.tricks[ONE.digest] = trick
    await get(images, shelf)
    ranges = [s.headers.get("Range") for s in shelf.server.asked(ONE.digest)]
    assert ranges == [None, "bytes=500000-", "bytes=1200000-"]
    assert images.content.path(ONE.digest).read_bytes() == ONE.blob


async def test_a_registry_without_ranges_is_read_from_the_start_again(
    images: RegistrySide, shelf: Shelf
) -> None:
    tries = iter((True, False))

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        if next(tries):
            return await cut(request, data, 300_000, len(data))
        return web.Response(body=data)

    shelf.put(image([ONE]))
    shelf.tricks[ONE.digest] = trick
    await get(images, shelf)
    assert images.content.path(ONE.digest).read_bytes() == ONE.blob


@pytest.mark.parametrize("content_range", ["bytes 1-9/10", "bytes 5-/x", "", "chunks 1-2/3"])
async def test_another_range_than_the_one_asked_for_is_refused(
    images: RegistrySide, shelf: Shelf, content_range: str
) -> None:
    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        if not request.http_range.start:
            return await cut(request, data, 600_000, len(data))
        return web.Response(status=206, body=data, headers={"Content-Range": content_range})

    shelf.put(image([ONE]))
    shelf.tricks[ONE.digest] = trick
    with pytest.raises(InternalError, match="another range"):
        await get(images, shelf)
    nothing_is_left(images, shelf)


async def test_a_partial_blob_of_wrong_bytes_is_thrown_away_and_fetched_again(
    images: RegistrySide, shelf: Shelf
) -> None:
    shelf.put(image([ONE]))
    partial = images.content.partial / ONE.digest[7:]
    partial.write_bytes(b"\0" * 100_000)
    await get(images, shelf)
    ranges = [s.headers.get("Range") for s in shelf.server.asked(ONE.digest)]
    assert ranges == ["bytes=100000-", None]
    assert images.content.path(ONE.digest).read_bytes() == ONE.blob


async def test_a_blob_that_always_breaks_off_ends_the_pull_after_the_set_tries(
    images: RegistrySide, shelf: Shelf
) -> None:
    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        return await cut(request, b"", 0, len(data))

    shelf.put(image([ONE]))
    shelf.tricks[ONE.digest] = trick
    with pytest.raises(InternalError, match="EOF"):
        await get(images, shelf)
    assert len(shelf.server.asked(ONE.digest)) == images.config.max_download_attempts
    nothing_is_left(images, shelf)


async def test_a_blob_of_other_bytes_is_refused(images: RegistrySide, shelf: Shelf) -> None:
    shelf.put(image([ONE]))
    other = bytearray(ONE.blob)
    other[1_000_000] ^= 1
    shelf.blobs[ONE.digest] = bytes(other)
    with pytest.raises(HyperError):
        await get(images, shelf)
    nothing_is_left(images, shelf)


async def test_a_good_blob_of_another_content_than_the_config_says_is_refused(
    images: RegistrySide, shelf: Shelf
) -> None:
    shelf.put(image([ONE], diff_ids=["sha256:" + "1" * 64]))
    with pytest.raises(InvalidParameter, match="verification failed"):
        await get(images, shelf)
    assert images.lookup(f"{shelf.host}/a/b:v1") is None
    assert list(images.layers.diff_ids()) == []


@pytest.mark.parametrize("known", [False, True])
async def test_a_blob_passes_for_no_layer_that_is_here_already(
    images: RegistrySide, shelf: Shelf, known: bool
) -> None:
    shelf.put(image([ONE]))
    await get(images, shelf)
    other = layer({"other": b"x"})
    if known:
        shelf.put(image([other], note="other"), "v1")
        await get(images, shelf)
    shelf.put(image([other], note="false", diff_ids=[ONE.diff_id]), "v1")
    with pytest.raises(InvalidParameter, match="verification failed"):
        await get(images, shelf)
    shelf.put(image([ONE, ONE], note="two", diff_ids=["sha256:" + "1" * 64, ONE.diff_id]), "v1")
    with pytest.raises(InvalidParameter, match="verification failed"):
        await get(images, shelf)
    assert [x.digest for x in images._store.catalog.blobs[ONE.diff_id]] == [ONE.digest]


async def test_a_blob_that_is_longer_or_shorter_than_it_should_be_is_refused_unread(
    images: RegistrySide, shelf: Shelf
) -> None:
    shelf.put(image([ONE]))
    for data in (ONE.blob + b"x", ONE.blob[:-1]):
        shelf.blobs[ONE.digest] = data
        with pytest.raises(InternalError, match="filesystem layer verification failed for"):
            await get(images, shelf)
        nothing_is_left(images, shelf)


async def test_an_endless_blob_of_unstated_length_is_cut_at_its_size(
    images: RegistrySide, shelf: Shelf
) -> None:
    sent = 0

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(data)
        while True:
            await response.write(b"\0" * 65536)
            sent += 65536

    shelf.put(image([ONE]))
    shelf.tricks[ONE.digest] = trick
    with pytest.raises(HyperError):
        await get(images, shelf)
    assert sent < 64 << 20
    nothing_is_left(images, shelf)


@pytest.mark.parametrize("where", ["/manifests/v1", "config"])
async def test_an_endless_document_is_cut_at_its_bound(
    images: RegistrySide, shelf: Shelf, where: str
) -> None:
    built = image([ONE])

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": built.media_type})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        while True:
            await response.write(b" " * 65536)

    shelf.put(built)
    shelf.tricks[built.id if where == "config" else where] = trick
    with pytest.raises(InternalError, match="the answer is longer than"):
        await get(images, shelf)


async def test_silence_is_borne_for_a_bounded_time(images: RegistrySide, shelf: Shelf) -> None:
    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    shelf.put(image([ONE]))
    for ending in (ONE.digest, "/manifests/v1", "/v2/"):
        shelf.tricks = {ending: trick}
        start = time.monotonic()
        with pytest.raises(InternalError, match="context deadline exceeded"):
            await get(images, shelf)
        assert time.monotonic() - start < 12


async def test_a_blob_that_crawls_is_given_up(images: RegistrySide, shelf: Shelf) -> None:
    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        for number in range(1000):
            await response.write(data[number : number + 1])
            await asyncio.sleep(0.05)
        return response

    shelf.put(image([ONE]))
    shelf.tricks[ONE.digest] = trick
    start = time.monotonic()
    with pytest.raises(InternalError, match="context deadline exceeded"):
        await get(images, shelf)
    assert time.monotonic() - start < 12
    assert len(shelf.server.asked(ONE.digest)) == images.config.max_download_attempts


async def test_headers_that_never_end_are_refused(images: RegistrySide, shelf: Shelf) -> None:
    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(headers={f"X-{n}": "y" * 200 for n in range(500)})

    shelf.tricks["/v2/"] = trick
    with pytest.raises(InternalError):
        await get(images, shelf)


async def redirected(
    images: RegistrySide, shelf: Shelf, where: str, status: int = 307
) -> list[tuple[str, str]]:
    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": where})

    shelf.put(image([ONE]))
    shelf.tricks[ONE.digest] = trick
    return await get(images, shelf)


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd", "ftp://a/b", "http://u:p@127.0.0.1/x", "http://a:99999/"]
)
async def test_a_redirect_that_leads_astray_ends_the_pull(
    images: RegistrySide, shelf: Shelf, where: str
) -> None:
    with pytest.raises(InternalError, match="redirect"):
        await redirected(images, shelf, where)
    nothing_is_left(images, shelf)


async def test_redirects_in_a_circle_end(images: RegistrySide, shelf: Shelf) -> None:
    with pytest.raises(InternalError, match="stopped after 10 redirects"):
        await redirected(images, shelf, f"/v2/a/b/blobs/{ONE.digest}")
    assert len(shelf.server.asked(ONE.digest)) == 11


async def test_who_we_are_is_told_to_the_registry_and_not_to_where_it_sends_us(
    images: RegistrySide, shelf: Shelf
) -> None:
    async def ping(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    async def store(request: web.Request) -> web.StreamResponse:
        if request.path == "/back":  # and on to the registry again
            return web.Response(status=302, headers={"Location": f"{shelf.server.base}/last"})
        return web.Response(body=ONE.blob)

    async def last(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(body=ONE.blob)

    shelf.tricks.update({"/v2/": ping, "/last": last})
    async with serving(store) as elsewhere:
        await redirected(images, shelf, f"{elsewhere.base}/back")
        assert [s.path for s in elsewhere.seen] == ["/back"]
        assert "Authorization" not in elsewhere.seen[0].headers
    assert "Authorization" not in shelf.server.asked("/last")[0].headers
    for request in shelf.server.asked("/manifests/") + shelf.server.asked("/blobs/"):
        assert request.headers["Authorization"].startswith("Basic ")
        assert "Cookie" not in request.headers


async def test_https_never_leads_to_http(images: RegistrySide, certificates: Certificates) -> None:
    async with hostile(certificates.context()) as shelf, hostile() as plain:
        plain.blobs[ONE.digest] = ONE.blob
        with pytest.raises(InternalError, match="a redirect from https to http is refused"):
            await redirected(images, shelf, f"{plain.server.base}/v2/a/b/blobs/{ONE.digest}")
        assert plain.server.seen == []


async def test_credentials_go_to_no_token_server_without_tls(
    images: RegistrySide, certificates: Certificates
) -> None:
    async with hostile(certificates.context()) as shelf, hostile() as plain:
        realm = f'Bearer realm="{plain.server.base}/token",service="x"'

        async def ping(request: web.Request, data: bytes) -> web.StreamResponse:
            return web.Response(status=401, headers={"WWW-Authenticate": realm})

        shelf.tricks["/v2/"] = ping
        with pytest.raises(InternalError, match="token server without TLS"):
            await get(images, shelf)
        assert plain.server.seen == []


async def test_indexes_in_indexes_end(images: RegistrySide, shelf: Shelf) -> None:
    here = {"os": "linux", "architecture": "amd64"}
    built = image([ONE])
    shelf.put(built)
    nested = built
    for depth in range(1, 6):
        nested = index([(nested, here)])
        shelf.put(nested)
        if depth <= 3:
            await get(images, shelf)
            await images._store.db.write(lambda c: c.execute("DELETE FROM image_names") and None)
            images._store.catalog.unname(f"{shelf.host}/a/b:v1")
        else:
            with pytest.raises(InvalidParameter, match="nested more than 3 deep"):
                await get(images, shelf)


async def test_an_index_that_names_itself_is_not_believed(
    images: RegistrySide, shelf: Shelf
) -> None:
    shelf.put(index([(image([ONE]), {"os": "linux", "architecture": "amd64"})]))
    data, kind = shelf.manifests["v1"]
    entry = json.loads(data)["manifests"][0]["digest"]
    shelf.manifests[entry] = (data, kind)
    with pytest.raises(InternalError, match="manifest verification failed for digest"):
        await get(images, shelf)


async def test_a_digest_in_a_header_is_not_believed(images: RegistrySide, shelf: Shelf) -> None:
    shelf.put(image([ONE]))
    other = image([], note="other")

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        headers = {"Docker-Content-Digest": other.digest, "Content-Type": other.media_type}
        return web.Response(headers=headers)

    shelf.tricks["/manifests/v1"] = trick
    shelf.tricks[f"/manifests/{other.digest}"] = lambda request, data: trick(request, data)
    with pytest.raises(InternalError, match="manifest verification failed"):
        await get(images, shelf)


@pytest.mark.parametrize("ending", ["layer", "config", "manifest"])
async def test_a_busy_registry_is_asked_again(
    images: RegistrySide, shelf: Shelf, ending: str
) -> None:
    answers = iter((503, 429))

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        status = next(answers, 0) if request.method == "GET" else 0
        return web.Response(status=status) if status else ranged(request, data, built.media_type)

    built = image([ONE])
    shelf.put(built)
    shelf.tricks[{"layer": ONE.digest, "config": built.id, "manifest": built.digest}[ending]] = (
        trick
    )
    await said(pull(images, f"{shelf.host}/a/b", built.digest))
    assert images.lookup(f"{shelf.host}/a/b@{built.digest}") == built.id
    assert list(answers) == []


async def test_a_registry_that_asks_for_a_long_rest_is_left_alone(
    images: RegistrySide, shelf: Shelf
) -> None:
    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        body = '{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}'
        return web.Response(
            status=429, headers={"Retry-After": "3600"}, text=body, content_type="application/json"
        )

    shelf.tricks["/manifests/v1"] = trick
    with pytest.raises(RateLimited, match="toomanyrequests: pull rate limit"):
        await get(images, shelf)
    assert len(shelf.server.asked("/manifests/v1", "GET")) == 1


async def test_tags_on_endless_pages_end_and_none_lies_elsewhere(
    images: RegistrySide, shelf: Shelf
) -> None:
    async def endless(request: web.Request, data: bytes) -> web.StreamResponse:
        link = f'</v2/a/b/tags/list?last={len(shelf.server.seen)}>; rel="next"'
        return web.json_response({"tags": []}, headers={"Link": link})

    async def elsewhere(request: web.Request, data: bytes) -> web.StreamResponse:
        link = '<http://127.0.0.1:9/v2/a/b/tags/list>; rel="next"'
        return web.json_response({"tags": []}, headers={"Link": link})

    shelf.tricks["/tags/list"] = endless
    with pytest.raises(InternalError, match="pages"):
        await said(pull(images, f"{shelf.host}/a/b"))
    shelf.tricks["/tags/list"] = elsewhere
    with pytest.raises(InternalError, match="lies elsewhere"):
        await said(pull(images, f"{shelf.host}/a/b"))


async def test_tags_that_are_no_tags_are_left_out(images: RegistrySide, shelf: Shelf) -> None:
    async def tags(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.json_response({"tags": ["../x", "v1", 7, None, "a b", "v1"], "name": None})

    built: Built = image([ONE])
    shelf.put(built)
    shelf.tricks["/tags/list"] = tags
    lines = await said(pull(images, f"{shelf.host}/a/b"))
    assert [id for id, status in lines if status.startswith("Pulling from")] == ["v1"]


async def test_a_foreign_layers_address_is_not_asked(images: RegistrySide, shelf: Shelf) -> None:
    async with hostile() as foreign:
        built = image([ONE])
        document = json.loads(built.manifest)
        document["layers"][0]["mediaType"] = (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        )
        document["layers"][0]["urls"] = [f"{foreign.server.base}/layer"]
        data = json.dumps(document).encode()
        shelf.put(built)
        shelf.manifests["v1"] = (data, built.media_type)
        with pytest.raises(InvalidParameter, match="are not fetched"):
            await get(images, shelf)
        assert foreign.server.seen == []
        assert sha256(data) != built.digest


async def test_secrets_reach_neither_the_log_nor_a_sentence(
    images: RegistrySide, shelf: Shelf, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def ping(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        return web.Response(status=401, text=str(request.headers))

    caplog.set_level("DEBUG")
    shelf.tricks = {"/v2/": ping, "/manifests/v1": trick}
    with pytest.raises(HyperError) as caught:
        await get(images, shelf)
    told = caught.value.message + caplog.text
    assert "secret" not in told
    assert "dXNlcjpzZWNyZXQ" not in told  # the same in base64


async def test_what_is_missing_in_the_registry_is_said(images: RegistrySide, shelf: Shelf) -> None:
    shelf.put(image([ONE]))
    del shelf.blobs[ONE.digest]
    with pytest.raises(NotFound, match="unknown blob"):
        await get(images, shelf)
    nothing_is_left(images, shelf)


async def test_a_config_that_is_missing_or_wrong_says_whose_fault_it_is(
    images: RegistrySide, shelf: Shelf
) -> None:
    built = image([ONE])
    shelf.put(built)
    what = "error pulling image configuration: "
    shelf.blobs[built.id] = b" " * len(built.config)
    with pytest.raises(InternalError, match=f"{what}image config verification failed"):
        await get(images, shelf)
    del shelf.blobs[built.id]
    with pytest.raises(
        InternalError, match=f"{what}download failed after attempts=1: unknown blob"
    ):
        await get(images, shelf)
    found = await distribution.inspect(images.config, f"{shelf.host}/a/b:v1", auth=AUTH)
    assert (found.digest, found.platforms) == (built.digest, ())


async def test_a_refusal_that_comes_late_is_told_in_its_own_words(
    images: RegistrySide, shelf: Shelf
) -> None:
    async def refuse(request: web.Request, data: bytes) -> web.StreamResponse:
        words = {"errors": [{"code": "UNAUTHORIZED", "message": "ask the owner"}]}
        return web.json_response(words, status=401, headers={"WWW-Authenticate": "Basic"})

    shelf.put(image([ONE]))
    shelf.tricks["/manifests/v1"] = refuse
    with pytest.raises(Unauthorized, match="unauthorized: ask the owner"):
        await said(pull(images, f"{shelf.host}/a/b", "v1"))
