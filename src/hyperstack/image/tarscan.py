"""A layer's tar while it flows: checked, bounded, and made unambiguous for mkfs.erofs.

The scanner gets the tar in pieces of any size and returns what mkfs.erofs is to read. Nearly all of
it passes as it is, by reference; what is changed:

* the root and parents without an entry of their own get one (root's, mode 0755, as Docker makes
  them): mkfs.erofs would take owner and mode of whatever directory is above;
* ``trusted.overlay.*`` attributes are renamed, so that a layer cannot speak to the overlay;
* sparse files are written out with their holes;
* an entry behind a symbolic link of the same layer goes where the link leads, as in a root that is
  unpacked (links.py);
* aufs's own files (``.wh..wh.*`` but the opaque marker) are left out, as Docker does;
* whatever follows the end of the archive.

Whiteouts themselves are translated by ``mkfs.erofs --aufs`` (OCI image specification 1.1, "Image
Layer Filesystem Changeset").
"""

from __future__ import annotations

import posixpath

from hyperstack.errors import InvalidParameter
from hyperstack.image import sparse, tarfmt
from hyperstack.image.links import Links
from hyperstack.image.sparse import FrontMap
from hyperstack.image.tarfmt import BLOCK, Header

MAX_ENTRIES = 2_000_000
MAX_KEPT = 256 << 20
"""Bytes of memory for the names of a layer's folders and links, which are remembered to its end."""
_PER_NAME = 100
"""Bytes that a name takes in memory beside its own."""
WHITEOUT = b".wh."
META = b".wh..wh."
OPAQUE = b".wh..wh..opq"
_OVERLAY = b"SCHILY.xattr.trusted.overlay."
_INERT = b"SCHILY.xattr.trusted.overl_y."
_REPLACED = frozenset({b"path", b"linkpath", b"size"})
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
        self._kept = 0
        self._links = Links(self._folders)
        self._holes: list[tuple[bool, int]] = []
        """What is left of a sparse file: whether it is data, and bytes; the next one at the end."""
        self._front: FrontMap | None = None
        self._real = 0
        """Bytes of a sparse file with its holes."""
        self._inflated = 0
        """Bytes of holes so far."""
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
                self._pass(view[position : position + step], out)
            else:
                step = min(self._wanted - len(self._held), length - position)
                self._held += view[position : position + step]
                if len(self._held) == self._wanted:
                    self._decide(out)
            position += step
        return out

    def _pass(self, data: memoryview, out: list[Piece]) -> None:
        """Let bytes of an entry go, and the holes of a sparse one that lie between them."""
        self._skip -= len(data)
        if not self._holes:
            if not self._drop:
                out.append(data)
            return
        while data and self._holes:
            is_data, size = self._holes.pop()
            if is_data and size > len(data):
                self._holes.append((True, size - len(data)))
                size = len(data)
            if is_data:
                out.append(data[:size])
                data = data[size:]
            else:
                self._hole(size, out)
        if not self._skip:
            self._end_sparse(out)

    def _hole(self, size: int, out: list[Piece]) -> None:
        self._inflated += size
        if self._inflated > sparse.MAX_SIZE:
            raise InvalidParameter(f"the layer's holes are over {sparse.MAX_SIZE >> 30} GiB")
        out.extend(sparse.zeros(size))

    def _end_sparse(self, out: list[Piece]) -> None:
        """The data of a sparse file is over: what is left are holes, and the padding."""
        while self._holes:
            self._hole(self._holes.pop()[1], out)
        out.append(bytes(tarfmt.padded(self._real) - self._real))

    def finish(self) -> list[Piece]:
        """Return the end of the archive. Raises InvalidParameter if the tar was cut off."""
        if not self._ended and (self._skip or (self._held and not self._zeros)):
            raise InvalidParameter("unexpected EOF")
        out, self._extra = self._extra, []
        return [*out, tarfmt.ZERO * 2]

    def _decide(self, out: list[Piece]) -> None:
        """``_held`` has reached ``_wanted``: a block, or an extension's data, is whole."""
        held, start = self._held, self._header_at
        block = bytes(held[start : start + BLOCK])
        if self._front is not None:
            self._mapped(self._front, out)
        elif len(held) > start + BLOCK and block[156] in tarfmt.EXTENSIONS:
            self._extend(block, bytes(held[start + BLOCK :]))
            self._header_at = len(held)
            self._wanted = len(held) + BLOCK
        elif block == tarfmt.ZERO:
            self._zero()
        elif self._zeros:
            raise InvalidParameter("archive/tar: invalid tar header")
        else:
            self._header(block, out)

    def _header(self, block: bytes, out: list[Piece]) -> None:
        held, start = self._held, self._header_at
        header = tarfmt.parse(block)
        if header.type in tarfmt.EXTENSIONS:
            if not 0 < header.size <= tarfmt.MAX_EXTENSION or len(held) > 4 * tarfmt.MAX_EXTENSION:
                raise InvalidParameter("archive/tar: header field too long")
            self._wanted = start + BLOCK + tarfmt.padded(header.size)
            return
        if header.type == tarfmt.SPARSE:
            first = len(held) == start + BLOCK
            if sparse.has_more(bytes(held[-BLOCK:]), header=first):
                if len(held) > start + tarfmt.MAX_EXTENSION:
                    raise InvalidParameter("archive/tar: header field too long")
                self._wanted += BLOCK
                return
        self._entry(header, out)

    def _mapped(self, front: FrontMap, out: list[Piece]) -> None:
        """Another block of a map that is in front of a sparse file's data is whole."""
        header = tarfmt.parse(bytes(self._held[self._header_at : self._header_at + BLOCK]))
        self._resolve(header, self._pax)
        header.size -= len(self._held) - self._header_at - BLOCK
        if header.size < 0:
            raise InvalidParameter("archive/tar: invalid tar header")
        found = front.feed(bytes(self._held[-BLOCK:]))
        if found is None:
            self._wanted += BLOCK
            return
        self._front = None
        self._place(header, found, out)

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
        """The last header of an entry is there: see what it is."""
        self.entries += 1
        if self.entries > self._max_entries:
            raise InvalidParameter(f"layer has more than {self._max_entries} entries")
        if self._pax or self._long:
            self._resolve(header, self._pax)
        if header.type not in tarfmt.KNOWN:
            raise InvalidParameter(f"unhandled tar header type {header.type}")
        found: tuple[list[sparse.Part], int] | None = None
        if header.type == tarfmt.SPARSE:
            blocks = self._held[self._header_at :]
            rest = [bytes(blocks[n : n + BLOCK]) for n in range(BLOCK, len(blocks), BLOCK)]
            found = sparse.old_map(bytes(blocks[:BLOCK]), rest)
        elif header.type == tarfmt.FILE and sparse.is_sparse(self._pax):
            found = sparse.pax_map(self._pax)
            if found is None:
                self._front = FrontMap(self._pax)
                self._wanted += BLOCK
                return
        self._place(header, found, out)

    def _place(
        self, header: Header, holes: tuple[list[sparse.Part], int] | None, out: list[Piece]
    ) -> None:
        """Check an entry, make its parents, let its headers go; *holes* if it is sparse."""
        given = self._checked(header)
        path = self._links.followed(given)
        base = path.rpartition(b"/")[2]
        self._drop = META in path and base != OPAQUE and _is_meta(path)
        if not self._drop:
            if base.startswith(WHITEOUT) and base[4:] in (b"", b".", b".."):
                raise InvalidParameter(f"invalid whiteout {_shown(path)}")
            self._parents(path, out)
            self._note(path, header)
            out.append(self._headers(header, given, path, holes))
            self.content_size += holes[1] if holes else header.size
            if header.type == tarfmt.SYMLINK:
                self.content_size += len(header.link)
        self._skip = tarfmt.padded(header.size)
        if holes is not None:
            self._begin_sparse(holes, header.size, out)
        self._held = bytearray()
        self._header_at, self._wanted = 0, BLOCK
        self._pax, self._long = {}, {}

    def _note(self, path: bytes, header: Header) -> None:
        if header.type == tarfmt.DIRECTORY:
            self._links.discard(path)
            self._add_folder(path)
            return
        if header.type == tarfmt.SYMLINK:
            self._keep(len(path) + len(header.link))
            self._links.add(path, header.link)
        else:
            self._links.discard(path)
        self._folders.discard(path)

    def _headers(
        self,
        header: Header,
        given: bytes,
        path: bytes,
        holes: tuple[list[sparse.Part], int] | None,
    ) -> bytes:
        """Return the entry's headers for mkfs.erofs: as they came, if they may stay so."""
        link = header.link
        if header.type == tarfmt.HARD_LINK:
            link = self._links.followed(_clean(link))
        moved = path != given or (header.type == tarfmt.HARD_LINK and link != _clean(header.link))
        if holes is None and not moved:
            return self._released(bool(self._pax))
        kept = {
            key.replace(_OVERLAY, _INERT): value
            for key, value in self._pax.items()
            if key not in _REPLACED and not key.startswith(b"GNU.sparse.")
        }
        return tarfmt.rewritten(
            bytes(self._held[self._header_at : self._header_at + BLOCK]),
            kept,
            name=path + b"/" if header.type == tarfmt.DIRECTORY else path,
            link=link if header.type in (tarfmt.HARD_LINK, tarfmt.SYMLINK) else b"",
            size=holes[1] if holes else header.size,
            kind=tarfmt.FILE if holes else header.type,
        )

    def _begin_sparse(
        self, holes: tuple[list[sparse.Part], int], size: int, out: list[Piece]
    ) -> None:
        parts, self._real = holes
        if sum(length for _, length in parts) != size:
            raise InvalidParameter("archive/tar: invalid tar header")
        if self._drop:
            return
        self._holes = sparse.spans(parts, self._real)[::-1]
        if not size:
            self._end_sparse(out)

    def _resolve(self, header: Header, pax: dict[bytes, bytes]) -> None:
        """Let long names and pax records override the header's fields."""
        header.name = self._long.get(tarfmt.LONG_NAME, header.name)
        header.link = self._long.get(tarfmt.LONG_LINK, header.link)
        header.name = pax.get(b"path") or header.name
        header.link = pax.get(b"linkpath") or header.link
        if b"size" in pax and header.type in (tarfmt.FILE, tarfmt.CONTIGUOUS):
            header.size = tarfmt.pax_number(pax[b"size"])
        if sparse.is_sparse(pax):
            header.name = sparse.real_name(pax, header.name)

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
            raise InvalidParameter(f'invalid entry name "{_shown(name)}"')
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
            missing.append(parent)
            parent = parent.rpartition(b"/")[0]
        for folder in reversed(missing):
            self._add_folder(folder)
            out.append(tarfmt.make(folder + b"/", kind=tarfmt.DIRECTORY, mode=0o755))

    def _add_folder(self, path: bytes) -> None:
        if path not in self._folders:
            self._keep(len(path))
            self._folders.add(path)

    def _keep(self, size: int) -> None:
        self._kept += size + _PER_NAME
        if self._kept > MAX_KEPT:
            raise InvalidParameter(
                f"the names of the layer's folders and links are over {MAX_KEPT >> 20} MiB"
            )


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
