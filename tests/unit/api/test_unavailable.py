"""What dockerd 28 says to requests of an engine that is in no swarm and has no plugin."""

from __future__ import annotations

import logging

import pytest

from hyperstack.api.docker.routes.unavailable import NO_BUILD, NO_PLUGINS, NOT_A_MANAGER
from tests.unit.api.conftest import Api, message

MANAGED = [
    ("GET", "/swarm"), ("GET", "/swarm/unlockkey"), ("POST", "/swarm/unlock"),
    ("POST", "/services/create"), ("DELETE", "/configs/a"), ("GET", "/tasks"), ("GET", "/tasks/a"),
    ("GET", "/services/a/logs?stdout=1"), ("POST", "/nodes/a/update?version=1"),
    ("POST", "/swarm/update?version=0"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), MANAGED)
async def test_what_a_manager_would_do_is_refused_with_503(
    api: Api, method: str, path: str
) -> None:
    status, _, body = await api.get(path, method=method)
    assert (status, message(body)) == (503, NOT_A_MANAGER)


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/services/a/update", 404, "page not found"),
        ("DELETE", "/tasks/a", 404, "page not found"),
        ("GET", "/services?filters={", 400, "invalid filter"),
        ("GET", "/tasks/a/logs", 500, "Bad parameters: you must choose at least one stream"),
        ("POST", "/services/a/update?version=q", 400,
         "invalid service version 'q': strconv.ParseUint: parsing \"q\": invalid syntax"),
        ("POST", "/secrets/a/update", 400, "invalid secret version"),
        ("GET", "/plugins?filters=%7B%22a%22:%5B%22b%22%5D%7D", 400, "invalid filter 'a'"),
        ("GET", "/plugins/privileges", 500, "invalid reference format"),
        ("POST", "/plugins/pull?remote=x", 501, NO_PLUGINS),
        ("POST", "/plugins/create", 500, "failed to parse reference : invalid reference format"),
        ("POST", "/plugins/x/enable", 500, 'strconv.Atoi: parsing "": invalid syntax'),
        ("POST", "/plugins/x/enable?timeout=0", 404, 'plugin "x" not found'),
        ("POST", "/plugins/x/upgrade?remote=x", 404, 'plugin "x:latest" not found'),
        ("POST", "/session", 400, "no upgrade proto in request"),
        ("POST", "/grpc", 500, "no upgrade proto in request"),
        ("POST", "/build/cancel", 400, "build ID not provided"),
        ("POST", "/build/prune?keep-storage=x", 400, "keep-storage is in bytes and expects an "
         'integer, got x: strconv.Atoi: parsing "x": invalid syntax'),
        ("POST", "/build/prune?filters=%7B%22a%22:%5B%22b%22%5D%7D", 400,
         "failed to prune build cache: invalid filter 'a'"),
    ],
)  # fmt: skip
async def test_a_wrong_request_is_refused_before_that(
    api: Api, method: str, path: str, status: int, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    got, _, body = await api.get(path, method=method)
    assert (got, message(body)) == (status, sentence)


async def test_a_protocol_for_buildkit_is_refused(api: Api) -> None:
    for word, status, sentence in (
        ("foo", 400, "protocol foo not supported"),
        ("h2c", 501, NO_BUILD),
    ):
        got, _, body = await api.get("/session", f"Upgrade: {word}", method="POST")
        assert (got, message(body)) == (status, sentence)


async def test_a_path_without_a_route_is_answered_without_the_standing_headers(api: Api) -> None:
    _, head, _ = await api.get("/nope")
    assert b"Api-Version" not in head
    assert b"Server" not in head
    _, head, _ = await api.get("/v1.99/hello")
    assert b"Api-Version: 1.51" in head
    assert b"Docker-Experimental" not in head
