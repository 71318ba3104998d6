from __future__ import annotations

import pytest

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image.fetch import fetched, source_of


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("http://h/p", "http://h/p"),
        ("HTTPS://h/p", "https://h/p"),
        ("h:5000/p", "http://h:5000/p"),
        ("h", "http://h"),
        ("", "http://"),
        ("ftp://h/p", "ftp://h/p"),
    ],
)
def test_an_address_without_a_scheme_is_http(text: str, source: str) -> None:
    assert source_of(text) == source


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http://[::1/", "parse \"http://[::1/\": missing ']' in host"),
        ("http://a b/", 'parse "http://a b/": invalid character " " in host name'),
        ("a:b", 'parse "http://a:b": invalid port ":b" after host'),
        ("http://h:x/", 'parse "http://h:x/": invalid port ":x" after host'),
    ],
)
def test_a_wrong_address_is_refused_as_go_words_it(text: str, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        source_of(text)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("file:///etc/passwd", 'Get "file:///etc/passwd": unsupported protocol scheme "file"'),
        ("ftp://h/p", 'Get "ftp://h/p": unsupported protocol scheme "ftp"'),
        ("http://", 'Get "http:": http: no Host in request URL'),
        ("http:///p", 'Get "http:///p": http: no Host in request URL'),
        ("http://h:99999/", 'Get "http://h:99999/": dial tcp: address 99999: invalid port'),
    ],
)
async def test_nothing_but_web_addresses_is_fetched(source: str, sentence: str) -> None:
    with pytest.raises(InternalError) as caught:
        async with fetched(source):
            pass
    assert caught.value.message == sentence
