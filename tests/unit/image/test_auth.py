from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InvalidParameter
from hyperstack.image import auth
from hyperstack.image.auth import AuthConfig, Challenge, parse_challenges


def encoded(value: object, *, pad: bool = True) -> str:
    text = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
    return text if pad else text.rstrip("=")


@pytest.mark.parametrize("pad", [True, False])
def test_the_header_of_the_api_gives_credentials(pad: bool) -> None:
    sent = {"username": "u", "password": "p?>~", "serveraddress": "https://a/v1/", "extra": 1}
    found = auth.decode_auth(encoded(sent, pad=pad))
    assert (found.username, found.password) == ("u", "p?>~")


def test_standard_base64_is_taken_too() -> None:
    text = base64.b64encode(json.dumps({"password": "ÿ>?" * 9}, ensure_ascii=False).encode())
    assert b"/" in text or b"+" in text
    assert auth.decode_auth(text.decode()).password == "ÿ>?" * 9


def test_no_header_or_an_empty_object_is_nobody() -> None:
    assert auth.decode_auth(None) == auth.decode_auth("") == auth.decode_auth("e30=") == auth.NOBODY
    assert auth.decode_auth(encoded({"username": None})) == auth.NOBODY
    assert auth.decode_auth(encoded(None)) == auth.NOBODY


def test_the_auth_field_of_client_s_files_means_nothing_as_with_docker() -> None:
    pair = base64.b64encode(b"user:pass").decode()
    assert auth.decode_auth(encoded({"auth": pair})) == AuthConfig()


@pytest.mark.parametrize(
    "text",
    [
        "@@@",
        "e30=e30",
        encoded([1]),
        encoded({"username": 5}),
        "a" * 70_000,
        encoded({"auth": "bm9jb2xvbg=="}),
    ],
)
def test_a_bad_header_is_nobody_s_as_with_docker_and_never_quoted(text: str) -> None:
    assert auth.decode_auth(text) == auth.NOBODY
    with pytest.raises(InvalidParameter) as caught:
        auth.decode_auths(text if text != encoded({"auth": "bm9jb2xvbg=="}) else encoded({"h": 1}))
    assert text not in caught.value.message
    assert caught.value.__cause__ is None


def test_credentials_are_in_no_repr() -> None:
    config = AuthConfig(
        username="u", password="hush1", identitytoken="hush2", registrytoken="hush3"
    )
    assert "hush" not in f"{config!r} {config} {[config]}"


def test_credentials_are_chosen_by_the_registrys_host() -> None:
    auths = auth.decode_auths(
        encoded(
            {
                "https://index.docker.io/v1/": {"username": "hub"},
                "reg.example:5000": {"username": "reg"},
                "https://other.example": {"username": "other"},
            }
        )
    )
    assert auth.choose(auths, "docker.io").username == "hub"
    assert auth.choose(auths, "reg.example:5000").username == "reg"
    assert auth.choose(auths, "other.example").username == "other"
    for stranger in ("reg.example", "example", "other.example.evil"):
        assert auth.choose(auths, stranger) == auth.NOBODY


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (
            ['Bearer realm="https://a/t?x=1,2",service="s s",scope="repository:a:pull,push"'],
            [
                (
                    "bearer",
                    {
                        "realm": "https://a/t?x=1,2",
                        "service": "s s",
                        "scope": "repository:a:pull,push",
                    },
                )
            ],
        ),
        (["Basic realm=x"], [("basic", {"realm": "x"})]),
        (
            ['Basic realm="a", Bearer realm="b"'],
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})],
        ),
        (
            ["Negotiate", 'BASIC realm="q\\"uote"'],
            [("negotiate", {}), ("basic", {"realm": 'q"uote'})],
        ),
        ([""], []),
        (['"'], []),
    ],
)
def test_challenges_are_read(headers: list[str], found: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(scheme=s, parameters=p) for s, p in found]


@given(st.lists(st.text(max_size=200), max_size=4))
def test_any_challenge_is_read_in_bounded_time(headers: list[str]) -> None:
    assert len(parse_challenges(headers)) <= auth.MAX_CHALLENGES


def test_a_long_hostile_challenge_takes_no_time() -> None:
    for text in ("a=" * 100_000, 'Bearer a="' + "\\" * 200_000, "Bearer " + ", " * 100_000):
        parse_challenges([text])
