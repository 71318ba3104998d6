"""Which runtimes this host has, and which one is its default (design 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hyperstack.config import Config
from hyperstack.errors import InvalidParameter, Unavailable
from hyperstack.guest.kit import Kit
from hyperstack.vmm import probe
from hyperstack.vmm.base import Driver, Runtime
from hyperstack.vmm.qemu.driver import QemuDriver
from hyperstack.vmm.uml.driver import UmlDriver

HOST_DEFAULT = "hyper"
PREFERENCE = (Runtime.KVM, Runtime.UML, Runtime.TCG)
"""Best first. UML in seccomp mode is no default: the operator names it or does not get it."""


@dataclass(frozen=True, kw_only=True)
class DefaultChoice:
    """The host's default runtime, and why no better one was taken: a sentence each."""

    runtime: Runtime
    reasons: tuple[str, ...]


def drivers(config: Config, kit: Kit) -> dict[Runtime, Driver]:
    """Return the drivers of this release by runtime, whether or not this host can use them."""
    made: dict[Runtime, Driver] = {Runtime.UML: UmlDriver(config, kit)}
    if config.allow_uml_fast:
        made[Runtime.UML_FAST] = UmlDriver(config, kit, Runtime.UML_FAST)
    for runtime in (Runtime.KVM, Runtime.TCG):
        made[runtime] = QemuDriver(config, kit, runtime)
    return made


async def choose_default(config: Config, machines: Mapping[Runtime, Driver]) -> DefaultChoice:
    """Choose what ``hyper`` stands for: the configured runtime, or the best that works.

    Raises InvalidParameter if the configured one is unknown or not allowed, Unavailable if it, or
    every runtime, does not work here; the sentence says what to do. A configured ``hyper-kvm`` is
    probed first (``probe.TIMEOUT``), otherwise no guest is started.
    """
    if config.default_runtime != HOST_DEFAULT:
        return await _configured(config, machines)
    reasons: list[str] = []
    for runtime in PREFERENCE:
        driver = machines.get(runtime)
        if driver is None:
            continue
        usable = await driver.usable()
        if usable.ok:
            warnings = (f"runtime {runtime}: {warning}" for warning in usable.warnings)
            return DefaultChoice(runtime=runtime, reasons=(*reasons, *warnings))
        reasons.append(f"runtime {runtime} can't be used: {usable.reason}")
    raise Unavailable("no runtime works on this host: " + "; ".join(reasons))


async def _configured(config: Config, machines: Mapping[Runtime, Driver]) -> DefaultChoice:
    name = config.default_runtime
    try:
        runtime = Runtime(name)
        driver = machines[runtime]
    except (ValueError, KeyError):
        if name == Runtime.UML_FAST:
            raise InvalidParameter(
                f"the default runtime {name} is not allowed; it relies on the jail alone, "
                "so say allow-uml-fast to have it"
            ) from None
        raise InvalidParameter(f"unknown or invalid runtime name: {name}") from None
    if isinstance(driver, QemuDriver) and runtime == Runtime.KVM:
        await _look_at_kvm(config, driver)
    usable = await driver.usable()
    if not usable.ok:
        raise Unavailable(f"the default runtime {name} can't be used: {usable.reason}")
    return DefaultChoice(
        runtime=runtime,
        reasons=tuple(f"runtime {runtime}: {warning}" for warning in usable.warnings),
    )


async def _look_at_kvm(config: Config, driver: QemuDriver) -> None:
    if probe.needed(config, driver.kit):
        await probe.probe(config, driver.kit)
