"""The body of ``POST /auth``: credentials that are to be tried (moby, ``registry.AuthConfig``)."""

from __future__ import annotations

from hyperstack.api.docker.gojson import STRING, Field, Schema, decode
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.image.auth import AuthConfig

_NAMES = ("username", "password", "email", "serveraddress", "identitytoken", "registrytoken")
AUTH: Schema[AuthConfig] = Schema(
    "registry.AuthConfig", AuthConfig, tuple(Field(name, name, STRING) for name in _NAMES)
)


def read_auth(body: bytes) -> AuthConfig:
    """Return the credentials; dockerd asks for no content type and calls a bad body its failure."""
    if not body.strip():
        raise InternalError("EOF")
    try:
        return AUTH.read(decode(body))
    except InvalidParameter as error:
        raise InternalError(error.message.removeprefix("invalid JSON: ")) from error
