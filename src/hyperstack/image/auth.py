"""Who we are to a registry: what API clients send, and what registries want to hear.

X-Registry-Auth and X-Registry-Config are base64url of JSON, as in Docker's API. A registry asks by
WWW-Authenticate (RFC 9110, section 11): ``Basic``, or ``Bearer`` with a realm at which a token is
fetched (distribution, "Token Authentication Specification" and "OAuth2 Token Authentication").
Credentials are given to one registry, and to the token server that this registry names; a token
server is only spoken to by HTTPS if its registry is. Secrets are in no ``repr`` and no sentence.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from yarl import URL

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image.endpoints import HUB_HOSTS, Endpoint, address, is_near
from hyperstack.image.faults import Refused, asked
from hyperstack.image.manifest import without_nulls
from hyperstack.image.transport import Request, Transport

MAX_HEADER = 64 << 10
MAX_TOKEN_ANSWER = 1 << 20
MAX_CHALLENGES = 8
MIN_LIFETIME = 60.0
CLIENT_ID = "docker"
"""Token servers know this client and may refuse others."""
T = TypeVar("T")
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")


class AuthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials for one registry, as Docker's API carries them."""

    username: str = ""
    password: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return f"AuthConfig(username={self.username!r}, serveraddress={self.serveraddress!r})"

    def basic(self) -> str:
        """Return the value of an Authorization header of scheme Basic."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


NOBODY = AuthConfig()


def decode_auth(header: str | None) -> AuthConfig:
    """Read X-Registry-Auth; without one, and with one that can't be read, it is nobody.

    So it is with dockerd, and clients send empty and odd ones.
    """
    if not header:
        return NOBODY
    try:
        return _typed(header, AuthConfig, "X-Registry-Auth")
    except InvalidParameter:
        return NOBODY


def decode_auths(header: str | None) -> dict[str, AuthConfig]:
    """Read X-Registry-Config: credentials by registry, for builds. Raises InvalidParameter."""
    if not header:
        return {}
    return _typed(header, dict[str, AuthConfig], "X-Registry-Config")


def choose(auths: Mapping[str, AuthConfig], domain: str) -> AuthConfig:
    """Return the credentials among *auths* for the registry of *domain*."""
    wanted = HUB_HOSTS if domain in HUB_HOSTS else {domain}
    for key, auth in auths.items():
        if host_of(key) in wanted:
            return auth
    return NOBODY


def host_of(address: str) -> str:
    """Return ``host[:port]`` of what a user logged in to: ``https://host/v1/`` or ``host``."""
    return re.sub(r"^[a-z]+://", "", address.strip()).split("/")[0]


