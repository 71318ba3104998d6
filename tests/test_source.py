"""The source as a whole: formatted, without faults that ruff or mypy find, its pages linked."""

from __future__ import annotations

import re
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


def _links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    return [link for link in found if "://" not in link]


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    assert len(pages) > 10
    dead = [
        f"{p.name}: {link}" for p in pages for link in _links(p) if not (p.parent / link).exists()
    ]
    assert dead == []


def test_every_page_of_the_documentation_is_named_in_the_readme() -> None:
    named = {(ROOT / link).resolve() for link in _links(ROOT / "README.md")}
    assert [page.name for page in ROOT.glob("docs/*.md") if page.resolve() not in named] == []
