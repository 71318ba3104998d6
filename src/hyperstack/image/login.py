"""``docker login``: see whether a registry takes the credentials."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from msgspec.structs import replace

from hyperstack.config import Config
from hyperstack.errors import HyperError, InternalError, InvalidParameter, Unauthorized
from hyperstack.image.auth import AuthConfig, Authorizer, host_of
from hyperstack.image.endpoints import Endpoint, endpoints
from hyperstack.image.faults import Fault, Refused, Unreachable, status_line, translate, unreachable
from hyperstack.image.reference import DEFAULT_DOMAIN
from hyperstack.image.registry import ping
from hyperstack.image.transport import Request, Transport

MAX_ANSWER = 64 << 10


@dataclass(frozen=True, kw_only=True)
class LoginResult:
    """What the client keeps: with an identity token it forgets the password."""

    status: str
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"LoginResult(status={self.status!r})"


async def login(config: Config, auth: AuthConfig) -> LoginResult:
    """Try credentials at ``auth.serveraddress`` (empty: Docker Hub).

    Raises Unauthorized if the registry refuses them, Unavailable if it can't be reached.
    """
    domain = host_of(auth.serveraddress) or DEFAULT_DOMAIN
    if wrong := re.search(r"[^\x21-\x7e]|[ \"<>\\^`{|}]", domain):
        raise InvalidParameter(
            f'unable to parse server address: parse "https://{domain[:200]}": invalid character '
            f'"{wrong[0]}" in host name'
        )
    last: Fault = Unreachable(f"{domain} has no registry", retryable=False)
    try:
        async with Transport() as transport:
            for endpoint in endpoints(config, domain, mirrors=False):
                transport.name(endpoint.base.host or "")
                try:
                    return await _at(transport, endpoint, auth)
                except Unreachable as fault:
                    if not fault.endpoint_down:
                        raise
                    last = fault
    except Fault as fault:
        last = fault
    raise translate(last)


async def _at(transport: Transport, endpoint: Endpoint, auth: AuthConfig) -> LoginResult:
    auth = replace(auth, registrytoken="")  # nobody logs in with one, says dockerd
    authorizer = Authorizer(transport, endpoint, auth)
    await ping(transport, endpoint, authorizer)
    url = endpoint.url("/v2/")
    request = Request(method="GET", url=url, verify=endpoint.verify)
    try:
        async with asyncio.timeout(transport.limits.request):
            header = await authorizer.header(request, ())
    except TimeoutError as error:
        raise unreachable("GET", url, error) from error
    except Refused as fault:
        raise _refusal(fault) from fault
    allowed = Request(method="GET", url=url, authorization=header, verify=endpoint.verify)
    answer = await transport.fetch(allowed, MAX_ANSWER)
    if answer.status != 200:
        sentence = f"login attempt to {url} failed with status: {status_line(answer.status)}"
        raise InternalError(sentence)
    return LoginResult(status="Login Succeeded", identity_token=authorizer.refresh_token)


def _refusal(fault: Refused) -> HyperError:
    refused = fault.status in (401, 403) and fault.code != "NO_CREDENTIALS"
    return Unauthorized(fault.message) if refused else translate(fault)
