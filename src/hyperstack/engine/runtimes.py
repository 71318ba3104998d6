"""Names for ``--runtime`` and what they stand for on this host."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from hyperstack.engine.core import Core
from hyperstack.errors import HyperError, InvalidParameter
from hyperstack.vmm import DefaultChoice, choose_default, probe
from hyperstack.vmm.base import Driver, Runtime

log = logging.getLogger(__name__)

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


async def find_out(
    core: Core, machines: Mapping[Runtime, Driver], told: Callable[[DefaultChoice], None]
) -> None:
    """Find out in the background whether KVM works, if nobody knows; then choose the default anew.

    Containers that start from then on have the new default; *told* gets the choice.
    """
    kit = core.sandboxes.kit
    await probe.sweep(core.config)
    if not probe.needed(core.config, kit):
        return
    try:
        found = await probe.probe(core.config, kit)
        choice = await choose_default(core.config, machines)
    except HyperError as error:
        log.warning("whether KVM works was not found out: %s", error)
        return
    if found.ok:
        log.info("KVM works: a guest booted with it in %.2f s", found.seconds)
    else:
        log.warning("KVM does not work: %s", found.reason)
    if choice.runtime != core.default_runtime:
        log.info("containers that start from now on run with %s", choice.runtime)
    core.default_runtime = choice.runtime
    told(choice)
