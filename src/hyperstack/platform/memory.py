"""The C library's memory allocator, told what a daemon that moves bytes needs (mallopt(3)).

By its defaults glibc gives a freed buffer of some 100 KiB back to the kernel, and takes fresh pages
for the next. Where the host is a virtual machine itself, these page faults cost more than what is
done to the bytes.
"""

from __future__ import annotations

import ctypes

MMAP_THRESHOLD = 1 << 20
"""Bytes from which on a buffer is a mapping of its own."""
KEEP = 4 << 20
"""Free bytes at the end of the heap that are not given back."""
ARENAS = 2
"""Heaps for threads: ours allocate little, and each heap keeps its peak."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """Keep some freed memory for the next buffer; nothing happens where there is no mallopt."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for name, value in (
        (_M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (_M_TRIM_THRESHOLD, KEEP),
        (_M_ARENA_MAX, ARENAS),
    ):
        mallopt(name, value)
