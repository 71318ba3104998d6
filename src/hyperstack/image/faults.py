"""What goes wrong between here and a registry, in the words that Docker's users know.

    Fault
    |-- Unreachable   no answer: name, connection, TLS, time; worded as Go words it
    `-- Refused       an answer that says no: status, and the code of the distribution
                      specification ("Error Codes") or what stands for one

These never leave the image layer: ``translate`` makes errors for users of them. Whatever of a
registry's answer ends up in a sentence is cut and freed of control characters first.
"""

from __future__ import annotations

import asyncio
import http
import json
import re
import ssl

import aiohttp
import msgspec
from yarl import URL

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
from hyperstack.image.reference import Reference

MAX_ERROR_BODY = 64 << 10
MAX_MESSAGE = 1024
MAX_ERRORS = 16
_CODES = {
    "UNKNOWN": "unknown error",
    "UNSUPPORTED": "The operation is unsupported.",
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "UNAVAILABLE": "service unavailable",
    "TOOMANYREQUESTS": "too many requests",
    "DIGEST_INVALID": "provided digest did not match uploaded content",
    "SIZE_INVALID": "provided length did not match content length",
    "NAME_INVALID": "invalid repository name",
    "TAG_INVALID": "manifest tag did not match URI",
    "NAME_UNKNOWN": "repository name not known to registry",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "MANIFEST_INVALID": "manifest invalid",
    "MANIFEST_UNVERIFIED": "manifest failed signature verification",
    "MANIFEST_BLOB_UNKNOWN": "blob unknown to registry",
    "BLOB_UNKNOWN": "blob unknown to registry",
    "BLOB_UPLOAD_UNKNOWN": "blob upload unknown to registry",
    "BLOB_UPLOAD_INVALID": "blob upload invalid",
}
"""With what they mean: an error that says just this, without details, is a mere code to Docker."""
_JSON = "application/json"
_JSON_TYPES = frozenset({_JSON, "application/vnd.api+json"})
_BY_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}
"""What an answer without a list of errors stands for."""
_ADDRESS = re.compile(r"\('([0-9a-fA-F.:%a-z]+)', ([0-9]+)")


class Fault(Exception):
    """A registry could not be used. ``retryable``: the same request may succeed a moment later."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


class Unreachable(Fault):
    """There was no answer, or it broke off. ``url`` is what was asked."""

    def __init__(self, message: str, *, retryable: bool, endpoint_down: bool = False) -> None:
        super().__init__(message, retryable=retryable)
        self.endpoint_down = endpoint_down
        """Another way to the same registry (plain HTTP, another mirror) may work."""


class Refused(Fault):
    """The registry said no. ``code`` is of the specification, ``retry_after`` is in seconds.

    ``bare``: it said no more than the code.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        retry_after: float | None = None,
        bare: bool = False,
    ) -> None:
        super().__init__(message, retryable=status >= 500 or status == 429)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.bare = bare


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return foreign text fit for a terminal: cut, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()


def asked(method: str, url: URL) -> str:
    """Return ``Get "https://..."``, the way in which Go begins a sentence; without any query."""
    return f'{method.capitalize()} "{url.with_query(None).with_fragment(None)}"'


def unreachable(method: str, url: URL, error: Exception) -> Unreachable:
    """Word what aiohttp or the system raised for one request."""
    reason, retryable, down = _reason(url, error)
    return Unreachable(f"{asked(method, url)}: {reason}", retryable=retryable, endpoint_down=down)


def broken(url: URL, error: Exception) -> Unreachable:
    """Word what ended an answer's body early; no request is named then."""
    reason, retryable, down = _reason(url, error)
    return Unreachable(reason, retryable=retryable, endpoint_down=down)


