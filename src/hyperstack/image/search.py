"""``docker search``: the index protocol of registries' first version, which Docker Hub speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from yarl import URL

from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image.auth import NOBODY, AuthConfig
from hyperstack.image.endpoints import HUB_HOSTS, is_insecure
from hyperstack.image.faults import Fault, Refused, Unreachable, printable, translate
from hyperstack.image.manifest import without_nulls
from hyperstack.image.transport import Answer, Request, Transport

DEFAULT_LIMIT = 25
MAX_LIMIT = 100
MAX_ANSWER = 4 << 20
INDEX = "index.docker.io"


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One repository that was found."""

    name: str = ""
    description: str = ""
    is_official: bool = False
    is_automated: bool = False
    star_count: int = 0


class _Results(msgspec.Struct):
    results: Annotated[tuple[SearchResult, ...], msgspec.Meta(max_length=1000)] = ()


async def search(
    config: Config,
    term: str,
    *,
    limit: int = 0,
    filters: Mapping[str, Sequence[str]] | None = None,
    auth: AuthConfig = NOBODY,
) -> list[SearchResult]:
    """Return what an index has for *term* (``word``, ``user/word`` or ``host/word``).

    *limit* is 1 to 100, 0 for 25. *filters* are ``is-official``, ``is-automated`` and ``stars``.
    Raises InvalidParameter for those, Unavailable if the index can't be reached.
    """
    wanted = _filters(filters or {})
    if limit and not 1 <= limit <= MAX_LIMIT:
        raise InvalidParameter(f"Limit {limit} is outside the range of [1, {MAX_LIMIT}]")
    host, word = _split(term)
    query = urlencode({"q": word, "n": limit or DEFAULT_LIMIT})
    try:
        async with Transport() as transport:
            transport.name(URL(f"https://{host}").host or "")
            answer = await _ask(transport, config, host, query, auth)
    except Fault as fault:
        raise translate(fault) from fault
    except ValueError as error:
        raise InvalidParameter(f'invalid registry address "{host}"') from error
    found = [_clean(result) for result in _results(answer.body)]
    return [result for result in found if _matches(result, wanted)]


async def _ask(
    transport: Transport, config: Config, host: str, query: str, auth: AuthConfig
) -> Answer:
    secure = URL(f"https://{host}/v1/search?{query}", encoded=True)
    insecure = host != INDEX and is_insecure(config.insecure_registries, secure)
    header = auth.basic() if auth.username else None
    headers = {"X-Docker-Token": "true"}
    request = Request(
        method="GET", url=secure, headers=headers, authorization=header, verify=not insecure
    )
    try:
        answer = await transport.fetch(request, MAX_ANSWER)
    except Unreachable as fault:
        if not insecure or not fault.endpoint_down:
            raise
        plain = secure.with_scheme("http")
        request = Request(method="GET", url=plain, headers=headers, authorization=header)
        answer = await transport.fetch(request, MAX_ANSWER)
    if answer.status != 200:
        raise Refused(f"Unexpected status code {answer.status}", status=answer.status)
    return answer


def _split(term: str) -> tuple[str, str]:
    """Return the index's host and what to look for there, as Docker takes a term apart."""
    if "://" in term:
        raise InvalidParameter(
            f"invalid repository name: repository name ({term}) should not have a scheme"
        )
    first, slash, rest = term.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = INDEX, term
    if first in HUB_HOSTS:
        first, rest = INDEX, rest.removeprefix("library/")
    return first, rest


def _results(body: bytes) -> tuple[SearchResult, ...]:
    try:
        plain = without_nulls(msgspec.json.decode(body))
        return msgspec.convert(plain, _Results).results
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InternalError("the index's answer is not valid JSON of its kind") from error


def _clean(result: SearchResult) -> SearchResult:
    return msgspec.structs.replace(
        result, name=printable(result.name, 512), description=printable(result.description)
    )


class _Filters(msgspec.Struct, frozen=True, kw_only=True):
    official: bool | None = None
    automated: bool | None = None
    stars: int = 0


def _filters(filters: Mapping[str, Sequence[str]]) -> _Filters:
    for key in filters:
        if key not in ("is-official", "is-automated", "stars"):
            raise InvalidParameter(f"invalid filter '{key}'")
    stars = 0
    for text in filters.get("stars", ()):
        if not text.isdigit():
            raise InvalidParameter(f"invalid filter 'stars={text}'")
        stars = max(stars, int(text))
    return _Filters(
        official=_bool(filters, "is-official"),
        automated=_bool(filters, "is-automated"),
        stars=stars,
    )


def _bool(filters: Mapping[str, Sequence[str]], key: str) -> bool | None:
    values = filters.get(key, ())
    if not values:
        return None
    words = {"1": True, "true": True, "0": False, "false": False}
    if len(values) > 1 or values[0] not in words:
        raise InvalidParameter(f"invalid filter '{key}={list(values)}'")
    return words[values[0]]


def _matches(result: SearchResult, wanted: _Filters) -> bool:
    return (
        (wanted.official is None or result.is_official == wanted.official)
        and (wanted.automated is None or result.is_automated == wanted.automated)
        and result.star_count >= wanted.stars
    )
