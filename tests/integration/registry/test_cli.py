"""Registries as the user meets them: the real docker CLI, the daemon and docker-registry."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.framework.host import Host
from tests.integration.registry.servers import Registry, running_registry
from tests.integration.registry.test_auth import HTPASSWD


@pytest.fixture(scope="module")
def inner(shared_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that knows one user, on the loopback of the daemon's network namespace."""
    root = tmp_path_factory.mktemp("inner")
    (root / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}
    with running_registry(root, shared_host.netns.enter, auth=auth) as running:
        yield running


@pytest.fixture
def known(host: Host, inner: Registry) -> Iterator[str]:
    """The registry's host, logged in to."""
    host.docker("login", "-u", "user", "--password-stdin", inner.host, stdin=b"secret")
    yield inner.host
    host.docker("logout", inner.host)


def test_a_login_with_a_wrong_password_fails(host: Host, inner: Registry) -> None:
    done = host.docker(
        "login", "-u", "user", "--password-stdin", inner.host, stdin=b"wrong", check=False
    )
    assert done.code == 1
    assert "401 Unauthorized" in done.err


def test_an_image_goes_to_a_registry_and_comes_back_and_runs(host: Host, known: str) -> None:
    name = f"{known}/team/app:v1"
    host.docker("tag", "busybox:latest", name)
    pushed = host.docker("push", name)
    assert ": Pushed" in pushed.out
    digest = pushed.out.split("digest: ")[1].split()[0]
    assert f"v1: digest: {digest} size:" in pushed.out
    assert ": Layer already exists" in host.docker("push", name).out

    host.docker("tag", "busybox:latest", f"{known}/team/other:v1")
    assert "Mounted from team/app" in host.docker("push", f"{known}/team/other:v1").out

    host.docker("rmi", name, f"{known}/team/other:v1")
    pulled = host.docker("pull", name).out
    assert f"Digest: {digest}" in pulled
    assert f"Status: Downloaded newer image for {name}" in pulled
    assert pulled.rstrip().endswith(name)
    assert "Status: Image is up to date" in host.docker("pull", name).out
    shown = json.loads(host.docker("inspect", name).out)[0]
    assert f"{known}/team/app@{digest}" in shown["RepoDigests"]
    assert host.docker("run", "--rm", f"{known}/team/app@{digest}", "echo", "ran").out == "ran\n"
    host.docker("rmi", name)


def test_an_image_that_is_missing_is_pulled_by_run(host: Host, known: str) -> None:
    name = f"{known}/team/run:v1"
    host.docker("tag", "busybox:latest", name)
    host.docker("push", name)
    host.docker("rmi", name)
    done = host.docker("run", "--rm", name, "echo", "hello")
    assert done.out == "hello\n"
    assert f"Unable to find image '{name}' locally" in done.err
    host.docker("rmi", name)


def test_all_tags_go_and_come(host: Host, known: str) -> None:
    name = f"{known}/team/all"
    for tag in ("a", "b"):
        host.docker("tag", "busybox:latest", f"{name}:{tag}")
    host.docker("push", "-a", name)
    host.docker("rmi", f"{name}:a", f"{name}:b")
    host.docker("pull", "-a", name)
    listed = host.docker("images", "--format", "{{.Tag}}", name).out.split()
    assert sorted(listed) == ["a", "b"]
    host.docker("rmi", f"{name}:a", f"{name}:b")


def test_who_is_not_logged_in_is_told_so(host: Host, inner: Registry) -> None:
    done = host.docker("pull", f"{inner.host}/team/app:v1", check=False)
    assert done.code == 1
    assert "no basic auth credentials" in done.err


def test_what_is_not_there_is_named_as_docker_names_it(host: Host, known: str) -> None:
    done = host.docker("pull", f"{known}/team/none:v9", check=False)
    assert done.code == 1
    assert done.err.strip().endswith(
        f"manifest for {known}/team/none:v9 not found: manifest unknown: manifest unknown"
    )
    done = host.docker("push", f"{known}/team/none:v9", check=False)
    assert f"An image does not exist locally with the tag: {known}/team/none" in done.err
