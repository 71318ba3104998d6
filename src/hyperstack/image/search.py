"""``docker search``: the index protocol of registries' first version, which Docker Hub speaks."""

from __future__ import annotations

import json
import re
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
        raise InvalidParameter(f"limit {limit} is outside the range of [1, {MAX_LIMIT}]")
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
    if wanted.automated:
        return []  # nothing is called so any more
    found = [_clean(result) for result in _results(answer.body)]
    return [result for result in found if _matches(result, wanted)]


async def _ask(
    transport: Transport, config: Config, host: str, query: str, auth: AuthConfig
) -> Answer:
    url = URL(f"https://{host}/v1/search?{query}", encoded=True)
    insecure = host != INDEX and is_insecure(config.insecure_registries, url)
    if host != INDEX and await _scheme(transport, host, verify=not insecure) == "http":
        url = url.with_scheme("http")
    request = Request(
        method="GET",
        url=url,
        headers={"X-Docker-Token": "true"},
        authorization=auth.basic() if auth.username else None,
        verify=not insecure,
    )
    try:
        answer = await transport.fetch(request, MAX_ANSWER)
    except Unreachable as fault:
        # The query is the user's own: nothing in it is secret, and Docker tells it.
        told = fault.message.replace(f'"{url.with_query(None)}"', f'"{url}"')
        raise Unreachable(told, retryable=fault.retryable) from fault
    if answer.status != 200:
        raise Refused(f"Unexpected status code {answer.status}", status=answer.status)
    return answer


async def _scheme(transport: Transport, host: str, *, verify: bool) -> str:
    """Ask an index that is not Docker Hub's whether it is there; return how it wants to be asked.

    Raises InvalidParameter in Docker's words if it does not answer.
    """
    refusals = []
    for scheme in ("https",) if verify else ("https", "http"):
        url = URL(f"{scheme}://{host}/v1/_ping", encoded=True)
        try:
            await transport.fetch(Request(method="GET", url=url, verify=verify), MAX_ANSWER)
            return scheme
        except Unreachable as fault:
            refusals.append(fault.message)
    if verify:
        raise InvalidParameter(
            f"invalid registry endpoint https://{host}/v1/: {refusals[0]}. If this private "
            "registry supports only HTTP or HTTPS with an unknown CA certificate, please add "
            f"`--insecure-registry {host}` to the daemon's arguments. In the case of HTTPS, if you "
            "have access to the registry's CA certificate, no need for the flag; simply place the "
            f"CA certificate at /etc/docker/certs.d/{host}/ca.crt"
        )
    raise InvalidParameter(
        f'invalid registry endpoint "http://{host}/v1/". HTTPS attempt: {refusals[0]}. '
        f"HTTP attempt: {refusals[1]}"
    )


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
        return msgspec.convert({} if plain is None else plain, _Results).results
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InternalError(
            "error decoding registry search results: not JSON of its kind"
        ) from error


def _clean(result: SearchResult) -> SearchResult:
    return msgspec.structs.replace(
        result,
        name=printable(result.name, 512),
        description=printable(result.description),
        is_automated=False,
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
        if not re.fullmatch("[+-]?[0-9]{1,18}", text):
            raise InvalidParameter(
                f"invalid filter 'stars={text}': strconv.Atoi: parsing {json.dumps(text)}: "
                "invalid syntax"
            )
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
        raise InvalidParameter(f"invalid filter '{key}=[{' '.join(values)}]'")
    return words[values[0]]


def _matches(result: SearchResult, wanted: _Filters) -> bool:
    return (
        wanted.official is None or result.is_official == wanted.official
    ) and result.star_count >= wanted.stars
