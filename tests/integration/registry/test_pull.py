"""Pulls from a real registry, compared with what dockerd prints for the same."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from hyperstack.errors import Forbidden, HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.image import endpoints
from hyperstack.image.pull import pull
from hyperstack.image.registryside import RegistrySide
from tests.integration.registry.artefacts import image, index, layer, noise, publish
from tests.integration.registry.lines import everything, said
from tests.integration.registry.servers import (
    Certificates,
    Registry,
    free_port,
    running_registry,
    serving,
)


def of(lines: list[tuple[str, str]], id: str) -> list[str]:
    return [status for other, status in lines if other == id]


def layer_files(images: RegistrySide) -> set[str]:
    return set(images.layers.diff_ids())


async def test_a_pull_says_what_docker_says_and_leaves_an_image(
    registry: Registry, images: RegistrySide
) -> None:
    layers = [layer({f"f{n}": noise(5000, n)}) for n in range(3)]
    built = image(layers, note="first")
    publish(registry.base, "foo/three", "v1", built)
    name = f"{registry.host}/foo/three"

    lines = await said(pull(images, name, "v1"))

    assert lines[0] == ("v1", "Pulling from foo/three")
    assert lines[1:4] == [(x.short, "Pulling fs layer") for x in layers]
    assert lines[-2:] == [
        ("", f"Digest: {built.digest}"),
        ("", f"Status: Downloaded newer image for {name}:v1"),
    ]
    for one in layers:
        assert of(lines, one.short) == [
            "Pulling fs layer",
            "Verifying Checksum",
            "Download complete",
            "Pull complete",
        ]
        assert images.content.path(one.digest).read_bytes() == one.blob
        assert images.layers.has(one.diff_id)
    assert images.lookup(f"{name}:v1") == built.id
    assert images.lookup(f"{name}@{built.digest}") == built.id
    assert images.config_of(built.id) == built.config
    manifest = images.manifest_of(built.id)
    assert (manifest.data, manifest.media_type) == (built.manifest, built.media_type)


async def test_bars_end_at_the_layers_size(registry: Registry, images: RegistrySide) -> None:
    one = layer({"big": noise(3_000_000)})
    publish(registry.base, "foo/bars", "v1", image([one]))
    lines = await everything(pull(images, f"{registry.host}/foo/bars", "v1"))
    for status in ("Downloading", "Extracting"):
        bars = [x for x in lines if x.status == status and x.id == one.short]
        assert bars[-1].current == bars[-1].total == len(one.blob)
        assert [x.current for x in bars] == sorted(x.current for x in bars)


async def test_a_second_pull_is_up_to_date_and_another_tag_is_only_a_name(
    registry: Registry, images: RegistrySide
) -> None:
    built = image([layer({"a": b"a"})])
    publish(registry.base, "foo/again", "v1", built)
    publish(registry.base, "foo/again", "v2", built)
    name = f"{registry.host}/foo/again"
    await said(pull(images, name, "v1"))
    assert await said(pull(images, name, "v1")) == [
        ("v1", "Pulling from foo/again"),
        ("", f"Digest: {built.digest}"),
        ("", f"Status: Image is up to date for {name}:v1"),
    ]
    assert await said(pull(images, name, "v2")) == [
        ("v2", "Pulling from foo/again"),
        ("", f"Digest: {built.digest}"),
        ("", f"Status: Downloaded newer image for {name}:v2"),
    ]
    assert images.lookup(f"{name}:v2") == built.id
    reference = f"{name}@{built.digest}"
    assert await said(pull(images, name, built.digest)) == [
        (reference, "Pulling from foo/again"),
        ("", f"Digest: {built.digest}"),
        ("", f"Status: Image is up to date for {reference}"),
    ]


async def test_a_tag_that_moved_is_pulled_anew_and_shared_layers_stay(
    registry: Registry, images: RegistrySide
) -> None:
    base = layer({"base": noise(1000)})
    publish(registry.base, "foo/moved", "v1", image([base]))
    name = f"{registry.host}/foo/moved"
    await said(pull(images, name, "v1"))
    newer = image([base, layer({"more": b"m"})])
    publish(registry.base, "foo/moved", "v1", newer)
    lines = await said(pull(images, name, "v1"))
    assert of(lines, base.short) == ["Already exists"]
    assert lines[-1] == ("", f"Status: Downloaded newer image for {name}:v1")
    assert images.lookup(f"{name}:v1") == newer.id


async def test_all_tags_are_pulled_without_one(registry: Registry, images: RegistrySide) -> None:
    built = {tag: image([layer({tag: b"x"})], note=tag) for tag in ("a", "b", "c")}
    for tag, one in built.items():
        publish(registry.base, "foo/all", tag, one)
    name = f"{registry.host}/foo/all"
    lines = await said(pull(images, name))
    assert sorted(x for x in lines if x[1].startswith("Pulling from")) == [
        (tag, "Pulling from foo/all") for tag in built
    ]
    assert lines[-1] == ("", f"Status: Downloaded newer image for {name}")
    assert {images.lookup(f"{name}:{tag}") for tag in built} == {x.id for x in built.values()}


async def test_zstd_plain_and_repeated_layers_come_too(
    registry: Registry, images: RegistrySide
) -> None:
    layers = [
        layer({"a": b"a" * 9999}, "zstd"), layer({"b": b"b"}, "tar", oci=True),
        layer({"c": b"c"}, oci=True), layer({"c": b"c"}, oci=True),
    ]  # fmt: skip
    built = image(layers, oci=True)
    publish(registry.base, "foo/oci", "v1", built)
    lines = await said(pull(images, f"{registry.host}/foo/oci", "v1"))
    assert lines[-1][1].startswith("Status: Downloaded")
    assert {x.diff_id for x in layers} == layer_files(images)
    assert images.manifest_of(built.id).data == built.manifest


async def test_layers_are_shown_as_complete_from_the_lowest_up(
    registry: Registry, images: RegistrySide
) -> None:
    layers = [layer({"large": noise(4_000_000)}), *(layer({f"f{n}": b"x"}) for n in range(5))]
    publish(registry.base, "foo/ordered", "v1", image(layers))
    lines = await everything(pull(images, f"{registry.host}/foo/ordered", "v1"))
    complete = [line.id for line in lines if line.status == "Pull complete"]
    assert complete == [one.short for one in layers]
    states = [(line.id, line.status) for line in lines]
    for below, one in pairwise(layers):
        before = states.index((below.short, "Pull complete"))
        assert states.index((one.short, "Extracting")) > before


async def test_an_image_of_127_layers_comes(registry: Registry, images: RegistrySide) -> None:
    built = image([layer({f"f{n}": b"%d" % n}) for n in range(127)])
    publish(registry.base, "foo/deep", "v1", built)
    lines = await said(pull(images, f"{registry.host}/foo/deep", "v1"))
    assert sum(status == "Pull complete" for _, status in lines) == 127
    assert any(status == "Waiting" for _, status in lines)


async def test_an_index_gives_the_hosts_image_and_keeps_its_own_digest(
    registry: Registry, images: RegistrySide
) -> None:
    mine, other = image([layer({"m": b"m"})]), image([layer({"o": b"o"})], machine="arm64")
    for one in (mine, other):
        publish(registry.base, "foo/multi", one.digest, one)
    both = index([
        (other, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
        (mine, {"os": "linux", "architecture": "amd64"}),
    ])  # fmt: skip
    publish(registry.base, "foo/multi", "v1", both)
    name = f"{registry.host}/foo/multi"

    lines = await said(pull(images, name, "v1"))
    assert ("", f"Digest: {both.digest}") in lines
    assert images.lookup(f"{name}:v1") == mine.id

    await said(pull(images, name, "v1", platform="linux/arm64"))
    assert images.lookup(f"{name}:v1") == other.id

    with pytest.raises(NotFound) as caught:
        await said(pull(images, name, "v1", platform="linux/s390x"))
    assert caught.value.message == (
        "no matching manifest for linux/s390x in the manifest list entries"
    )


async def test_a_single_image_of_another_platform_comes_with_a_warning(
    registry: Registry, images: RegistrySide
) -> None:
    publish(registry.base, "foo/single", "v1", image([layer({"s": b"s"})]))
    name = f"{registry.host}/foo/single"
    lines = await said(pull(images, name, "v1", platform="linux/arm64"))
    assert lines[-1] == (
        "",
        f"WARNING: image with reference {name}:v1 was found but its platform "
        "(linux/amd64) does not match the specified platform (linux/arm64)",
    )


@pytest.mark.parametrize(
    ("suffix", "tag", "kind", "sentence"),
    [
        (
            "foo/nope",
            "latest",
            NotFound,
            "manifest for {}/foo/nope:latest not found: manifest unknown: manifest unknown",
        ),
        (
            "foo/nope",
            "sha256:" + "0" * 64,
            NotFound,
            "manifest for {}/foo/nope@sha256:" + "0" * 64 + " not found: manifest unknown: "
            "manifest unknown",
        ),
        (
            "foo/nope",
            "",
            NotFound,
            "repository {}/foo/nope not found: name unknown: repository name not known to registry",
        ),
        (
            "FOO/x",
            "v1",
            InvalidParameter,
            "invalid reference format: repository name (FOO/x) must be lowercase",
        ),
        ("foo/x", "a:b", InvalidParameter, "invalid tag format"),
    ],
)
async def test_what_is_not_there_is_refused_in_dockers_words(
    registry: Registry,
    images: RegistrySide,
    suffix: str,
    tag: str,
    kind: type[HyperError],
    sentence: str,
) -> None:
    with pytest.raises(kind) as caught:
        await said(pull(images, f"{registry.host}/{suffix}", tag))
    assert caught.value.message == sentence.format(registry.host)


async def test_scratch_is_reserved(images: RegistrySide) -> None:
    with pytest.raises(Forbidden, match="'scratch' is a reserved name"):
        await said(pull(images, "scratch", "latest"))


async def test_a_registry_that_is_not_there_is_named_as_go_names_it(images: RegistrySide) -> None:
    port = free_port()
    with pytest.raises(InternalError) as caught:
        await said(pull(images, f"127.0.0.1:{port}/a", "b"))
    assert caught.value.message == (
        f'Get "http://127.0.0.1:{port}/v2/": dial tcp 127.0.0.1:{port}: connect: connection refused'
    )
    with pytest.raises(InternalError) as caught:
        await said(pull(images, "registry.invalid/a", "b"))
    assert caught.value.message == (
        'Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid: no such host'
    )


async def test_two_pulls_of_the_same_image_share_their_work(
    registry: Registry, images: RegistrySide
) -> None:
    layers = [layer({f"s{n}": noise(400_000, n)}) for n in range(4)]
    built = image(layers)
    publish(registry.base, "foo/shared", "v1", built)
    name = f"{registry.host}/foo/shared"
    found = await asyncio.gather(*(said(pull(images, name, "v1")) for _ in range(4)))
    for lines in found:
        assert f"Digest: {built.digest}" in [status for _, status in lines]
    checked = [x for lines in found for x in lines if x[1] == "Verifying Checksum"]
    assert len(checked) == len(layers)


async def test_a_client_that_goes_away_ends_the_pull_and_leaves_no_image(
    registry: Registry, images: RegistrySide
) -> None:
    one = layer({"big": noise(20_000_000)})
    built = image([one])
    publish(registry.base, "foo/gone", "v1", built)
    name = f"{registry.host}/foo/gone"
    async with contextlib.aclosing(pull(images, name, "v1")) as lines:
        async for line in lines:
            if line.status == "Downloading":
                break
    assert images.lookup(f"{name}:v1") is None
    assert not images.content.has(one.digest)
    assert layer_files(images) == set()
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not any("pull" in name or "layer" in name for name in names)
    await said(pull(images, name, "v1"))
    assert images.lookup(f"{name}:v1") == built.id


async def test_tls_is_verified_by_the_registrys_own_authority(
    images: RegistrySide,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = {"tls": {"certificate": str(certificates.cert), "key": str(certificates.key)}}
    with running_registry(tmp_path / "tls", http=tls) as registry:
        folder = tmp_path / "certs.d"
        (folder / registry.host).mkdir(parents=True)
        monkeypatch.setattr(endpoints, "CERTS_DIRS", (folder,))
        strict = replace(images.config, insecure_registries=())
        images.config = strict
        with pytest.raises(InternalError) as caught:
            await said(pull(images, f"{registry.host}/a", "b"))
        assert caught.value.message == (
            f'Get "https://{registry.host}/v2/": tls: failed to verify certificate: x509: '
            "certificate signed by unknown authority"
        )
        (folder / registry.host / "ca.crt").write_bytes(certificates.ca.read_bytes())
        with pytest.raises(NotFound, match="manifest unknown"):
            await said(pull(images, f"{registry.host}/a", "b"))


async def test_an_insecure_registry_may_have_a_certificate_of_nobody(
    images: RegistrySide, certificates: Certificates, tmp_path: Path
) -> None:
    tls = {"tls": {"certificate": str(certificates.cert), "key": str(certificates.key)}}
    with (
        running_registry(tmp_path / "tls", http=tls) as registry,
        pytest.raises(NotFound, match="manifest unknown"),
    ):
        await said(pull(images, f"{registry.host}/a", "b"))


async def test_plain_http_is_refused_by_a_registry_that_is_not_insecure(
    registry: Registry, images: RegistrySide
) -> None:
    images.config = replace(images.config, insecure_registries=())
    with pytest.raises(InternalError, match="http: server gave HTTP response to HTTPS client"):
        await said(pull(images, f"{registry.host}/foo/x", "v1"))


async def test_the_hub_is_asked_through_its_mirror_and_without_one_by_name(
    registry: Registry, images: RegistrySide
) -> None:
    built = image([layer({"hub": b"h"})])
    publish(registry.base, "library/mirrored", "v1", built)
    mirrors = (f"http://127.0.0.1:{free_port()}", registry.base)
    images.config = replace(images.config, registry_mirrors=mirrors)
    lines = await said(pull(images, "mirrored", "v1"))
    assert lines[0] == ("v1", "Pulling from library/mirrored")
    assert lines[-1] == ("", "Status: Downloaded newer image for mirrored:v1")
    assert images.lookup("mirrored:v1") == built.id


async def test_an_answer_that_is_no_manifest_is_refused(images: RegistrySide) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "/manifests/" in request.path:
            return web.Response(text="hello", content_type="text/plain")
        return web.Response()

    async with serving(answer) as server:
        with pytest.raises(HyperError, match="not valid JSON"):
            await said(pull(images, f"{server.host}/a", "v1"))


async def test_a_proxy_of_the_environment_is_used_but_not_for_this_host(
    registry: Registry, images: RegistrySide, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proxy(request: web.Request) -> web.StreamResponse:
        body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "asked the proxy"}]}
        return web.json_response(body, status=200 if request.path == "/v2/" else 404)

    async with serving(proxy) as server:
        monkeypatch.setenv("HTTP_PROXY", server.base)
        images.config = replace(images.config, insecure_registries=("registry.invalid",))
        with pytest.raises(NotFound, match="asked the proxy"):
            await said(pull(images, "registry.invalid/a", "v1"))
        assert {s.headers["Host"] for s in server.seen} == {"registry.invalid"}
        server.seen.clear()
        images.config = replace(images.config, insecure_registries=("127.0.0.0/8",))
        with pytest.raises(NotFound, match="manifest unknown: manifest unknown"):
            await said(pull(images, f"{registry.host}/a", "v1"))
        assert server.seen == []
