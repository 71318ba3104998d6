"""Symbolic links of one layer, followed as Docker follows them when it unpacks the layer.

Names only: nothing of the host is looked at. An entry ``a/x`` of a layer in which ``a`` leads to
``b`` is ``b/x``, also if there is no ``b`` yet. What leads above the root is refused.
"""

from __future__ import annotations

from collections.abc import Container

from hyperstack.errors import InvalidParameter

MAX_HOPS = 40
"""Links on one path, as in the kernel."""


class Links:
    """The links that a layer has so far. *folders* are its directories, kept by its owner."""

    def __init__(self, folders: Container[bytes]) -> None:
        self._folders = folders
        self._targets: dict[bytes, bytes] = {}
        self._plain: set[bytes] = set()
        """Directories that no link leads through."""

    def add(self, path: bytes, target: bytes) -> None:
        """Note a link."""
        if path in self._folders:
            self._plain.clear()  # it takes a directory's place: what was below is so no more
        self._targets[path] = target

    def discard(self, path: bytes) -> None:
        """Forget a link: something else took its place."""
        self._targets.pop(path, None)

    def followed(self, path: bytes) -> bytes:
        """Return where a file of this path lies: links of its directories are followed.

        Raises InvalidParameter for one that leads out of the layer or in circles.
        """
        folder, slash, base = path.rpartition(b"/")
        if not slash or not self._targets or folder in self._plain:
            return path
        real = self._folder(folder)
        if real == folder:
            self._plain.add(folder)
            return path
        return real + b"/" + base if real else base

    def _folder(self, path: bytes) -> bytes:
        todo = path.split(b"/")[::-1]
        done: list[bytes] = []
        hops = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                if not done:
                    raise InvalidParameter(f"statat {_shown(path)}: path escapes from parent")
                done.pop()
            elif part not in (b"", b"."):
                target = self._targets.get(b"/".join((*done, part)))
                if target is None:
                    done.append(part)
                    continue
                hops += 1
                if hops > MAX_HOPS:
                    raise InvalidParameter(
                        f"statat {_shown(path)}: too many levels of symbolic links"
                    )
                if target.startswith(b"/"):
                    done.clear()
                todo += target.split(b"/")[::-1]
        return b"/".join(done)


def _shown(path: bytes) -> str:
    return path[:200].decode(errors="replace")
