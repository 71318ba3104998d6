"""The tree's one-way street: nothing imports what lies above it."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "hyperstack"
SHARED = {"errors", "config", "globs", "ids", "events", "log", "model", "until", "__version__"}
HEIGHT = {
    "cli": 4,
    "api": 3,
    "engine": 2,
    "pod": 2,
    "image": 1,
    "build": 1,
    "network": 1,
    "volume": 1,
    "guest": 1,
    "vmm": 1,
    "store": 0,
    "platform": 0,
}


def imports(path: Path) -> set[str]:
    """Return the packages of hyperstack that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "hyperstack":
                names = [f"hyperstack.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("hyperstack.")}
    return found


def test_every_package_has_its_height() -> None:
    packages = {p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()}
    assert packages <= set(HEIGHT)


def test_nothing_imports_what_lies_above_it() -> None:
    upward = []
    for path in SOURCE.rglob("*.py"):
        package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if package not in HEIGHT:
            assert not imports(path) - SHARED, f"{path} is shared by all and imports one of them"
            continue
        for name in imports(path) - SHARED:
            if HEIGHT[name] > HEIGHT[package]:
                upward.append(f"{path.relative_to(SOURCE)} -> {name}")
    assert not upward


def test_the_engine_knows_no_http() -> None:
    for path in (SOURCE / "engine").rglob("*.py"):
        assert "aiohttp" not in path.read_text(), path
