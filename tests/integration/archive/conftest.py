from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.archive.tool import Tool

AGENT = Path(__file__).parents[3] / "native" / "agent"


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The agent's archive code as a program, with ASan and UBSan."""
    if os.geteuid() != 0:
        pytest.skip("owners, devices and overlay need root")
    build = tmp_path_factory.mktemp("build")
    target = build / "archive_tool-asan"
    subprocess.run(
        ["make", "-s", "-C", AGENT, "-f", "archive.mk", f"BUILD={build}", target],
        check=True,
        timeout=120,
    )
    return Tool(target)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose content may be anything; removed afterwards, however deep it is."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)
