"""Fixtures: a real image service on a data root of its own, with the kit's jail and mkfs.erofs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hyperstack.config import Config
from hyperstack.errors import HyperError
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.erofs import uid_of
from hyperstack.image.service import ImageService
from hyperstack.store.database import Database
from tests.framework.host import KIT_DIR


@pytest.fixture(scope="session")
def kit() -> Kit:
    if os.geteuid() != 0:
        pytest.skip("jails need root")
    try:
        return Kit.load(KIT_DIR / "current")
    except HyperError as error:
        pytest.skip(error.message)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return Config(data_root=tmp_path / "data", uid_base=1_900_000_000 + 70_000 * number)


@asynccontextmanager
async def running(
    config: Config, kit: Kit, events: EventBus | None = None
) -> AsyncIterator[ImageService]:
    """Give a service as a daemon has it, and close it as a daemon does."""
    db = Database(config.data_root / "hyper.db")
    service = ImageService(config, db, kit, events or EventBus())
    await service.recover()
    yield service
    await service.close()
    db.close()


@pytest.fixture
def events() -> EventBus:
    return EventBus()


@pytest.fixture
async def images(config: Config, kit: Kit, events: EventBus) -> AsyncIterator[ImageService]:
    """A service; afterwards nothing of a conversion may be left."""
    before = _descriptors()
    async with running(config, kit, events) as service:
        yield service
        assert not list((config.data_root / "layers" / "jobs").iterdir())
        spools = (config.data_root / "content" / "partial").glob("tmp-*")
        assert not list(spools)
        assert not _processes(uid_of(config))
    assert _descriptors() <= before + 2, "descriptors were left open"


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _processes(uid: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(entry.name)
        except OSError:
            continue
    return found
