"""Kernel modules for a guest: the few that are needed, what they need, in the order of loading.

Packages of kernels come without ``modules.dep`` (depmod makes it where they are installed), so the
needs are read from the modules themselves: ``depends=`` and ``softdep=pre:`` of ``.modinfo``.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable
from pathlib import Path

import zstandard

from hyperstack.errors import InternalError
from hyperstack.guest.kitelf import module_info

MAX_MODULE = 64 << 20
SUFFIXES = (".ko", ".ko.xz", ".ko.zst")


class ModuleTree:
    """The modules of one kernel, below *folder* (``lib/modules/RELEASE``)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.rglob("*.ko*")):
            for suffix in SUFFIXES:
                if path.name.endswith(suffix):
                    self._paths[_plain(path.name.removesuffix(suffix))] = path
        self._builtin = set(self._read_builtin())
        self._data: dict[str, bytes] = {}

    def _read_builtin(self) -> Iterable[str]:
        try:
            lines = (self.folder / "modules.builtin").read_text().splitlines()
        except OSError as error:
            raise InternalError(f"{self.folder.name} has no modules.builtin") from error
        return (_plain(Path(line).name.removesuffix(".ko")) for line in lines)

    def data(self, name: str) -> bytes:
        """Return a module, uncompressed. Raises InternalError if there is none."""
        name = _plain(name)
        if name not in self._data:
            try:
                self._data[name] = _decompressed(self._paths[name])
            except KeyError:
                raise InternalError(f"{self.folder.name} has no module {name}") from None
            except (OSError, lzma.LZMAError, zstandard.ZstdError) as error:
                raise InternalError(f"module {name} can't be read: {error}") from error
        return self._data[name]

    def order(self, wanted: Iterable[str], loaded: Iterable[str] = ()) -> tuple[str, ...]:
        """Return *wanted* and what they need in the order of loading, without built-in ones.

        *loaded* are those that are there already. Raises InternalError if one exists nowhere.
        """
        done: dict[str, None] = dict.fromkeys(map(_plain, loaded))
        before = len(done)
        for name in wanted:
            self._visit(_plain(name), done, (), needed=True)
        return tuple(done)[before:]

    def _visit(
        self, name: str, done: dict[str, None], path: tuple[str, ...], *, needed: bool
    ) -> None:
        if name in done or name in path or (name in self._builtin and name not in self._paths):
            return
        if name not in self._paths and not needed:
            # A softdep may name an algorithm or a module that this kernel does not have.
            return
        info = module_info(self.data(name))
        for soft in _soft(info.get("softdep", ())):
            self._visit(soft, done, (*path, name), needed=False)
        for hard in ",".join(info.get("depends", ())).split(","):
            if hard:
                self._visit(_plain(hard), done, (*path, name), needed=True)
        done[name] = None


def _soft(fields: Iterable[str]) -> Iterable[str]:
    for text in fields:
        words = text.replace("pre:", " pre: ").replace("post:", " post: ").split()
        wanted = False
        for word in words:
            if word in ("pre:", "post:"):
                wanted = word == "pre:"
            elif wanted:
                yield _plain(word)


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name.endswith(".xz"):
        data = lzma.decompress(data)
    elif path.name.endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_MODULE)
    if len(data) > MAX_MODULE:
        raise OSError(f"{path.name} is too large")
    return data
