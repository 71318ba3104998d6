"""Answers about images as raw requests get them: what Docker Engine 28.5 said to the same ones."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.conformance.raw import ask
from tests.framework.host import Host

ARM = quote(json.dumps({"os": "linux", "architecture": "arm64"}))
AMD = quote(json.dumps({"os": "linux", "architecture": "amd64"}))
MISMATCH = (
    "image with reference raw:1 was found but its platform (linux/amd64) does not match the "
    "specified platform (linux/arm64)"
)


@pytest.fixture
def raw(host: Host) -> Iterator[str]:
    """The id of ``raw:1``, an image of nothing, with a container."""
    host.docker("import", "-c", "CMD x", "--platform", "linux/amd64", "-", "raw:1",
                stdin=bytes(1024))  # fmt: skip
    host.docker("create", "--name", "user", "--network", "none", "raw:1")
    yield host.docker("inspect", "-f", "{{.Id}}", "raw:1").out.strip()
    host.remove_everything()
    host.docker("rmi", "-f", "raw:1", check=False)


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("POST", "/images/raw:1/tag?repo=sha256&tag=x", 400,
         "refusing to create an ambiguous tag using digest algorithm as name"),
        ("POST", f"/images/raw:1/tag?repo=x@sha256:{'0' * 64}", 400,
         "cannot import digest reference"),
        ("POST", "/images/RAW/tag?repo=x", 404,
         "invalid reference format: repository name (library/RAW) must be lowercase"),
        ("GET", f"/images/raw:1/json?platform={ARM}", 404, MISMATCH),
        ("GET", f"/images/raw:1/history?platform={ARM}", 404, MISMATCH),
        ("DELETE", f"/images/raw:1?platforms={ARM}", 404, MISMATCH),
        ("POST", f"/images/raw:1/push?platform={ARM}", 404, MISMATCH),
        ("GET", "/images/raw:1/json?platform=x", 400, "failed to parse platform: invalid character "
         "'x' looking for beginning of value"),
        ("GET", f"/images/raw:1/json?manifests=1&platform={AMD}", 400,
         "conflicting options: manifests and platform options cannot both be set"),
        ("GET", f"/images/raw:1/get?platform={ARM}", 500,
         "no suitable export target found for platform linux/arm64"),
        ("GET", "/images/raw:none/get", 404, "reference does not exist"),
        ("GET", "/images/get?names=raw:1,raw:1", 500, "invalid reference format"),
        ("DELETE", "/images/%20", 400, "image name cannot be blank"),
        ("POST", f"/images/raw@sha256:{'0' * 64}/push?tag=1", 400,
         "cannot import digest reference"),
        ("GET", "/images/json?filters=%7B%22dangling%22:%5B%5D%7D", 400,
         "invalid filter 'dangling'"),
        ("GET", "/images/get?names=RAW", 500,
         "invalid reference format: repository name (library/RAW) must be lowercase"),
        ("GET", "/images/json?filters=%7B%22until%22:%5B%22x%22%5D%7D", 500,
         'failed to parse value as time or duration: "x"'),
        ("POST", "/images/create", 500, 'Get "http:": http: no Host in request URL'),
        ("GET", "/images/search?term=x&limit=101", 400,
         "limit 101 is outside the range of [1, 100]"),
        ("GET", f"/distribution/{'0' * 64}/json", 500, "no manifest found for full image ID"),
        ("POST", "/auth", 500, "EOF"),
        ("GET", "/system/df?type=x", 400, "unknown object type: x"),
    ],
)  # fmt: skip
def test_a_request_is_refused_in_the_words_of_docker_28(
    host: Host, raw: str, method: str, path: str, status: int, sentence: str
) -> None:
    assert ask(host, method, f"/v1.51{path}") == (status, {"message": sentence})


def test_a_platform_that_fits_and_older_clients_are_answered(host: Host, raw: str) -> None:
    for path in (f"/v1.51/images/raw:1/json?platform={AMD}", "/v1.48/images/raw:1/json?platform=x"):
        status, image = ask(host, "GET", path)
        assert (status, image["Id"]) == (200, raw)
    assert ask(host, "POST", "/v1.51/images/raw:1/tag") == (200, b"")


def test_lists_count_containers_and_shared_bytes_by_version(host: Host, raw: str) -> None:
    def summary(version: str) -> dict[str, object]:
        _, images = ask(host, "GET", f"/v{version}/images/json?shared-size=1")
        (found,) = [image for image in images if image["Id"] == raw]
        return {key: found.get(key) for key in ("Containers", "SharedSize", "VirtualSize")}

    assert summary("1.51") == {"Containers": 1, "SharedSize": 0, "VirtualSize": None}
    assert summary("1.43") == {"Containers": -1, "SharedSize": 0, "VirtualSize": 0}
    assert summary("1.41") == {"Containers": -1, "SharedSize": -1, "VirtualSize": 0}


def test_an_image_of_a_container_tells_old_clients_of_it(host: Host, raw: str) -> None:
    body = {"Image": "raw:1", "Cmd": ["a", "b"], "Hostname": "hn", "Labels": {"l": "1"}}
    container = ask(host, "POST", "/v1.51/containers/create?name=source", body)[1]["Id"]
    change = quote("ENV Z=1")
    path = f"/v1.51/commit?container=source&repo=raw&tag=2&changes={change}"
    assert ask(host, "POST", path)[0] == 201
    for version in ("1.24", "1.44"):
        image = ask(host, "GET", f"/v{version}/images/raw:2/json")[1]
        made_of = image["ContainerConfig"]
        assert image["Container"] == container
        assert (made_of["Hostname"], made_of["Cmd"], made_of["Env"]) == ("hn", ["a", "b"], None)
        assert (made_of["Image"], made_of["Labels"]) == ("raw:1", {"l": "1"})
    assert (
        not {"Container", "ContainerConfig"}
        & ask(host, "GET", "/v1.45/images/raw:2/json")[1].keys()
    )
    host.docker("rm", "-f", "source")
    host.docker("rmi", "raw:2")


def bare_image(config: dict[str, object]) -> bytes:
    """An archive of an image without layers, which says nothing of its age."""
    buffer = io.BytesIO()
    files = {
        "c": {"os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": []}},
        "manifest.json": [{"Config": "c", "RepoTags": ["bare:1"], "Layers": []}],
    }
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in files.items():
            data = json.dumps(value).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_what_an_image_does_not_tell_is_left_out_as_each_version_does(host: Host) -> None:
    host.docker("load", stdin=bare_image({"Labels": {}, "Env": []}))
    try:
        image = ask(host, "GET", "/v1.51/images/bare:1/json")[1]
        assert "Created" not in image
        assert image["RootFS"] == {"Type": "layers"}
        assert (image["Config"]["Labels"], image["Config"]["Env"]) == (None, None)
        assert image["Metadata"] == {"LastTagTime": "0001-01-01T00:00:00Z"}
        old = ask(host, "GET", "/v1.43/images/bare:1/json")[1]
        assert old["Created"] == "0001-01-01T00:00:00Z"
        (listed,) = ask(
            host, "GET", "/v1.51/images/json?filters=%7B%22reference%22:%5B%22bare%22%5D%7D"
        )[1]
        assert (listed["Labels"], listed["Created"]) == ({}, 0)
        assert ask(host, "POST", "/v1.51/images/bare:1/tag?repo=bare&tag=2")[0] == 201
        tagged = ask(host, "GET", "/v1.51/images/bare:1/json")[1]["Metadata"]["LastTagTime"]
        assert tagged > "2020"
    finally:
        host.docker("rmi", "-f", "bare:1", "bare:2", check=False)


def test_disk_usage_has_every_key_whatever_type_is_asked_for(host: Host, raw: str) -> None:
    keys = {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    _, everything = ask(host, "GET", "/v1.51/system/df")
    assert set(everything) == keys
    assert everything["BuildCache"] == []
    (image,) = [image for image in everything["Images"] if image["Id"] == raw]
    assert (image["Containers"], image["SharedSize"], image["RepoDigests"]) == (1, 0, None)
    _, one = ask(host, "GET", "/v1.51/system/df?type=volume")
    assert set(one) == keys
    assert one["Images"] is one["Containers"] is one["BuildCache"] is None
    assert one["LayersSize"] == 0


def test_a_load_that_fails_says_so_in_the_stream(host: Host) -> None:
    failed = host.docker("load", stdin=b"noise" * 1000, check=False)
    assert failed.code == 1
    assert "archive/tar: invalid tar header" in failed.err
