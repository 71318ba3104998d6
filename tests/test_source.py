"""The source as a whole: formatted, without faults that ruff or mypy find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def _run(*words: str) -> None:
    done = subprocess.run(
        [BIN / words[0], *words[1:]],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"


def test_the_source_is_typed() -> None:
    _run("mypy")


def test_the_source_has_no_fault_that_ruff_finds() -> None:
    _run("ruff", "check", "-q", ".")


def test_the_source_is_formatted() -> None:
    _run("ruff", "format", "--check", "-q", "--output-format=concise", ".")
