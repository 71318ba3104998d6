"""The door to libnftables: text of nft(8) in, applied as one transaction or refused as a whole.

A context belongs to the network namespace of the thread that makes it. The library keeps global
state, so one call runs at a time; each takes well under a millisecond.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

from hyperstack.errors import InternalError, Unavailable
from hyperstack.platform.descriptors import with_low_descriptors

LIBRARY = "libnftables.so.1"
_lock = threading.Lock()


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise Unavailable(
            f"{LIBRARY} can't be loaded ({error}); install the package libnftables1 or nftables"
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("error", "output"):
        getattr(library, f"nft_ctx_buffer_{name}").argtypes = [ctypes.c_void_p]
        getter = getattr(library, f"nft_ctx_get_{name}_buffer")
        getter.argtypes = [ctypes.c_void_p]
        getter.restype = ctypes.c_char_p
    return library


class NftablesError(InternalError):
    """The kernel or the library refused a transaction; nothing of it was done."""


def run(text: str) -> str:
    """Apply *text* in the calling thread's network namespace and return what it prints; blocking.

    Raises NftablesError with the first line of the library's complaint, Unavailable without it.
    """
    library = _library()
    with _lock:
        try:
            return with_low_descriptors(lambda: _run(library, text))
        except OSError as error:
            raise NftablesError(f"nftables can't be opened: {error.strerror}") from error


def _run(library: Any, text: str) -> str:
    context = library.nft_ctx_new(0)
    if not context:
        raise NftablesError("nftables can't be opened; the kernel needs nf_tables")
    try:
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_buffer_output(context)
        failed = library.nft_run_cmd_from_buffer(context, text.encode())
        if failed:
            said = library.nft_ctx_get_error_buffer(context) or b""
            lines = said.decode(errors="replace").strip().splitlines()
            raise NftablesError(_sentence(lines[0] if lines else "unknown failure"))
        output: bytes = library.nft_ctx_get_output_buffer(context) or b""
        return output.decode(errors="replace")
    finally:
        library.nft_ctx_free(context)


def _sentence(line: str) -> str:
    text = line.partition("Error: ")[2] or line
    if "Operation not supported" in text or "Protocol not supported" in text:
        text += "; the kernel needs nf_tables with nat, masq, fib and fwd (families inet, netdev)"
    return f"nftables: {text}"
