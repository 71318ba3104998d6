"""The one table from the engine's errors to HTTP statuses, and the shape of an error's answer.

As moby's ``httpstatus.FromError``: the body is ``{"message": sentence}``.
"""

from __future__ import annotations

from hyperstack import errors
from hyperstack.api.docker import gojson

STATUS: dict[type[errors.HyperError], int] = {
    errors.NotFound: 404,
    errors.InvalidParameter: 400,
    errors.Conflict: 409,
    errors.Unauthorized: 401,
    errors.Unavailable: 503,
    errors.Forbidden: 403,
    errors.NotModified: 304,
    errors.RateLimited: 429,
    errors.Unsupported: 405,
    errors.NotImplementedHere: 501,
    errors.InternalError: 500,
}


def status_of(error: errors.HyperError) -> int:
    """Return the HTTP status of an error by its nearest class in the table."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def body_of(message: str) -> bytes:
    """Return the JSON that clients read the sentence from."""
    return gojson.encode({"message": message})
