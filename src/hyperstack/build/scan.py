"""Reads a spooled tar into a tree, with a checksum of each file as the classic builder makes them.

The checksum is Docker's tarsum, version 1 (moby, ``pkg/tarsum/tarsum_spec.md``): sha256 over the
header's fields without the time, then the content. Equal contexts thus give the history that
Docker gives them, and its caches fit. Formats as in ``image/tarfmt.py``; everything is bounded.
"""

from __future__ import annotations

import hashlib
import posixpath
from pathlib import Path
from typing import BinaryIO

from hyperstack.build.shell import go_quote
from hyperstack.build.tree import Node, Tree
from hyperstack.errors import InvalidParameter
from hyperstack.image import tarfmt
from hyperstack.image.content import mapped
from hyperstack.image.tarfmt import BLOCK, Header

MAX_ENTRIES = 500_000
MAX_NAMES = 128 << 20
"""Bytes of all names and extended attributes."""
_READ = 1 << 20
_XATTR = b"SCHILY.xattr."
_MODE = 0o7777


def read(spool: Path, *, below: str = "") -> Tree:
    """Return the tree of a plain tar; its names count from the directory *below*. Blocking.

    Raises InvalidParameter for what is no tar, or over a bound.
    """
    tree = Tree(spool)
    with spool.open("rb") as file:
        _Reader(file, tree, below).run()
    return tree


class _Reader:
    """One pass over a tar."""

    def __init__(self, file: BinaryIO, tree: Tree, below: str) -> None:
        self._file = file
        self._tree = tree
        self._below = below
        self._entries = 0
        self._names = 0

    def run(self) -> None:
        pax: dict[bytes, bytes] = {}
        long: dict[int, bytes] = {}
        while (block := self._block()) is not None:
            header = tarfmt.parse(block)
            if header.type in tarfmt.EXTENSIONS:
                self._extend(header, pax, long)
                continue
            self._count(pax, header)
            _resolve(header, pax, long)
            self._entry(header, block, pax)
            pax, long = {}, {}

    def _block(self) -> bytes | None:
        """Return the next header, None at the end. An archive may end without its zeros."""
        block = self._file.read(BLOCK)
        if not block or block == tarfmt.ZERO:
            return None
        if len(block) < BLOCK:
            raise InvalidParameter("unexpected EOF")
        return block

    def _extend(self, header: Header, pax: dict[bytes, bytes], long: dict[int, bytes]) -> None:
        if not 0 < header.size <= tarfmt.MAX_EXTENSION:
            raise InvalidParameter("archive/tar: header field too long")
        data = self._file.read(tarfmt.padded(header.size))[: header.size]
        if len(data) < header.size:
            raise InvalidParameter("unexpected EOF")
        if header.type == tarfmt.PAX:
            pax.update(tarfmt.parse_pax(data))
        elif header.type != tarfmt.PAX_GLOBAL:
            long[header.type] = data.split(b"\0", 1)[0]

    def _count(self, pax: dict[bytes, bytes], header: Header) -> None:
        self._entries += 1
        self._names += sum(len(k) + len(v) for k, v in pax.items())
        self._names += len(header.name) + len(header.link)
        if self._entries > MAX_ENTRIES or self._names > MAX_NAMES:
            raise InvalidParameter(
                f"archive has more than {MAX_ENTRIES} entries, or too many names"
            )

    def _entry(self, header: Header, block: bytes, pax: dict[bytes, bytes]) -> None:
        if header.type not in tarfmt.KNOWN:
            raise InvalidParameter(f"unhandled tar header type {header.type}")
        path = self._path(header.name)
        xattrs = {k[len(_XATTR) :]: v for k, v in pax.items() if k.startswith(_XATTR)}
        name = posixpath.join(self._below.encode(errors="surrogateescape"), header.name)
        digest = hashlib.sha256(_fields(name, header, block, pax, xattrs))
        offset = self._file.tell()
        self._content(header.size, digest)
        if header.type == tarfmt.HARD_LINK:
            node = self._linked(header)
            # The last of a file's headers says how it is, as where tars are unpacked.
            node.mode = tarfmt.number(block[100:108]) & _MODE
            node.mtime = _mtime(block[136:148], pax)
        else:
            node = Node(
                kind=tarfmt.FILE if header.type == tarfmt.CONTIGUOUS else header.type,
                mode=tarfmt.number(block[100:108]) & _MODE,
                uid=_number(block[108:116], pax, b"uid"),
                gid=_number(block[116:124], pax, b"gid"),
                mtime=_mtime(block[136:148], pax),
                size=header.size,
                offset=offset,
                link=_text(header.link),
                device=_device(header, block),
                xattrs=xattrs,
                children={} if header.type == tarfmt.DIRECTORY else None,
            )
        real = self._tree.put(path, node)
        self._tree.sums.setdefault(real, digest.hexdigest())  # of twins the first counts

    def _linked(self, header: Header) -> Node:
        """Return what a hard link is one of. Raises InvalidParameter."""
        try:
            target = self._tree.lookup(self._path(header.link))
        except InvalidParameter:
            words = f"invalid hardlink target {go_quote(_shown(header.link))}"
            raise InvalidParameter(words) from None
        if target is None or target.is_dir:
            names = f"{_shown(header.link.lstrip(b'/'))} {_shown(header.name)}"
            raise InvalidParameter(f"linkat {names}: no such file or directory")
        return target

    def _path(self, name: bytes) -> str:
        if len(name) > tarfmt.MAX_PATH:
            raise InvalidParameter(f"name too long in archive: {_shown(name)}")
        path = posixpath.normpath(_text(name).lstrip("/") or ".")
        if path == ".." or path.startswith("../"):
            raise InvalidParameter(f"invalid entry name {go_quote(_shown(name))}")
        return posixpath.join(self._below, "" if path == "." else path)

    def _content(self, size: int, digest: hashlib._Hash) -> None:
        """Pass over an entry's bytes and add them to its checksum."""
        left = size
        while left:
            data = self._file.read(min(left, _READ))
            if not data:
                raise InvalidParameter("unexpected EOF")
            digest.update(data)
            left -= len(data)
        self._file.seek(tarfmt.padded(size) - size, 1)


