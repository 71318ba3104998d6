"""Kernel parameters of the calling thread's network namespace (``/proc/sys/net``)."""

from __future__ import annotations

from pathlib import Path

from hyperstack.errors import InternalError

_ROOT = Path("/proc/sys/net")


def get(name: str) -> str | None:
    """Return ``ipv4/ip_forward`` as text, None if this kernel has no such parameter."""
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return None


def put(name: str, value: str, *, optional: bool = False) -> None:
    """Set a parameter unless it has that value. *optional*: it may be missing (no IPv6).

    Raises InternalError, which names the parameter to set by hand.
    """
    now = get(name)
    if now == value or (now is None and optional):
        return
    try:
        (_ROOT / name).write_text(value)
    except OSError as error:
        dotted = "net." + name.replace("/", ".")
        raise InternalError(f"{dotted} can't be set to {value}: {error.strerror}") from error
