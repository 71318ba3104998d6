"""A layer's tar while it flows: checked, bounded, and made unambiguous for mkfs.erofs.

The scanner gets the tar in pieces of any size and returns what mkfs.erofs is to read. Nearly all of
it passes as it is, by reference; what is changed:

* the root and parents without an entry of their own get one (root's, mode 0755, as Docker makes
  them): mkfs.erofs would take owner and mode of whatever directory is above;
* ``trusted.overlay.*`` attributes are renamed, so that a layer cannot speak to the overlay;
* aufs's own files (``.wh..wh.*`` but the opaque marker) are left out, as Docker does;
* whatever follows the end of the archive.

Whiteouts themselves are translated by ``mkfs.erofs --aufs`` (OCI image specification 1.1, "Image
Layer Filesystem Changeset").
"""

from __future__ import annotations

import posixpath

from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt
from hyperstack.image.tarfmt import BLOCK, Header

MAX_ENTRIES = 2_000_000
WHITEOUT = b".wh."
META = b".wh..wh."
OPAQUE = b".wh..wh..opq"
_OVERLAY = b"SCHILY.xattr.trusted.overlay."
_INERT = b"SCHILY.xattr.trusted.overl_y."
Piece = bytes | memoryview


class TarScanner:
    """A push parser of one tar. ``feed`` pieces, then ``finish``."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self.entries = 0
        self.content_size = 0
        """Bytes of regular files and of links' targets: what Docker calls the layer's size."""
        self._max_entries = max_entries
        self._held = bytearray()
        """An entry's headers until its last one is whole: extensions, then the header."""
        self._wanted = BLOCK
        """Length of ``_held`` at which there is something to decide."""
        self._header_at = 0
        self._skip = 0
        self._drop = False
        self._zeros = 0
        self._ended = False
        self._pax: dict[bytes, bytes] = {}
        self._long: dict[int, bytes] = {}
        self._folders = {b""}
        self._links: set[bytes] = set()
        self._extra: list[Piece] = [tarfmt.make(b"./", kind=tarfmt.DIRECTORY, mode=0o755)]

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes of the tar and return what goes to mkfs.erofs.

        Raises InvalidParameter, one sentence, for anything that is no tar or over a bound.
        """
        out, self._extra = self._extra, []
        view = memoryview(data)
        position, length = 0, len(data)
        while position < length and not self._ended:
            if self._skip:
                step = min(self._skip, length - position)
                if not self._drop:
                    out.append(view[position : position + step])
                self._skip -= step
            else:
                step = min(self._wanted - len(self._held), length - position)
                self._held += view[position : position + step]
                if len(self._held) == self._wanted:
                    self._decide(out)
            position += step
        return out

    def finish(self) -> list[Piece]:
        """Return the end of the archive. Raises InvalidParameter if the tar was cut off."""
        if not self._ended and (self._skip or (self._held and not self._zeros)):
            raise InvalidParameter("unexpected EOF")
        out, self._extra = self._extra, []
        return [*out, tarfmt.ZERO * 2]

    def _decide(self, out: list[Piece]) -> None:
        """``_held`` has reached ``_wanted``: a header block, or an extension's data, is whole."""
        held, start = self._held, self._header_at
        if len(held) > start + BLOCK:
            self._extend(bytes(held[start : start + BLOCK]), bytes(held[start + BLOCK :]))
            self._header_at = len(held)
            self._wanted = len(held) + BLOCK
            return
        block = bytes(held[start:])
        if block == tarfmt.ZERO:
            self._zero()
            return
        if self._zeros:
            raise InvalidParameter("archive/tar: invalid tar header")
        header = tarfmt.parse(block)
        if header.type in tarfmt.EXTENSIONS:
            if not 0 < header.size <= tarfmt.MAX_EXTENSION or len(held) > 4 * tarfmt.MAX_EXTENSION:
                raise InvalidParameter("archive/tar: header field too long")
            self._wanted = start + BLOCK + tarfmt.padded(header.size)
            return
        self._entry(header, out)

    def _zero(self) -> None:
        if self._header_at:
            raise InvalidParameter("unexpected EOF")
        self._zeros += 1
        self._ended = self._zeros == 2
        self._held.clear()

    def _extend(self, block: bytes, data: bytes) -> None:
        header = tarfmt.parse(block)
        data = data[: header.size]
        if header.type == tarfmt.PAX:
            self._pax.update(tarfmt.parse_pax(data))
        elif header.type == tarfmt.PAX_GLOBAL:
            del self._held[self._header_at :]  # ignored by Docker, so mkfs.erofs must not see it
        else:
            self._long[header.type] = data.split(b"\0", 1)[0]

    def _entry(self, header: Header, out: list[Piece]) -> None:
        """The last header of an entry is there: check it, make its parents, let it go."""
        self.entries += 1
        if self.entries > self._max_entries:
            raise InvalidParameter(f"layer has more than {self._max_entries} entries")
        pax = self._pax
        if pax or self._long:
            self._resolve(header, pax)
        if header.type not in tarfmt.KNOWN:
            raise InvalidParameter(f"unhandled tar header type {header.type}")
        path = self._checked(header)
        base = path.rpartition(b"/")[2]
        self._drop = META in path and base != OPAQUE and _is_meta(path)
        if not self._drop:
            if base.startswith(WHITEOUT) and base[4:] in (b"", b".", b".."):
                raise InvalidParameter(f"invalid whiteout {_shown(path)}")
            self._parents(path, out)
            if header.type == tarfmt.DIRECTORY:
                self._folders.add(path)
                self._links.discard(path)
            else:
                self._folders.discard(path)
                if header.type == tarfmt.SYMLINK:
                    self._links.add(path)
                    self.content_size += len(header.link)
            out.append(self._released(bool(pax)))
            self.content_size += header.size
        self._skip = tarfmt.padded(header.size)
        self._held = bytearray()
        self._header_at, self._wanted = 0, BLOCK
        self._pax, self._long = {}, {}

    def _resolve(self, header: Header, pax: dict[bytes, bytes]) -> None:
        """Let long names and pax records override the header's fields."""
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            raise InvalidParameter("sparse files in a layer are not supported")
        header.name = self._long.get(tarfmt.LONG_NAME, header.name)
        header.link = self._long.get(tarfmt.LONG_LINK, header.link)
        header.name = pax.get(b"path") or header.name
        header.link = pax.get(b"linkpath") or header.link
        if b"size" in pax and header.type in (tarfmt.FILE, tarfmt.CONTIGUOUS):
            header.size = tarfmt.pax_number(pax[b"size"])

    def _released(self, extended: bool) -> bytes:
        held = bytes(self._held)
        if extended and _OVERLAY in held:
            held = held.replace(_OVERLAY, _INERT)
        return held

    def _checked(self, header: Header) -> bytes:
        """Return the entry's path, clean and relative. Raises InvalidParameter."""
        name = header.name
        if len(name) > tarfmt.MAX_PATH or len(header.link) >= tarfmt.MAX_PATH:
            raise InvalidParameter(f"name too long in layer: {_shown(name)}")
        if header.size > tarfmt.MAX_SIZE:
            raise InvalidParameter("archive/tar: invalid tar header")
        path = _clean(name)
        if path == b".." or path.startswith(b"../"):
            raise InvalidParameter(f'"{_shown(name)}" is outside of the layer')
        if not path and header.type != tarfmt.DIRECTORY:
            raise InvalidParameter("the root of a layer must be a directory")
        parts = path.split(b"/")
        if len(parts) > tarfmt.MAX_DEPTH or max(map(len, parts)) > tarfmt.MAX_COMPONENT:
            raise InvalidParameter(f"name too long in layer: {_shown(name)}")
        return path

    def _parents(self, path: bytes, out: list[Piece]) -> None:
        """Add entries for directories above *path* that have none yet."""
        parent = path.rpartition(b"/")[0]
        missing = []
        while parent not in self._folders:
            if parent in self._links:
                raise InvalidParameter(f"{_shown(path)} lies behind a symbolic link")
            missing.append(parent)
            parent = parent.rpartition(b"/")[0]
        for folder in reversed(missing):
            self._folders.add(folder)
            out.append(tarfmt.make(folder + b"/", kind=tarfmt.DIRECTORY, mode=0o755))


def _clean(name: bytes) -> bytes:
    """Return *name* relative to the root, without ``.``, empty parts and inner ``..``."""
    path = name.strip(b"/")
    if b"//" in path or b"/." in path or path.startswith(b"."):
        path = posixpath.normpath(path).lstrip(b"/")
        return b"" if path == b"." else path
    return path


def _is_meta(path: bytes) -> bool:
    return any(part.startswith(META) for part in path.split(b"/"))


def _shown(name: bytes) -> str:
    return name[:100].decode(errors="replace")
