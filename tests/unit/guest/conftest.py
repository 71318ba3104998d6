"""Fixtures: the agent's test program, one per test, which must end without a complaint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.guest.agent import RunningAgent, build


@pytest.fixture(scope="session")
def agent_binary() -> Path:
    return build("agent-test-asan")


@pytest.fixture
async def agent(agent_binary: Path, tmp_path: Path) -> AsyncIterator[RunningAgent]:
    running = RunningAgent.start(agent_binary, tmp_path)
    try:
        yield running
        await running.finish()
    finally:
        running.end()
