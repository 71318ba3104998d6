"""Names for ``--runtime`` and what they stand for on this host."""

from __future__ import annotations

from hyperstack.engine.core import Core
from hyperstack.errors import InvalidParameter
from hyperstack.vmm.base import Runtime

HOST_DEFAULT = "hyper"
"""Stands for the host's default runtime."""


def settle(core: Core, asked: str) -> str:
    """Return the runtime's name as the container keeps it. Raises InvalidParameter in Docker's
    words for a name that this host does not have.
    """
    name = asked or core.config.default_runtime
    if name != HOST_DEFAULT:
        core.sandboxes.driver(_runtime(name))
    return name


def resolve(core: Core, name: str) -> Runtime:
    """Return the driver that a container's runtime name means now."""
    return core.default_runtime if name in ("", HOST_DEFAULT) else _runtime(name)


def _runtime(name: str) -> Runtime:
    try:
        return Runtime(name)
    except ValueError:
        raise InvalidParameter(f"unknown or invalid runtime name: {name}") from None
