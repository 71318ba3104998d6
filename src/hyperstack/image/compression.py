"""Compressed streams: which one it is, decompression in bounded pieces, gzip for what we make.

A *decoder* is pushed compressed bytes and pushes what comes out, at most ``PIECE`` bytes at a time,
so that a few bytes which expand to gigabytes never do so in memory; what is too much in all is the
receiver's business. zlib-ng decompresses at nearly twice zlib's speed, measured on layers.
Formats by their magic, as Docker tells them: RFC 1952, RFC 8878, bzip2, xz.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import IO, Any, Protocol, cast

import zstandard
from zlib_ng import zlib_ng

from hyperstack.errors import InvalidParameter

PIECE = 1 << 18
SNIFF = 512
"""Bytes that ``sniff`` wants to see (fewer only if there are no more)."""
_WINDOW = 128 << 20
_XZ_MEMORY = 256 << 20
_PORTION = 4 << 20
_SLICE = 1 << 10
"""Bytes that are decompressed at once where nobody takes the pieces away meanwhile: a KiB of the
most compressible format becomes 32 MiB."""
_GZIP = 31
"""zlib's wbits for a gzip header and trailer."""
_ZLIB_ERROR = cast(type[Exception], zlib_ng.error)

Sink = Callable[[bytes], None]


class Compression(StrEnum):
    """How a stream is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


def sniff(start: bytes) -> Compression:
    """Tell from a stream's first bytes how it is compressed."""
    if start[257:262] == b"ustar":
        return Compression.NONE  # a tar whose first name looks like somebody's magic
    if start.startswith(b"\x1f\x8b\x08"):
        return Compression.GZIP
    if start.startswith(b"\x28\xb5\x2f\xfd") or start[1:4] == b"\x2a\x4d\x18":
        return Compression.ZSTD
    if start.startswith(b"BZh"):
        return Compression.BZIP2
    if start.startswith(b"\xfd7zXZ\0"):
        return Compression.XZ
    return Compression.NONE


class Decoder(Protocol):
    """Takes compressed bytes, hands on plain ones."""

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises InvalidParameter if they are damaged."""

    def finish(self) -> None:
        """Say that there are no more. Raises InvalidParameter if some are missing."""


def decoder(kind: Compression, sink: Sink) -> Decoder:
    """Return a decoder that pushes plain bytes into *sink*."""
    if kind is Compression.NONE:
        return _Plain(sink)
    if kind is Compression.ZSTD:
        return _Zstd(sink)
    return _Members(kind, sink)


class SniffingDecoder:
    """A decoder that finds out by itself how the stream is compressed."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._start = b""
        self._inner: Decoder | None = None
        self.kind: Compression | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises InvalidParameter if they are damaged."""
        if self._inner is None:
            self._start += data
            if len(self._start) < SNIFF:
                return
            data = self._begin()
        assert self._inner is not None
        self._inner.write(data)

    def finish(self) -> None:
        """Say that there are no more. Raises InvalidParameter if some are missing."""
        if self._inner is None:
            data = self._begin()
            assert self._inner is not None
            self._inner.write(data)
        self._inner.finish()

    def _begin(self) -> bytes:
        data, self._start = self._start, b""
        self.kind = sniff(data)
        self._inner = decoder(self.kind, self._sink)
        return data


class _Plain:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> None:
        if data:
            self._sink(data)

    def finish(self) -> None:
        pass


class _Zstd:
    """Frames one after another; the library itself cuts what comes out into pieces."""

    def __init__(self, sink: Sink) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._writer = decompressor.stream_writer(
            cast(IO[bytes], _Into(sink)), write_size=PIECE, closefd=False
        )

    def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
        except zstandard.ZstdError as error:
            raise InvalidParameter(f"invalid zstd data: {error}") from error

    def finish(self) -> None:
        pass  # a frame that was cut off shows as a tar that was


class _Into:
    """The writable object that zstandard wants."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink(bytes(data))
        return len(data)


class _Members:
    """gzip, bzip2 and xz: members one after another, each with a decompressor of its own."""

    def __init__(self, kind: Compression, sink: Sink) -> None:
        self._kind = kind
        self._sink = sink
        self._one: Any = None
        self._any = False

    def write(self, data: bytes) -> None:
        while data:
            if self._one is None:
                data = self._padding(data)
                if not data:
                    return
                self._one = self._new()
            data = self._step(data)

    def finish(self) -> None:
        if self._one is not None:
            raise InvalidParameter("unexpected EOF")

    def _padding(self, data: bytes) -> bytes:
        """Leave out what may stand between members: xz has stream padding."""
        return data.lstrip(b"\0") if self._kind is Compression.XZ and self._any else data

    def _new(self) -> Any:
        self._any = True
        if self._kind is Compression.GZIP:
            return zlib_ng.decompressobj(_GZIP)
        if self._kind is Compression.BZIP2:
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def _step(self, data: bytes) -> bytes:
        """Decompress a piece, hand it on, and return the input that is left for later."""
        plain = self._decompress(data)
        if plain:
            self._sink(plain)
        one = self._one
        if one.eof:
            self._one = None
            return bytes(one.unused_data)
        if self._kind is Compression.GZIP and one.unconsumed_tail:
            return bytes(one.unconsumed_tail)
        # All input was taken, but output may be held back: ask for it with nothing.
        while len(plain) == PIECE and not one.eof:
            if plain := self._decompress(b""):
                self._sink(plain)
        if one.eof:
            self._one = None
            return bytes(one.unused_data)
        return b""

    def _decompress(self, data: bytes) -> bytes:
        try:
            return bytes(self._one.decompress(data, PIECE))
        except (_ZLIB_ERROR, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise InvalidParameter(f"invalid {self._kind} data: {error}") from error


async def inflate(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a stream as plain bytes, however it is compressed; memory stays bounded.

    Raises InvalidParameter if it is damaged.
    """
    found: list[bytes] = []
    one = SniffingDecoder(found.append)
    async for data in body:
        if one.kind is Compression.NONE:
            yield data
            continue
        position = 0
        while position < len(data):
            position = await asyncio.to_thread(_some, one, found, data, position)
            for piece in found:
                yield piece
            found.clear()
    await asyncio.to_thread(one.finish)
    for piece in found:
        yield piece


def _some(one: SniffingDecoder, found: list[bytes], data: bytes, position: int) -> int:
    """Decompress until there is a portion; return where to go on."""
    total = 0
    while position < len(data) and total < _PORTION:
        before = len(found)
        one.write(data[position : position + _SLICE])
        position += _SLICE
        total += sum(map(len, found[before:]))
    return position


class GzipEncoder:
    """Compresses what this daemon makes itself: fast, not small."""

    LEVEL = 1

    def __init__(self) -> None:
        # Method 8 is deflate. The header has no name and no time: equal input, equal output.
        self._one = zlib_ng.compressobj(self.LEVEL, 8, _GZIP)

    def write(self, data: bytes | memoryview) -> bytes:
        """Take plain bytes and return the compressed ones that are ready."""
        return self._one.compress(data)

    def finish(self) -> bytes:
        """Return the rest."""
        return self._one.flush()
