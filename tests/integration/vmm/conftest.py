"""Fixtures of the driver tests: every test runs with every driver that works on this host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from hyperstack.config import Config
from hyperstack.guest.kit import Kit
from hyperstack.platform.process import become_subreaper
from hyperstack.vmm import drivers
from hyperstack.vmm.base import Driver, MachineSpec, Runtime
from tests.framework.host import KIT_DIR
from tests.integration.vmm.room import Bench, Room, room

UIDS = 690_000


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Bench:
    """The kit, a configuration with roots of its own, and a layer."""
    become_subreaper()
    folder = tmp_path_factory.mktemp("vmm")
    config = Config(
        data_root=folder / "data",
        exec_root=folder / "exec",
        kit_dir=KIT_DIR,
        allow_uml_fast=True,
        # Away from those of daemons under test, which probe the host and convert layers, too.
        uid_base=1_700_000_000 + 70_000 * worker_number,
    )
    return Bench.make(folder, Kit.load(config.kit), config)


@pytest.fixture(scope="session")
def all_drivers(bench: Bench) -> dict[Runtime, Driver]:
    """All drivers of this release."""
    return drivers(bench.config, bench.kit)


@pytest.fixture(params=list(Runtime), ids=str)
def driver(request: pytest.FixtureRequest, all_drivers: dict[Runtime, Driver]) -> Driver:
    """A driver that works here."""
    runtime: Runtime = request.param
    if runtime not in all_drivers:
        pytest.skip(f"{runtime} is not part of this release")
    found = all_drivers[runtime]
    usable = asyncio.run(found.usable())
    if not usable.ok:
        pytest.skip(f"{runtime}: {usable.reason}")
    return found


@pytest.fixture
def uml(all_drivers: dict[Runtime, Driver]) -> Driver:
    """The driver of User Mode Linux."""
    return all_drivers[Runtime.UML]


@pytest.fixture
def uid() -> int:
    """A uid of this test worker's own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return UIDS + 100 * int(worker.removeprefix("gw"))


@pytest.fixture
async def place(bench: Bench, driver: Driver, uid: int) -> AsyncIterator[tuple[Room, MachineSpec]]:
    """A room for one machine, and what to launch."""
    async with room(bench, driver, uid) as made:
        yield made


@pytest.fixture
async def uml_place(bench: Bench, uml: Driver, uid: int) -> AsyncIterator[tuple[Room, MachineSpec]]:
    """The same, for tests of what only User Mode Linux has."""
    async with room(bench, uml, uid) as made:
        yield made
