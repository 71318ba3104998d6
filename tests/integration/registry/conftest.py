"""Fixtures: a real registry for all tests of a worker, and a real image store for each."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hyperstack.config import Config
from hyperstack.errors import HyperError
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.registryside import RegistrySide
from hyperstack.image.store import ImageStore
from hyperstack.store.database import Database
from tests.framework.host import KIT_DIR
from tests.integration.registry.servers import REGISTRY, Certificates, Registry, running_registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's docker-registry, without TLS and open to everybody."""
    if shutil.which(REGISTRY) is None:
        pytest.skip("docker-registry is not installed")
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def kit() -> Kit:
    try:
        return Kit.load(KIT_DIR / "current")
    except HyperError as error:
        pytest.skip(error.message)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tmp_path.chmod(0o711)
    return Config(
        data_root=tmp_path / "data",
        exec_root=tmp_path / "exec",
        kit_dir=KIT_DIR,
        max_download_attempts=3,
        # Of nobody else's tests, whose leak check looks at their own range.
        uid_base=60_000_000,
    )


@pytest.fixture
async def images(config: Config, kit: Kit) -> AsyncIterator[RegistrySide]:
    """An image store of its own, as the daemon has it."""
    config.data_root.mkdir(mode=0o711)
    db = Database(config.data_root / "hyper.db")
    store = ImageStore(config, db, kit, EventBus())
    yield RegistrySide(store)
    await store.tasks.aclose()
    db.close()