def sum_of_file(name: str, node: Node, path: Path) -> str:
    """Return the checksum of a file that came from nowhere's tar, root's own. Blocking."""
    block = bytearray(BLOCK)
    block[100:108] = b"%07o\0" % node.mode
    raw = name.encode(errors="surrogateescape")
    header = Header(type=tarfmt.FILE, size=node.size, name=raw, link=b"")
    digest = hashlib.sha256(_fields(header.name, header, bytes(block), {}, {}))
    with mapped("read a spool file"), path.open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    return digest.hexdigest()


def _resolve(header: Header, pax: dict[bytes, bytes], long: dict[int, bytes]) -> None:
    """Let long names and pax records override the header's fields."""
    if any(key.startswith(b"GNU.sparse.") for key in pax):
        raise InvalidParameter("sparse files in an archive are not supported")
    header.name = pax.get(b"path") or long.get(tarfmt.LONG_NAME, header.name)
    header.link = pax.get(b"linkpath") or long.get(tarfmt.LONG_LINK, header.link)
    if header.type == tarfmt.FILE and b"size" in pax:
        header.size = tarfmt.pax_number(pax[b"size"])


def _fields(
    name: bytes, header: Header, block: bytes, pax: dict[bytes, bytes], xattrs: dict[bytes, bytes]
) -> bytes:
    """Return what tarsum hashes of a header, names in front of values."""
    named = block[257:262] == b"ustar"
    major, minor = _device(header, block)
    fields = (
        (b"name", name),
        (b"mode", b"%d" % tarfmt.number(block[100:108])),
        (b"uid", b"%d" % _number(block[108:116], pax, b"uid")),
        (b"gid", b"%d" % _number(block[116:124], pax, b"gid")),
        (b"size", b"%d" % header.size),
        (b"typeflag", bytes((header.type,))),
        (b"linkname", header.link),
        (b"uname", pax.get(b"uname", _string(block[265:297]) if named else b"")),
        (b"gname", pax.get(b"gname", _string(block[297:329]) if named else b"")),
        (b"devmajor", b"%d" % major),
        (b"devminor", b"%d" % minor),
        *sorted(xattrs.items()),
    )
    return b"".join(part for pair in fields for part in pair)


def _string(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes, pax: dict[bytes, bytes], key: bytes) -> int:
    return tarfmt.pax_number(pax[key]) if key in pax else tarfmt.number(field)


def _mtime(field: bytes, pax: dict[bytes, bytes]) -> int:
    """Return the time in whole seconds; one before 1970, or none, is 0."""
    if b"mtime" in pax:
        whole = pax[b"mtime"].split(b".")[0]
        return int(whole) if whole.isdigit() and len(whole) < 12 else 0
    return 0 if field[0] & 0x80 else tarfmt.number(field)


def _device(header: Header, block: bytes) -> tuple[int, int]:
    if header.type not in (tarfmt.CHARACTER, tarfmt.BLOCK_DEVICE):
        return 0, 0
    return tarfmt.number(block[329:337]), tarfmt.number(block[337:345])


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _shown(name: bytes) -> str:
    return name[:100].decode(errors="replace")
