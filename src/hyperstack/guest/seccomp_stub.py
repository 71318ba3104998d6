"""What stands before libseccomp's program: system calls that are newer than the library or profile.

Calls newer than the installed libseccomp are answered here by number. Calls newer than everything
that a profile names fail with ENOSYS instead of the profile's error, so that programs fall back to
older ones as they do on an older kernel: the same as runc's stub (libcontainer/seccomp/patchbpf).

Classic BPF: linux/filter.h, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

import pyseccomp

AUDIT_ARCH_X86_64 = int(pyseccomp.Arch.X86_64)
X32 = int(pyseccomp.Arch.X32)
X32_BIT = 0x40000000
ENOSYS = int(pyseccomp.ERRNO(errno.ENOSYS))
_PERMISSIVE = (pyseccomp.ALLOW, pyseccomp.LOG)
_TRACE = 0x7FF00000
_ACTION = 0xFFFF0000

_LD_ABS, _JEQ, _JGT, _JSET, _JA, _RET = 0x20, 0x15, 0x25, 0x45, 0x05, 0x06
_NR, _ARCH = 0, 4
"""Offsets in struct seccomp_data."""


NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
"""Calls since Linux 6.5. New ones have one number on every architecture."""
NEWER_X86_64 = {"uretprobe": 335}


def newer_number(arch: int, name: str) -> int:
    """Return a call's number on an architecture, -1 if it is not among the newer ones."""
    if arch == AUDIT_ARCH_X86_64 and name in NEWER_X86_64:
        return NEWER_X86_64[name]
    found = NEWER.get(name, -1)
    return found | X32_BIT if arch == X32 and found >= 0 else found


def program(newer: Mapping[str, int], highest: Mapping[int, int], default: int) -> bytes:
    """Return the instructions to put before a filter; empty if there is nothing to say.

    *newer*: actions of calls that libseccomp doesn't know. *highest*: the largest number that the
    profile names, for each architecture, -1 for none. *default*: the filter's default action.
    """
    strict = default not in (*_PERMISSIVE, ENOSYS) and default & _ACTION != _TRACE
    blocks = {
        arch: _block(arch, newer, number if strict and number >= 0 else None)
        for arch, number in highest.items()
    }
    if not any(blocks.values()):
        return b""
    x32 = blocks.pop(X32, [])
    made = [_op(_LD_ABS, _ARCH)]
    for arch, block in blocks.items():
        if arch == AUDIT_ARCH_X86_64:
            block = _split_x32(block, x32)
        if block:
            # The block's end jumps over what follows; the length is known only when all is made.
            made += [_op(_JEQ, arch, 0, len(block) + 2), _op(_LD_ABS, _NR), *block, (_JA, 0, 0, 0)]
    return b"".join(_packed(made))


Instruction = tuple[int, int, int, int]


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> Instruction:
    return (code, jt, jf, k)


def _block(arch: int, newer: Mapping[str, int], highest: int | None) -> list[Instruction]:
    """Answer an architecture's newer calls; the call's number is in the accumulator."""
    made = []
    for name, action in newer.items():
        number = newer_number(arch, name)
        if number >= 0:
            made += [_op(_JEQ, number, 0, 1), _op(_RET, action)]
    if highest is not None:
        made += [_op(_JGT, highest, 0, 1), _op(_RET, ENOSYS)]
    return made


def _split_x32(native: list[Instruction], x32: list[Instruction]) -> list[Instruction]:
    """Keep x32's calls, which have x86-64's architecture and a bit of their own, out of x86-64's.

    A filter that does not know x32 ends such a call itself: the stub then stays out of it.
    """
    if not native and not x32:
        return []
    return [_op(_JSET, X32_BIT, len(native) + 1), *native, (_JA, 0, 0, len(x32)), *x32]


def _packed(made: list[Instruction]) -> list[bytes]:
    """Assemble, pointing each block's last jump to the end. Jumps by condition reach 255."""
    packed = []
    for at, (code, jt, jf, k) in enumerate(made):
        if code == _JA and k == 0:
            k = len(made) - at - 1
        if max(jt, jf) > 255:
            raise RuntimeError("the stub of a system call filter is too long")
        packed.append(struct.pack("=HBBI", code, jt, jf, k))
    return packed
