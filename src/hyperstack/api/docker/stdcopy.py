"""Docker's stream format: stdout and stderr of a process without terminal on one connection.

Each frame is one byte stream (1 stdout, 2 stderr), three zero bytes, the length as a big-endian
32-bit number, then the bytes (moby, ``pkg/stdcopy``).
"""

from __future__ import annotations

import struct

from hyperstack.model import StreamKind

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

_HEADER = struct.Struct(">BxxxI")
_NUMBERS = {StreamKind.STDIN: 0, StreamKind.STDOUT: 1, StreamKind.STDERR: 2}


def header(kind: StreamKind, size: int) -> bytes:
    """Return what goes before *size* bytes of a stream."""
    return _HEADER.pack(_NUMBERS[kind], size)


def media_type(*, framed: bool, versioned: bool) -> str:
    """Return the content type; API versions before 1.42 know one for both formats."""
    return MULTIPLEXED if framed and versioned else RAW
