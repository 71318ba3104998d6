"""The wheel and the source archive: built as pip builds them, installed away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.framework.host import KIT_DIR

ROOT = Path(__file__).parents[2]
PROGRAMS = ("agent", "jail", "ports")
pytestmark = pytest.mark.xdist_group("wheel")  # built once, by one worker


def _run(*words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (source,) = folder.glob("*.tar.gz")
    _run("tar", "-xf", source, cwd=folder)
    (tree,) = (path for path in folder.iterdir() if path.is_dir())
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=tree)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="session")
def installed(archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel in it, and our environment's dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    python = folder / "bin" / "python"
    _run(*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", archives[1])
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    # By path and not by .pth file: those of ours would bring the checkout back.
    (site / "more.pth").write_text(f"{ours}\n")
    return folder / "bin"


def test_the_source_archive_has_what_a_newcomer_is_told_to_run(
    archives: tuple[Path, Path],
) -> None:
    with tarfile.open(archives[0]) as tar:
        members = {m.name.partition("/")[2]: m for m in tar.getmembers()}
    for name in ("quickstart", "check", ".ci/run"):
        assert members[name].mode & 0o111, name
    wanted = {"README.md", "CONTRIBUTING.md", "SPECIFICATION.md", "LICENSE", "tools/setup.sh"}
    wanted |= {"bench/__main__.py", "docs/kit.md", "native/agent/Makefile", "tests/conftest.py"}
    assert wanted <= set(members)
    assert not [name for name in members if name.startswith(("native/build", ".venv", ".cache"))]


def test_the_wheel_carries_the_programs_and_is_of_one_platform(
    archives: tuple[Path, Path],
) -> None:
    assert archives[1].name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(archives[1]) as wheel:
        for program in PROGRAMS:
            info = wheel.getinfo(f"hyperstack/_native/{program}")
            assert info.external_attr >> 16 & 0o111, program
        assert wheel.getinfo("hyperstack/py.typed")


def test_the_installed_wheel_finds_its_own_programs(installed: Path, tmp_path: Path) -> None:
    script = (
        "import hyperstack; from hyperstack.guest.kit import native_binary; "
        f"print(*(native_binary(name) for name in {PROGRAMS}), sep='\\n')"
    )
    for line in _run(installed / "python", "-c", script, cwd=tmp_path).splitlines():
        assert Path(line).is_relative_to(installed.parent), line
        assert os.access(line, os.X_OK)


def test_the_installed_commands_run(installed: Path, tmp_path: Path) -> None:
    options = ("--data-root", tmp_path / "data", "--kit-dir", KIT_DIR)
    _run(installed / "hyperd", "--validate", *options, cwd=tmp_path)
    assert _run(installed / "hyper", "version", cwd=tmp_path).startswith("hyper ")