def _typed(header: str, kind: type[T], name: str) -> T:
    if len(header) > MAX_HEADER:
        raise InvalidParameter(f"invalid {name} header: too long")
    try:
        plain = without_nulls(msgspec.json.decode(_base64(header, name))) or {}
        return msgspec.convert(plain, kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        # No cause and no detail: they could quote what was sent.
        raise InvalidParameter(f"invalid {name} header: not a JSON object of its kind") from None


def _base64(text: str, name: str) -> bytes:
    plain = text.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidParameter(f"invalid {name} header: not base64") from None


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """One way in which a server wants to be told who asks."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


_PARAMETER = re.compile(
    r'[\s,]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))'
)
_SCHEME = re.compile(r"[\s,]*([A-Za-z0-9-]+)(?=\s|,|$)")


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read WWW-Authenticate headers; what can't be read is left out."""
    found: list[Challenge] = []
    for header in headers:
        position = 0
        text = header[:MAX_HEADER]
        while len(found) < MAX_CHALLENGES and (scheme := _SCHEME.match(text, position)):
            position, parameters = scheme.end(), {}
            while parameter := _PARAMETER.match(text, position):
                value = parameter[2] if parameter[2] is not None else parameter[3]
                parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", value)
                position = parameter.end()
            found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return found


@dataclass(frozen=True)
class _Token:
    text: str
    expires: float


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float = 0


class Authorizer:
    """Makes the Authorization header for one endpoint of a registry."""

    def __init__(self, transport: Transport, endpoint: Endpoint, auth: AuthConfig) -> None:
        self._transport = transport
        self._endpoint = endpoint
        # A mirror is not the registry that the user logged in to.
        self._auth = NOBODY if endpoint.mirror else auth
        self._challenges: list[Challenge] = []
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self.refresh_token = ""
        """What a token server gave to log in with from now on."""

    def learn(self, headers: Iterable[str], *, late: bool = False) -> None:
        """Take note of what a 401 asked for.

        A *late* one, of a registry that had let us in, is forgotten if it can't be answered: then
        the refusal's own words are what the user reads.
        """
        found = [c for c in parse_challenges(headers) if c.scheme in ("basic", "bearer")]
        if late and not (self._auth.username and self._auth.password):
            found = [challenge for challenge in found if challenge.scheme == "bearer"]
        if found:
            self._challenges = found

    def forget(self) -> None:
        """Drop all tokens: one of them was refused."""
        self._tokens.clear()

    async def header(self, request: Request, scopes: tuple[str, ...]) -> str | None:
        """Return the header's value for a request, or None if the registry asks for nothing.

        Raises Refused if it wants credentials and there are none, or the token server says no.
        """
        if self._auth.registrytoken:
            return f"Bearer {_checked(self._auth.registrytoken)}"
        for challenge in self._challenges:
            if challenge.scheme == "bearer":
                return f"Bearer {await self._token_for(request, challenge, scopes)}"
        if not self._challenges:
            return None
        if not (self._auth.username and self._auth.password):
            sentence = f"{asked(request.method, request.url)}: no basic auth credentials"
            raise Refused(sentence, status=401, code="NO_CREDENTIALS")
        return self._auth.basic()

    async def _token_for(
        self, request: Request, challenge: Challenge, scopes: tuple[str, ...]
    ) -> str:
        try:
            return await self._token(challenge, scopes)
        except Refused as fault:
            sentence = f"{asked(request.method, request.url)}: {fault.message}"
            raise Refused(sentence, status=fault.status) from fault

    async def _token(self, challenge: Challenge, scopes: tuple[str, ...]) -> str:
        kept = self._tokens.get(scopes)
        if kept is not None and kept.expires > time.monotonic():
            return kept.text
        answer = await self._ask(challenge, scopes)
        text = _checked(answer.token or answer.access_token)
        # A quarter is left for clocks and the way.
        lifetime = max(MIN_LIFETIME, min(answer.expires_in, 86400.0)) * 0.75
        self._tokens[scopes] = _Token(text, time.monotonic() + lifetime)
        self.refresh_token = answer.refresh_token or self.refresh_token
        return text

    async def _ask(self, challenge: Challenge, scopes: tuple[str, ...]) -> _TokenAnswer:
        realm = self._realm(challenge)
        service = challenge.parameters.get("service", "")
        if self._auth.identitytoken:
            request = self._oauth(realm, service, scopes)
        else:
            request = self._get(realm, service, scopes)
        answer = await self._transport.fetch(request, MAX_TOKEN_ANSWER)
        if not 200 <= answer.status < 300:
            raise answer.fault()
        try:
            plain = without_nulls(msgspec.json.decode(answer.body))
            return msgspec.convert(plain, _TokenAnswer, strict=False)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise InternalError("the registry's token server answered no token") from None

    def _realm(self, challenge: Challenge) -> URL:
        try:
            realm = address(challenge.parameters.get("realm", ""))
        except ValueError:
            realm = URL()
        if realm.scheme not in ("http", "https") or not realm.host or realm.user:
            raise InternalError("the registry names no valid token server")
        if is_near(realm.host) and not is_near(self._endpoint.base.host or ""):
            raise InternalError("the registry names this host as its token server: refused")
        if realm.scheme == "http" and self._endpoint.base.scheme == "https":
            raise InternalError("the registry names a token server without TLS: refused")
        return realm

    def _verify(self, realm: URL) -> bool:
        """Return whether the token server has to prove itself: the registry itself may not."""
        same = (realm.host, realm.port) == (self._endpoint.base.host, self._endpoint.base.port)
        return self._endpoint.verify or not same

    def _get(self, realm: URL, service: str, scopes: tuple[str, ...]) -> Request:
        query = [("scope", scope) for scope in scopes]
        query += [("service", service)] if service else []
        header = None
        if self._auth.username and self._auth.password:
            query += [("account", self._auth.username), ("client_id", CLIENT_ID)]
            query += [("offline_token", "true")] if not scopes else []
            header = self._auth.basic()
        joined = realm.raw_query_string + ("&" if realm.raw_query_string else "") + urlencode(query)
        url = URL(f"{realm.with_query(None)}?{joined}", encoded=True)
        return Request(method="GET", url=url, authorization=header, verify=self._verify(realm))

    def _oauth(self, realm: URL, service: str, scopes: tuple[str, ...]) -> Request:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._auth.identitytoken,
            "service": service,
            "client_id": CLIENT_ID,
            "scope": " ".join(scopes),
        }
        return Request(
            method="POST",
            url=realm,
            body=urlencode(form).encode(),
            verify=self._verify(realm),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )


def _checked(token: str) -> str:
    if not _TOKEN.match(token):
        raise InternalError("the registry's token server answered no usable token")
    return token