def _reason(url: URL, error: Exception) -> tuple[str, bool, bool]:
    """Return Go's words, whether a retry makes sense, whether another endpoint may work."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate(error.certificate_error), False, True
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {url.host}: no such host", False, True
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "http: server gave HTTP response to HTTPS client", False, True
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"proxyconnect tcp: {error.os_error.strerror or error.os_error}", False, True
    if isinstance(error, aiohttp.ClientConnectorError):
        return _dial(url, error.os_error), False, True
    if isinstance(error, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded)", True, True
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF", True, False
    if isinstance(error, aiohttp.ClientPayloadError | asyncio.IncompleteReadError):
        return "unexpected EOF", True, False
    if isinstance(error, OSError):
        text = (error.strerror or str(error)).lower()
        return f"read tcp: {text}", True, False
    if isinstance(error, aiohttp.ClientResponseError):
        return f"malformed HTTP response: {printable(error.message, 200)}", False, False
    return printable(str(error), 200) or type(error).__name__, False, False


def _dial(url: URL, error: OSError) -> str:
    match = _ADDRESS.search(str(error))
    host, port = (match[1], match[2]) if match else (url.host or "", str(url.port or ""))
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    reasons = {
        111: "connection refused",
        113: "no route to host",
        101: "network is unreachable",
        110: "connection timed out",
        104: "connection reset by peer",
    }
    reason = reasons.get(error.errno or 0, (error.strerror or str(error)).lower())
    return f"dial tcp {where}: connect: {reason}"


def _certificate(error: Exception) -> str:
    words = "tls: failed to verify certificate: x509: "
    if not isinstance(error, ssl.SSLCertVerificationError):
        return words + printable(str(error), 200)
    if error.verify_code in (2, 18, 19, 20, 21):
        return words + "certificate signed by unknown authority"
    if error.verify_code in (9, 10):
        return words + "certificate has expired or is not yet valid"
    return words + printable(error.verify_message, 200)


def refused(
    status: int,
    body: bytes,
    *,
    scope_denied: bool,
    retry_after: float | None,
    media_type: str = _JSON,
) -> Refused:
    """Word a registry's answer; *scope_denied* is RFC 6750's ``insufficient_scope``."""
    phrase = status_line(status)
    if not 400 <= status < 500:
        return Refused(
            f"received unexpected HTTP status: {phrase}", status=status, retry_after=retry_after
        )
    errors: list[tuple[str, str | None]] = []
    if scope_denied:
        errors.append(("DENIED", _CODES["DENIED"]))
    if media_type in _JSON_TYPES:
        errors += _listed(status, body)
    else:
        # What a registry that wants a password answers may quote what it was sent.
        text = printable(body[:MAX_MESSAGE].decode(errors="replace"))
        text = _CODES["UNAUTHORIZED"] if status == 401 and text else text
        errors.append((_BY_STATUS.get(status, "UNKNOWN"), text))
    if not errors:
        code = "UNAUTHORIZED" if status == 401 else ""
        return Refused(_unparsed(status, body), status=status, code=code, retry_after=retry_after)
    code, message = errors[0]
    words, bare = code.lower().replace("_", " "), message is None
    sentence = words if bare else f"{words}: {message}"
    return Refused(sentence, status=status, code=code, retry_after=retry_after, bare=bare)


def status_line(status: int) -> str:
    """Return a status as Go prints it: ``404 Not Found``."""
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _listed(status: int, body: bytes) -> list[tuple[str, str | None]]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []
    if not isinstance(document, dict):
        return []
    details = document.get("details")
    if isinstance(details, str) and details:  # what Docker Hub's token server says
        return [(_BY_STATUS.get(status, "UNKNOWN"), printable(details))]
    errors = document.get("errors")
    if not isinstance(errors, list):
        return []
    return [_one(error) for error in errors[:MAX_ERRORS] if isinstance(error, dict)]


def _one(error: dict[str, object]) -> tuple[str, str | None]:
    """Return code and message of an error, None for one that is no more than its code."""
    code, message = error.get("code"), error.get("message")
    known = code.upper() if isinstance(code, str) and code.upper() in _CODES else "UNKNOWN"
    text = printable(message) if isinstance(message, str) else ""
    bare = error.get("detail") is None and text in ("", _CODES[known])
    return known, None if bare else text


def _unparsed(status: int, body: bytes) -> str:
    if status == 401:
        return "unauthorized: authentication required"
    quoted = json.dumps(printable(body[:512].decode(errors="replace")))
    reason = (
        "no error details found in HTTP response body" if body else "unexpected end of JSON input"
    )
    return f"error parsing HTTP {status} response body: {reason}: {quoted}"


def translate(
    fault: Fault, reference: Reference | None = None, *, pull: bool = False
) -> HyperError:
    """Make the error that a user sees of a fault about *reference*."""
    if not isinstance(fault, Refused):
        return InternalError(fault.message)
    if pull and reference is not None and not fault.bare:
        if fault.code == "DENIED":
            return NotFound(
                f"pull access denied for {reference.familiar_name}, repository does not exist or "
                f"may require 'docker login': {fault.message}"
            )
        if fault.code == "MANIFEST_UNKNOWN":
            return NotFound(f"manifest for {reference.familiar()} not found: {fault.message}")
        if fault.code == "NAME_UNKNOWN":
            return NotFound(f"repository {reference.familiar_name} not found: {fault.message}")
    return _CLASSES.get(fault.code, InternalError)(fault.message)


_CLASSES: dict[str, type[HyperError]] = {
    "UNAUTHORIZED": Unauthorized,
    "DENIED": Forbidden,
    "TOOMANYREQUESTS": RateLimited,
    "UNSUPPORTED": Unsupported,
    "UNAVAILABLE": Unavailable,
    "MANIFEST_UNKNOWN": NotFound,
    "NAME_UNKNOWN": NotFound,
    "BLOB_UNKNOWN": NotFound,
    "BLOB_UPLOAD_UNKNOWN": NotFound,
    "NAME_INVALID": InvalidParameter,
    "TAG_INVALID": InvalidParameter,
    "DIGEST_INVALID": InvalidParameter,
    "SIZE_INVALID": InvalidParameter,
    "MANIFEST_INVALID": InvalidParameter,
    "MANIFEST_UNVERIFIED": InvalidParameter,
    "MANIFEST_BLOB_UNKNOWN": InvalidParameter,
}
"""As the specification's codes have statuses of their own; an answer without one is 500."""
