"""Which runtime a host gets by default, and what is said about the better ones."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from hyperstack.config import Config
from hyperstack.errors import InvalidParameter, Unavailable
from hyperstack.guest.kit import Kit
from hyperstack.vmm import choose_default, drivers
from hyperstack.vmm.base import Driver, Runtime, Usable
from hyperstack.vmm.uml.driver import UmlDriver
from tests.unit.guest.test_kit import make_kit


class Host:
    """A driver of which only the answer to ``usable`` counts."""

    def __init__(self, usable: Usable) -> None:
        self._usable = usable

    async def usable(self) -> Usable:
        return self._usable


def _machines(**answers: str | None) -> dict[Runtime, Driver]:
    """Make drivers by lower-case runtime name; a text is the reason for which one is unusable."""
    return {
        Runtime[name.upper()]: cast(
            "Driver", Host(Usable(ok=reason is None, reason=reason or "", warnings=("careful",)))
        )
        for name, reason in answers.items()
    }


async def test_kvm_is_taken_where_it_works() -> None:
    choice = await choose_default(Config(), _machines(tcg=None, uml=None, kvm=None))
    assert choice.runtime == Runtime.KVM


async def test_uml_is_next_and_the_reason_against_kvm_is_told() -> None:
    choice = await choose_default(Config(), _machines(kvm="guests hang", uml=None, tcg=None))
    assert choice.runtime == Runtime.UML
    assert choice.reasons == (
        "runtime hyper-kvm can't be used: guests hang",
        "runtime hyper-uml: careful",
    )


async def test_the_fast_runtime_is_never_a_default_by_itself() -> None:
    choice = await choose_default(Config(), _machines(uml_fast=None, uml="no ptrace", tcg=None))
    assert choice.runtime == Runtime.TCG


async def test_a_host_where_nothing_works_is_told_all_reasons() -> None:
    with pytest.raises(Unavailable) as caught:
        await choose_default(Config(), _machines(kvm="a", uml="b", tcg="c"))
    for part in ("hyper-kvm can't be used: a", "hyper-uml can't be used: b", "tcg can't be used"):
        assert part in caught.value.message


async def test_the_configured_runtime_is_taken_or_refused() -> None:
    config = Config(default_runtime="hyper-tcg")
    assert (await choose_default(config, _machines(uml=None, tcg=None))).runtime == Runtime.TCG
    with pytest.raises(Unavailable, match="hyper-tcg can't be used: slow"):
        await choose_default(config, _machines(uml=None, tcg="slow"))
    with pytest.raises(InvalidParameter, match="unknown or invalid runtime name: runc"):
        await choose_default(Config(default_runtime="runc"), _machines(uml=None))


async def test_the_fast_runtime_as_default_needs_the_operators_word() -> None:
    config = Config(default_runtime="hyper-uml-fast")
    with pytest.raises(InvalidParameter, match="relies on the jail alone"):
        await choose_default(config, _machines(uml=None))


async def test_drivers_hold_the_fast_runtime_only_where_it_is_allowed(tmp_path: Path) -> None:
    make_kit(tmp_path)
    kit = Kit.load(tmp_path / "current")
    assert Runtime.UML_FAST not in drivers(Config(), kit)
    machines = drivers(Config(allow_uml_fast=True), kit)
    fast, safe = machines[Runtime.UML_FAST], machines[Runtime.UML]
    assert isinstance(fast, UmlDriver)
    assert not fast.capabilities.security_boundary
    assert safe.capabilities.security_boundary
    assert (await fast.usable()).warnings
