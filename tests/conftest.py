"""Fixtures: one daemon per test worker, with a busybox image, and a leak check at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.framework.host import Host, running_host
from tests.framework.images import busybox_tar
from tests.framework.leaks import Snapshot
from tests.framework.turns import turn

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("hyper", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hyper")


def _worker() -> int:
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return int(name.removeprefix("gw"))


@pytest.fixture(scope="session")
def worker_number() -> int:
    """Number of this test worker: what keeps uids of daemons apart."""
    return _worker()


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait for a turn where several workers share the machine."""
    folder = os.environ.get("HYPER_CHECK_RUN")
    if folder is None:
        yield
        return
    with turn(Path(folder), alone=request.node.get_closest_marker("alone") is not None):
        yield


@pytest.fixture(scope="session")
def shared_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A daemon that all tests of this worker share."""
    root: Path = tmp_path_factory.mktemp("host")
    before = Snapshot.take(_worker(), root)
    with running_host(root, _worker()) as host:
        host.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())
        yield host
    before.compare(Snapshot.take(_worker(), root, host.exec_root))


@pytest.fixture
def host(shared_host: Host) -> Iterator[Host]:
    """The shared daemon, without containers before and after the test."""
    yield shared_host
    if shared_host.process is None or not shared_host.ping():
        shared_host.stop()
        shared_host.start()
    shared_host.remove_everything()
