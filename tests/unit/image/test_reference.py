from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import InvalidParameter
from hyperstack.ids import Digest
from hyperstack.image.reference import Reference, check_tag, is_digest, parse_digest

D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("user/app:x", "docker.io/user/app:x", "user/app:x"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("Registry/app", "Registry/app", "Registry/app"),
        ("[::1]:5000/a/b:t", "[::1]:5000/a/b:t", "[::1]:5000/a/b:t"),
        ("a.example/b__c/d-e--f.g:T_.-", "a.example/b__c/d-e--f.g:T_.-", None),
        (f"busybox:1@{D}", f"docker.io/library/busybox:1@{D}", f"busybox:1@{D}"),
        ("host:5000", "docker.io/library/host:5000", "host:5000"),
    ],
)
def test_a_name_is_spelled_out_and_shortened_as_docker_does(
    text: str, canonical: str, familiar: str | None
) -> None:
    reference = Reference.parse(text)
    assert reference.canonical() == canonical
    assert reference.familiar() == (familiar or canonical)
    assert Reference.parse(reference.familiar()) == reference
    assert Reference.parse(canonical) == reference


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:abcd", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("é", "invalid reference format"),
        ("x" * 2000, "invalid reference format"),
        ("FOO", "invalid reference format: repository name (library/FOO) must be lowercase"),
        ("a/FOO:x", "invalid reference format: repository name (a/FOO) must be lowercase"),
        ("a" * 300, "repository name must not be more than 255 characters"),
        (
            "a" * 64,
            f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings",
        ),
        ("x@sha256:" + "A" * 64, "invalid checksum digest format"),
        ("x@sha256:" + "a" * 40, "invalid checksum digest length"),
        ("x@md5:" + "a" * 32, "unsupported digest algorithm"),
    ],
)
def test_a_bad_name_is_refused_in_dockers_words(text: str, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Reference.parse(text)
    assert caught.value.message == sentence


def test_the_apis_tag_may_be_a_tag_or_a_digest() -> None:
    assert Reference.parse_with_tag("a:1", "2").familiar() == "a:2"
    assert Reference.parse_with_tag("a", D).familiar() == f"a@{D}"
    assert Reference.parse_with_tag(f"a@{D}", "2").familiar() == f"a:2@{D}"
    assert Reference.parse_with_tag("a", "").is_name_only
    for bad in ("a:b", "sha256:abc", " ", "\n"):
        with pytest.raises(InvalidParameter, match="invalid tag format"):
            Reference.parse_with_tag("a", bad)


def test_what_a_registry_is_asked_for_is_the_digest_before_the_tag() -> None:
    assert Reference.parse("a").object == "latest"
    assert Reference.parse("a:1").object == "1"
    assert Reference.parse(f"a:1@{D}").object == D
    assert Reference.parse("a").tagged().familiar() == "a:latest"
    assert Reference.parse(f"a@{D}").tagged().familiar() == f"a@{D}"
    assert Reference.parse("a:1").with_digest(Digest(D)).familiar() == f"a@{D}"


def test_only_sha256_is_a_digest() -> None:
    assert is_digest(D)
    assert parse_digest(D) == D
    assert not is_digest(D + "\n")
    assert not is_digest(D.upper())


@given(st.text(max_size=80))
def test_any_text_is_a_name_that_reads_back_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidParameter:
        return
    assert Reference.parse(reference.canonical()) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert not set(reference.canonical()) & set(" \t\r\n?#%\\\0")


@given(st.text(max_size=20))
def test_any_text_is_a_tag_that_is_safe_in_an_address_or_is_refused(text: str) -> None:
    try:
        tag = check_tag(text)
    except InvalidParameter:
        return
    assert tag.isascii()
    assert not set(tag) & set("/:?#% \n")
