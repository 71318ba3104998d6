"""Puts a program of the distribution into a jail's root with the libraries that it needs.

What ldd(1) would say is worked out from the ELF files, because the host's loader is older than the
program and must not run it anyway. Libraries are looked for in the packages on which the program's
package depends, and theirs.
"""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path

from hyperstack.errors import InternalError
from hyperstack.guest.kitapt import Suite
from hyperstack.guest.kitelf import linkage

LIBRARIES = "lib/x86_64-linux-gnu"
"""Where a loader without a cache looks first."""


async def install(
    suite: Suite,
    package: str,
    program: str,
    root: Path,
    target: str,
    also: tuple[tuple[str, str], ...] = (),
) -> None:
    """Put file *program* of *package* at *target* in *root*, with all libraries and the loader.

    *also* names further libraries and their packages (what the program loads by itself). Raises
    InternalError if something is nowhere.
    """
    path = _find(await suite.use(package), program)
    if path is None:
        raise InternalError(f"package {package} has no {program}")
    names = await suite.closure(package, lambda name: "lib" in name)
    names = (*names, *(extra for _, extra in also))
    trees = dict(zip(names, await suite.unpack(*names), strict=True))
    await _closure(_Finder(suite, trees), path, root, tuple(name for name, _ in also))
    _copy(path, root / target.lstrip("/"), 0o755)


async def _closure(finder: _Finder, program: Path, root: Path, also: tuple[str, ...]) -> None:
    first = linkage(program.read_bytes())
    if first.interpreter is None:
        raise InternalError(f"{program.name} names no loader")
    loader = Path(first.interpreter)
    _copy(await finder.find(loader.name), root / loader.relative_to("/"), 0o755)
    done = {loader.name}
    todo = deque((*first.needed, *also))
    while todo:
        name = todo.popleft()
        if name in done:
            continue
        done.add(name)
        library = await finder.find(name)
        _copy(library, root / LIBRARIES / name, 0o644)
        todo.extend(linkage(library.read_bytes()).needed)


class _Finder:
    """Looks for libraries in unpacked packages, nearest first."""

    def __init__(self, suite: Suite, trees: dict[str, Path]) -> None:
        self._suite = suite
        self._trees = trees

    async def find(self, name: str) -> Path:
        """Return a library's file. Raises InternalError."""
        for package, tree in self._trees.items():
            if (path := _find(tree, name)) is not None:
                await self._suite.use(package)
                return path
        raise InternalError(f"library {name} is in no package of {self._suite.name}")


def _find(tree: Path, name: str) -> Path | None:
    """Find a file by name below a package's tree, through its links."""
    for path in sorted(tree.rglob(name)):
        real = path.resolve()
        if real.is_file() and real.is_relative_to(tree.resolve()):
            return real
    return None


def _copy(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    shutil.copyfile(source, target)
    target.chmod(mode)
