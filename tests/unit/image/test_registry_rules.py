"""Rules of the registry client that need no network: endpoints, redirects, sentences."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from hyperstack.config import Config
from hyperstack.errors import (
    Forbidden,
    HyperError,
    InternalError,
    InvalidParameter,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from hyperstack.image import faults
from hyperstack.image.endpoints import endpoints, is_insecure, is_near, tls_context
from hyperstack.image.reference import Reference
from hyperstack.image.transport import Resolver, redirect

DEFAULT = Config().insecure_registries


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("127.9.9.9", True),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
        ("registry.example", False),
        ("named.example", True),
        ("named.example:5000", True),
        ("port.example:5000", True),
        ("port.example", False),
        ("10.1.2.3", True),
    ],
)
def test_only_named_registries_and_loopback_are_insecure(host: str, insecure: bool) -> None:
    entries = (*DEFAULT, "named.example", "port.example:5000", "10.1.0.0/16")
    assert is_insecure(entries, URL(f"https://{host}")) is insecure
    assert not is_insecure((), URL(f"https://{host}"))


def test_an_insecure_registry_is_tried_by_https_first_and_a_secure_one_never_by_http() -> None:
    ways = endpoints(Config(), "127.0.0.1:5000", mirrors=True)
    assert [(str(w.base), w.verify) for w in ways] == [
        ("https://127.0.0.1:5000", False),
        ("http://127.0.0.1:5000", True),
    ]
    ways = endpoints(Config(), "registry.example", mirrors=True)
    assert [(str(w.base), w.verify) for w in ways] == [("https://registry.example", True)]


def test_mirrors_stand_before_the_hub_and_before_nothing_else() -> None:
    config = Config(registry_mirrors=("https://mirror.example/hub/",))
    ways = endpoints(config, "docker.io", mirrors=True)
    assert [str(w.url("/v2/")) for w in ways] == [
        "https://mirror.example/hub/v2/",
        "https://registry-1.docker.io/v2/",
    ]
    assert ways[0].mirror
    assert ways[0].verify
    assert len(endpoints(config, "docker.io", mirrors=False)) == 1
    assert len(endpoints(config, "other.example", mirrors=True)) == 1
    with pytest.raises(InvalidParameter, match="invalid mirror"):
        endpoints(Config(registry_mirrors=("file:///etc",)), "docker.io", mirrors=True)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "::ffff:127.0.0.1",
        "LOCALHOST.",
    ],
)
def test_this_host_and_its_link_are_near_however_they_are_written(host: str) -> None:
    assert is_near(host)


@pytest.mark.parametrize("host", ["registry.example", "10.0.0.1", "93.184.216.34", "2001:db8::1"])
def test_other_hosts_are_not_near(host: str) -> None:
    assert not is_near(host)


FAR = URL("https://registry.example/v2/a/blobs/x")


@pytest.mark.parametrize(
    "location",
    [
        "http://registry.example/x",
        "file:///etc/passwd",
        "ftp://a/",
        "https://u:p@a.example/",
        "https://127.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://2130706433/",
        "https://[::1]/",
        "//localhost/x",
        "gopher://a",
        "https://a:99999999/",
        "data:,x",
    ],
)
def test_a_redirect_that_leads_astray_is_refused(location: str) -> None:
    with pytest.raises(InternalError):
        redirect(FAR, FAR, location)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/y", "https://registry.example/y"),
        ("https://cdn.example/b?sig=a%2Fb%3D", "https://cdn.example/b?sig=a%2Fb%3D"),
        ("//cdn.example/b", "https://cdn.example/b"),
    ],
)
def test_a_redirect_is_followed_to_the_letter(location: str, target: str) -> None:
    assert str(redirect(FAR, FAR, location)) == target


@given(st.text(max_size=60) | st.from_regex(r"(https?:)?//[^/]{0,20}(/.{0,9})?"))
def test_any_redirect_is_refused_or_leads_to_a_web_address(location: str) -> None:
    try:
        target = redirect(FAR, FAR, location)
    except InternalError:
        return
    assert target.scheme == "https"
    assert target.host
    assert not is_near(target.host)


def test_a_registry_on_this_host_may_lead_to_this_host() -> None:
    near = URL("http://127.0.0.1:5000/v2/")
    assert redirect(near, near, "http://localhost:9000/x").port == 9000


def test_without_verification_is_only_what_was_asked_for(tmp_path: Path) -> None:
    url = URL("https://a.example:5000")
    assert tls_context(url, verify=True, dirs=(tmp_path,)).check_hostname
    assert not tls_context(url, verify=False, dirs=(tmp_path,)).check_hostname


def test_a_client_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "a.example:5000"
    folder.mkdir()
    (folder / "client.cert").write_text("x")
    with pytest.raises(InternalError, match=r"missing key client\.key for client certificate"):
        tls_context(URL("https://a.example:5000"), verify=True, dirs=(tmp_path,))
    (folder / "client.cert").unlink()
    (folder / "ca.crt").write_text("x")
    with pytest.raises(InternalError, match=r"cannot use certificate .*ca\.crt"):
        tls_context(URL("https://a.example:5000"), verify=True, dirs=(tmp_path,))


def said(status: int, body: bytes, *, scope: bool = False) -> faults.Refused:
    return faults.refused(status, body, scope_denied=scope, retry_after=None)


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (
            404,
            b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":1}]}',
            "manifest unknown: manifest unknown",
        ),
        (
            404,
            b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}',
            "manifest unknown",
        ),
        (
            429,
            b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}',
            "toomanyrequests: slow down",
        ),
        (
            401,
            b'{"details":"incorrect username or password"}',
            "unauthorized: incorrect username or password",
        ),
        (401, b"", "unauthorized: authentication required"),
        (403, b'{"errors":[{"code":"made up","message":"x"}]}', "unknown: x"),
        (403, b'{"errors":[{"code":"DENIED"}]}', "denied"),
        (500, b"oh no", "received unexpected HTTP status: 500 Internal Server Error"),
        (302, b"", "received unexpected HTTP status: 302 Found"),
        (
            404,
            b"<html>",
            "error parsing HTTP 404 response body: no error details found in HTTP response "
            'body: "<html>"',
        ),
    ],
)
def test_an_answer_that_says_no_is_worded_as_docker_does(
    status: int, body: bytes, sentence: str
) -> None:
    assert said(status, body).message == sentence


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b"\xff",
        b'{"errors":7}',
        b'{"errors":[7]}',
        b'{"errors":[{"code":7,"message":{}}]}',
        b"[" * 100_000,
    ],
)
def test_a_nonsense_answer_is_still_a_sentence(body: bytes) -> None:
    assert said(400, body).message


def test_what_a_registry_says_cannot_drive_a_terminal_or_fill_it() -> None:
    message = "\x1b[2J" + "a" * 100_000 + "\r\n"
    body = (json.dumps({"errors": [{"code": "DENIED", "message": message}]})).encode()
    sentence = said(403, body).message
    assert sentence.isprintable()
    assert len(sentence) < 1100


def test_what_is_missing_at_a_pull_is_named_as_docker_names_it() -> None:
    reference = Reference.parse("user/app:1")
    denied = faults.translate(said(401, b"", scope=True), reference, pull=True)
    assert isinstance(denied, NotFound)
    assert denied.message == (
        "pull access denied for user/app, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )
    unknown = said(
        404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}'
    )
    assert faults.translate(unknown, reference, pull=True).message == (
        "manifest for user/app:1 not found: manifest unknown: manifest unknown"
    )
    bare = said(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
    assert faults.translate(bare, reference, pull=True).message == "manifest unknown"
    unknown = said(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}')
    assert faults.translate(unknown, reference, pull=True).message == (
        "repository user/app not found: name unknown: no"
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "UNAUTHORIZED", Unauthorized),
        (403, "DENIED", Forbidden),
        (429, "TOOMANYREQUESTS", RateLimited),
        (400, "UNSUPPORTED", Unsupported),
        (404, "UNAVAILABLE", Unavailable),
        (400, "NAME_UNKNOWN", NotFound),
        (404, "TAG_INVALID", InvalidParameter),
        (404, "UNKNOWN", InternalError),
        (503, "UNAVAILABLE", InternalError),
    ],
)
def test_the_code_of_an_answer_decides_what_an_error_it_is(
    status: int, code: str, kind: type[HyperError]
) -> None:
    fault = said(status, json.dumps({"errors": [{"code": code, "message": "m"}]}).encode())
    assert type(faults.translate(fault)) is kind


def test_an_answer_without_json_is_quoted_unless_it_may_quote_a_secret() -> None:
    def plain(status: int) -> str:
        return faults.refused(
            status, b"text", scope_denied=False, retry_after=None, media_type="text/plain"
        ).message

    assert (plain(400), plain(403)) == ("unknown: text", "denied: text")
    assert plain(401) == "unauthorized: authentication required"


def test_a_sentence_about_an_address_leaves_its_query_away() -> None:
    assert faults.asked("GET", URL("https://a/b?token=secret#x")) == 'Get "https://a/b"'


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    async def resolve(
        self: object, host: str, port: int = 0, family: int = 0
    ) -> list[dict[str, object]]:
        return [{"hostname": host, "host": names[host], "port": port}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)


async def test_a_name_of_a_stranger_that_leads_to_this_host_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, {"far.example": "93.184.216.34", "sly.example": "169.254.169.254"})
    resolver = Resolver()
    resolver.named.add("far.example")
    assert await resolver.resolve("far.example", 443)
    with pytest.raises(OSError, match="leads to this host"):
        await resolver.resolve("sly.example", 443)


async def test_a_registry_that_the_user_named_here_may_name_others_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, {"registry.local": "127.0.0.1", "auth.local": "127.0.0.2"})
    resolver = Resolver()
    resolver.named.add("registry.local")
    assert await resolver.resolve("registry.local", 443)
    assert await resolver.resolve("auth.local", 443)
