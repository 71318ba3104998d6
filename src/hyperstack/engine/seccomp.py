"""Which system call filter a container gets; compiled once per profile and capability set."""

from __future__ import annotations

from functools import lru_cache

from hyperstack.engine import security
from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.guest import caps
from hyperstack.guest.seccomp import compile_profile
from hyperstack.model import HostConfig


def profile_of(host: HostConfig) -> str | None:
    """Return the last profile of ``--security-opt seccomp=``: its JSON, ``unconfined`` or None."""
    profile = None
    for option in host.security_opt:
        name, value, _ = security.split(option)
        if name == "seccomp":
            profile = None if value in ("builtin", "default", "") else value
    return profile


def filter_for(host: HostConfig) -> bytes:
    """Return the BPF program for a container's processes, empty for none. Raises InternalError."""
    profile = profile_of(host)
    if profile == "unconfined" or (host.privileged and profile is None):
        return b""
    bits = caps.resolve(host.cap_add, host.cap_drop, privileged=host.privileged)
    try:
        return _compiled(profile, bits)
    except InvalidParameter as error:
        raise InternalError(error.message) from error  # as dockerd, which reads it at the start


@lru_cache(maxsize=64)
def _compiled(profile: str | None, bits: int) -> bytes:
    program: bytes = compile_profile(profile, caps.names(bits))
    return program
