"""Logging in: basic credentials at a real registry, tokens from a server of our own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web

from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter, NotFound, Unauthorized
from hyperstack.image.auth import NOBODY, AuthConfig
from hyperstack.image.distribution import inspect
from hyperstack.image.login import login
from hyperstack.image.pull import pull
from hyperstack.image.push import push
from hyperstack.image.registryside import RegistrySide
from hyperstack.image.search import SearchResult, search
from tests.integration.registry.artefacts import image, index, layer, publish
from tests.integration.registry.hostile import Shelf, hostile
from tests.integration.registry.lines import said
from tests.integration.registry.servers import (
    Registry,
    Server,
    basic,
    free_port,
    running_registry,
    serving,
)

# "secret" under bcrypt with the least cost.
HTPASSWD = "user:$2b$04$/bYHlrghGAyULIHcuWIfj.p1ME.RmItmwEu/ng.8BYBehrX.R2pm6\n"
USER = AuthConfig(username="user", password="secret")
WRONG = AuthConfig(username="user", password="wrong")


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("private")
    (root / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}
    with running_registry(root, auth=auth) as running:
        publish(running.base, "a/b", "v1", image([layer({"p": b"p"})]), user="user:secret")
        yield running


async def test_a_private_registry_gives_to_whom_it_knows(
    private: Registry, images: RegistrySide
) -> None:
    name = f"{private.host}/a/b"
    lines = await said(pull(images, name, "v1", auth=USER))
    assert lines[-1] == ("", f"Status: Downloaded newer image for {name}:v1")


async def test_a_private_registry_refuses_others_in_dockers_words(
    private: Registry, images: RegistrySide
) -> None:
    name = f"{private.host}/a/b"
    with pytest.raises(InternalError) as caught:
        await said(pull(images, name, "v1"))
    assert caught.value.message == (
        f'Head "http://{private.host}/v2/a/b/manifests/v1": no basic auth credentials'
    )
    with pytest.raises(Unauthorized) as refused:
        await said(pull(images, name, "v1", auth=WRONG))
    assert refused.value.message == "unauthorized: authentication required"


async def test_a_push_to_a_private_registry_needs_credentials(
    private: Registry, registry: Registry, images: RegistrySide
) -> None:
    publish(registry.base, "auth/src", "v1", image([layer({"q": b"q"})]))
    await said(pull(images, f"{registry.host}/auth/src", "v1"))
    built = images.lookup(f"{registry.host}/auth/src:v1")
    assert built is not None
    await images.tag(built, f"{private.host}/new:v1")
    for auth, kind, sentence in (
        (NOBODY, InternalError, "no basic auth credentials"),
        (WRONG, Unauthorized, "unauthorized: authentication required"),
    ):
        with pytest.raises(kind) as caught:
            await said(push(images, f"{private.host}/new", "v1", auth=auth))
        assert caught.value.message == sentence
    lines = await said(push(images, f"{private.host}/new", "v1", auth=USER))
    assert lines[-1][1].startswith("v1: digest: sha256:")


async def test_docker_login_tries_the_credentials(private: Registry, config: Config) -> None:
    for address in (private.host, f"http://{private.host}/v1/", f"https://{private.host}"):
        known = AuthConfig(username="user", password="secret", serveraddress=address)
        assert (await login(config, known)).status == "Login Succeeded"
    wrong = AuthConfig(username="user", password="wrong", serveraddress=private.host)
    with pytest.raises(InternalError) as caught:
        await login(config, wrong)
    assert caught.value.message == (
        f"login attempt to http://{private.host}/v2/ failed with status: 401 Unauthorized"
    )


async def test_a_login_where_nobody_listens_says_so(config: Config) -> None:
    port = free_port()
    with pytest.raises(InternalError) as caught:
        await login(config, AuthConfig(username="u", serveraddress=f"127.0.0.1:{port}"))
    assert caught.value.message == (
        f'Get "http://127.0.0.1:{port}/v2/": dial tcp 127.0.0.1:{port}: connect: connection refused'
    )


# Tokens


class TokenServer:
    """Gives tokens as the specification says; they are signed by nothing but counted."""

    def __init__(self) -> None:
        self.lifetime = 300
        self.given: list[dict[str, object]] = []
        self.deny = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.deny:
            return web.json_response({"details": "incorrect username or password"}, status=401)
        wanted = request.query.getall("scope", [])
        if request.method == "POST":
            form = await request.post()
            if form.get("refresh_token") != "identity" or form.get("grant_type") != "refresh_token":
                return web.json_response({"error": "invalid_grant"}, status=400)
            wanted, user = str(form["scope"]).split(" "), "by identity"
        else:
            given = request.headers.get("Authorization", "")
            if given and given != basic("user", "secret"):
                body = {"details": "incorrect username or password"}
                return web.json_response(body, status=401)
            user = "user" if given else "nobody"
        token = f"token-{len(self.given)}"
        self.given.append({"scopes": wanted, "user": user, "token": token})
        answer: dict[str, object] = {"token": token, "expires_in": self.lifetime}
        if request.query.get("offline_token"):
            answer["refresh_token"] = "identity"
        return web.json_response(answer)


class Guarded:
    """A registry behind a token server."""

    def __init__(self, shelf: Shelf, tokens: TokenServer, server: Server) -> None:
        self.shelf, self.tokens, self.server = shelf, tokens, server
        self.refused: set[str] = set()
        self.open_to_nobody = True

    def install(self) -> None:
        inner = self.shelf.answer

        async def answer(request: web.Request) -> web.StreamResponse:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            known = [g for g in self.tokens.given if g["token"] == token]
            if not known or token in self.refused:
                return self._challenge("")
            if known[0]["user"] == "nobody" and not self.open_to_nobody:
                return self._challenge(',error="insufficient_scope"')
            return await inner(request)

        self.shelf.answer = answer  # type: ignore[method-assign]

    def _challenge(self, more: str) -> web.Response:
        header = f'Bearer realm="{self.server.base}/token?a=1",service="the registry"{more}'
        body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        return web.json_response(body, status=401, headers={"WWW-Authenticate": header})


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    tokens = TokenServer()
    async with hostile() as shelf, serving(tokens.answer) as server:
        made = Guarded(shelf, tokens, server)
        made.install()
        shelf.put(image([layer({f"t{n}": b"t"}) for n in range(3)]))
        yield made


async def test_one_token_of_the_right_scope_serves_a_whole_pull(
    guarded: Guarded, images: RegistrySide
) -> None:
    await said(pull(images, f"{guarded.shelf.host}/a/b", "v1", auth=USER))
    assert guarded.tokens.given == [
        {"scopes": ["repository:a/b:pull"], "user": "user", "token": "token-0"}
    ]
    asked = guarded.server.seen[0]
    assert asked.query["service"] == "the registry"
    assert (asked.query["account"], asked.query["client_id"]) == ("user", "docker")
    assert asked.query["a"] == "1"


async def test_nobody_asks_for_a_token_without_credentials(
    guarded: Guarded, images: RegistrySide
) -> None:
    await said(pull(images, f"{guarded.shelf.host}/a/b", "v1"))
    assert [g["user"] for g in guarded.tokens.given] == ["nobody"]
    assert "Authorization" not in guarded.server.seen[0].headers


async def test_an_identity_token_is_exchanged_by_oauth(
    guarded: Guarded, images: RegistrySide
) -> None:
    auth = AuthConfig(username="user", identitytoken="identity")
    await said(pull(images, f"{guarded.shelf.host}/a/b", "v1", auth=auth))
    assert [g["user"] for g in guarded.tokens.given] == ["by identity"]
    assert guarded.server.seen[0].method == "POST"
    assert "refresh_token" not in guarded.server.seen[0].query


async def test_a_registry_token_is_used_as_it_is(guarded: Guarded, images: RegistrySide) -> None:
    guarded.tokens.given.append({"scopes": [], "user": "x", "token": "given"})
    auth = AuthConfig(registrytoken="given")
    await said(pull(images, f"{guarded.shelf.host}/a/b", "v1", auth=auth))
    assert guarded.server.seen == []


async def test_a_token_that_ran_out_is_replaced_once(
    guarded: Guarded, images: RegistrySide
) -> None:
    layers = guarded.shelf.manifests["v1"][0]
    first = json.loads(layers)["layers"][0]["digest"]

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        if "token-0" not in guarded.refused:
            guarded.refused.add("token-0")
            return guarded._challenge("")
        return web.Response(body=data)

    guarded.shelf.tricks[first] = trick
    await said(pull(images, f"{guarded.shelf.host}/a/b", "v1", auth=USER))
    assert 2 <= len(guarded.tokens.given) <= 4


async def test_a_repository_that_may_not_be_read_is_denied_in_dockers_words(
    guarded: Guarded, images: RegistrySide
) -> None:
    guarded.open_to_nobody = False
    name = f"{guarded.shelf.host}/a/b"
    with pytest.raises(NotFound) as caught:
        await said(pull(images, name, "v1"))
    assert caught.value.message == (
        f"pull access denied for {name}, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )


async def test_a_token_server_that_says_no_is_quoted(
    guarded: Guarded, images: RegistrySide, config: Config
) -> None:
    host = guarded.shelf.host
    with pytest.raises(InternalError) as caught:
        await said(pull(images, f"{host}/a/b", "v1", auth=WRONG))
    assert caught.value.message == (
        f'Head "http://{host}/v2/a/b/manifests/v1": unauthorized: incorrect username or password'
    )
    with pytest.raises(Unauthorized) as refused:
        await login(config, AuthConfig(username="user", password="wrong", serveraddress=host))
    assert refused.value.message == (
        f'Get "http://{host}/v2/": unauthorized: incorrect username or password'
    )


async def test_a_login_gives_an_identity_token_if_there_is_one(
    guarded: Guarded, config: Config
) -> None:
    auth = AuthConfig(username="user", password="secret", serveraddress=guarded.shelf.host)
    result = await login(config, auth)
    assert (result.status, result.identity_token) == ("Login Succeeded", "identity")
    assert "identity" not in repr(result)


@pytest.mark.parametrize("token", ["", "a\r\nX: y", "a b", "é", "x" * 70_000])
async def test_a_token_that_is_none_is_refused(
    guarded: Guarded, images: RegistrySide, token: str
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"token": token})

    async with serving(answer) as server:
        guarded.server = server
        with pytest.raises(Exception, match="no usable token"):
            await said(pull(images, f"{guarded.shelf.host}/a/b", "v1"))


# Looking without pulling


async def test_a_name_is_looked_up_without_a_pull(registry: Registry, config: Config) -> None:
    built = image([layer({"d": b"d"})])
    publish(registry.base, "dist/one", "v1", built)
    found = await inspect(config, f"{registry.host}/dist/one:v1")
    assert (found.media_type, found.digest, found.size) == (
        built.media_type, built.digest, len(built.manifest),
    )  # fmt: skip
    assert [str(p) for p in found.platforms] == ["linux/amd64"]

    publish(registry.base, "dist/one", built.digest, built)
    both = index(
        [
            (built, {"os": "linux", "architecture": "amd64"}),
            (built, {"os": "linux", "architecture": "arm", "variant": "v7"}),
        ]
    )
    publish(registry.base, "dist/one", "latest", both)
    found = await inspect(config, f"{registry.host}/dist/one")
    assert found.digest == both.digest
    assert [str(p) for p in found.platforms] == ["linux/amd64", "linux/arm/v7"]

    with pytest.raises(NotFound) as caught:
        await inspect(config, f"{registry.host}/dist/none")
    assert caught.value.message == "manifest unknown: manifest unknown"


async def test_a_search_asks_the_index_that_the_term_names(config: Config) -> None:
    results = [
        {"name": "x/app", "description": "an \x1b[31mapp\n", "star_count": 3, "is_official": False},
        {"name": "app", "description": None, "star_count": 9, "is_official": True},
    ]

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"num_results": 2, "query": "app", "results": results})

    async with serving(answer) as server:
        found = await search(config, f"{server.host}/app", limit=7)
        assert [r.name for r in found] == ["x/app", "app"]
        assert found[0].description.isprintable()
        # One request for https, which nobody answers, is not seen.
        assert [seen.path for seen in server.seen] == ["/v1/_ping", "/v1/search"]
        assert server.seen[1].query == {"q": "app", "n": "7"}
        assert not await search(config, f"{server.host}/app", filters={"is-automated": ["true"]})
        official = await search(config, f"{server.host}/app", filters={"is-official": ["true"]})
        assert [r.name for r in official] == ["app"]
        starred = await search(config, f"{server.host}/app", filters={"stars": ["4"]})
        assert starred == [SearchResult(name="app", is_official=True, star_count=9)]


async def test_an_index_that_has_nothing_or_breaks_off_is_told_as_docker_tells_it(
    config: Config,
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/search" and request.query["q"] == "gone":
            assert request.transport is not None
            request.transport.close()
        return web.Response(body=b"null", content_type="application/json")

    async with serving(answer) as server:
        assert await search(config, f"{server.host}/nothing") == []
        with pytest.raises(InternalError) as caught:
            await search(config, f"{server.host}/gone")
    assert caught.value.message == f'Get "{server.base}/v1/search?q=gone&n=25": EOF'


async def test_a_search_that_cannot_be_is_refused(registry: Registry, config: Config) -> None:
    with pytest.raises(InternalError, match="Unexpected status code 404"):
        await search(config, f"{registry.host}/app")
    with pytest.raises(Exception, match=r"limit 1000 is outside the range of \[1, 100\]"):
        await search(config, "app", limit=1000)
    with pytest.raises(Exception, match="invalid filter 'x'"):
        await search(config, "app", filters={"x": ["y"]})
    port = free_port()
    with pytest.raises(InvalidParameter, match="connection refused"):
        await search(config, f"127.0.0.1:{port}/app")
