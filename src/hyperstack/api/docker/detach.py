"""Detach keys: the sequence that ends an attachment and leaves the process running.

``ctrl-p,ctrl-q`` unless the client says otherwise (moby, ``pkg/streams`` escape proxy). A key is
one character, or ``ctrl-`` and one of ``a-z @ [ \\ ] ^ _``.
"""

from __future__ import annotations

from hyperstack.errors import InvalidParameter

DEFAULT = b"\x10\x11"
MOST_KEYS = 32
LONGEST = 256
"""Characters of a bad sequence that are repeated to its sender."""
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str) -> bytes:
    """Return the bytes of a key sequence; the default for an empty one. Raises InvalidParameter."""
    if not text:
        return DEFAULT
    keys = text.split(",")
    codes = [_key(key) for key in keys[: MOST_KEYS + 1]]
    if len(codes) > MOST_KEYS or None in codes:
        raise InvalidParameter(f"Invalid detach keys ({text[:LONGEST]}) provided")
    return bytes(code for code in codes if code is not None)


def _key(key: str) -> int | None:
    if len(key) == 1 and key.isascii():
        return ord(key)
    name, _, letter = key.partition("-")
    if name == "ctrl" and len(letter) == 1:
        if letter in _CONTROL:
            return _CONTROL[letter]
        if "a" <= letter <= "z":
            return ord(letter) - ord("a") + 1
    return None


class Detacher:
    """Watches a client's input for the sequence; what may be its beginning is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        """Return the input that goes to the process; sets ``detached`` when the keys came."""
        if not self._held and self._keys[0] not in data:
            return data
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    self.detached = True
                    return bytes(passed)
            else:
                passed += self._keys[: self._held]
                self._held = 1 if byte == self._keys[0] else 0
                if not self._held:
                    passed.append(byte)
        return bytes(passed)
