"""Lines of Docker's json-file format: text escaped and cut, times, all of it in few passes in C."""

from __future__ import annotations

import time

PART = 16 * 1024
"""Longest text of one record; a longer line is cut (moby's copier does the same)."""

MANY_KINDS = 8
"""Kinds of escaped bytes from which on one look at every byte is cheaper than one pass for each."""
_PLAIN = bytes(n for n in range(32, 128) if chr(n) not in '"\\<>&') + b"\n"
"""Bytes that stand for themselves in the log, and the newline."""
_ESCAPES = {
    ord("\\"): b"\\\\",
    ord('"'): b'\\"',
    ord("\r"): b"\\r",
    **{n: b"\\u%04x" % n for n in (*b"<>&", *range(32)) if n not in b"\r\n"},
}
_EACH = tuple(_ESCAPES.get(n, bytes([n])) for n in range(256))
_SEPARATORS = (("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"))


def escape(text: bytes) -> bytes:
    """Return bytes as the inside of a JSON string, escaped as Docker's log does."""
    return escape_all_but_newlines(text).replace(b"\n", b"\\n")


def escape_all_but_newlines(text: bytes) -> bytes:
    """Return bytes as ``escape`` does, newlines as they are."""
    # Whatever a guest writes, no step here is taken in Python for each byte or line. To delete what
    # is plain is eight times as fast as to search for what is not by a regular expression.
    rest = text.translate(None, _PLAIN)
    if not rest:
        return text
    present = [byte for byte in _ESCAPES if byte in rest]
    if len(present) > MANY_KINDS and len(rest) > len(text) // 4:
        text = b"".join(map(_EACH.__getitem__, text))
    else:
        # The backslash goes first: the others' escapes are made of it.
        for byte in present:
            text = text.replace(b"%c" % byte, _ESCAPES[byte])
    return text if rest.isascii() else _as_utf8(text)


def _as_utf8(text: bytes) -> bytes:
    """Replace what is not UTF-8, byte by byte as in Go, and escape Unicode's line separators.

    No control character but the newline is left in *text*.
    """
    try:
        text.decode()
    except UnicodeDecodeError:
        # Python's own replacement on the way out is a question mark: \x01 stands for real ones.
        marked = text.replace(b"?", b"\x01").decode("utf-8", "surrogateescape")
        text = marked.encode("utf-8", "replace").replace(b"?", b"\xef\xbf\xbd")
        text = text.replace(b"\x01", b"?")
    for separator, escaped in _SEPARATORS:
        text = text.replace(separator, escaped)
    return text


def stamp(time_ns: int) -> str:
    """Return a time as RFC 3339 with nanoseconds, as Go prints it (no trailing zeros)."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"


def may_be_long(text: bytes) -> bool:
    """Tell whether a line may be longer than a record; sometimes it is only longer than half."""
    half = PART // 2
    return any(
        text.find(b"\n", start, start + half) < 0 for start in range(0, len(text) - half, half)
    )


def parts(lines: list[bytes]) -> list[bytes]:
    """Cut lines (the last one without its newline) into records of at most 16 KiB."""
    made: list[bytes] = []
    for index, line in enumerate(lines):
        whole = line + b"\n" if index < len(lines) - 1 else line
        if len(whole) <= PART:
            if whole:
                made.append(whole)
        else:
            made += [whole[at : at + PART] for at in range(0, len(whole), PART)]
    return made
