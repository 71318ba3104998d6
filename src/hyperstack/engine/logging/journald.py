"""Log driver ``journald``: each line of a container as an entry of the host's journal.

Entries go to journald's socket in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a
datagram of ``KEY=value`` lines, or a sealed memfd where that is too long for one. The fields are
those of moby's driver. ``docker logs`` reads a copy (``logging.py``) and not the journal, which may
drop lines of whom it finds too busy, and forgets when it likes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from hyperstack.engine.logging import sending, tagging
from hyperstack.engine.logging.jsonline import stamp
from hyperstack.engine.logging.sending import Line, Terms
from hyperstack.engine.logging.transport import Datagrams
from hyperstack.errors import InternalError
from hyperstack.ids import new_id
from hyperstack.model import Container, StreamKind

SOCKET = Path("/run/systemd/journal/socket")
_BUFFER = 8 << 20
"""Bytes of entries that the kernel may keep for journald, as its own client library asks for."""
_KEY = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_PRIORITY = {StreamKind.STDOUT: 6, StreamKind.STDERR: 3}


def key_of(name: str) -> str:
    """Return the name of a label or variable as a field's, as moby makes it.

    Letters become upper case, what is neither letter nor digit an underscore, none of which leads.
    """
    plain = (c.upper() if c.isascii() and c.isalnum() else "_" for c in name)
    return "".join(plain).lstrip("_")


def field(key: str, value: bytes) -> bytes:
    """Return a field as the protocol has it: with its length before it if it has lines."""
    if b"\n" in value:
        return b"%s\n%s%s\n" % (key.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (key.encode(), value)


class Journal(Datagrams):
    """The socket of journald's native protocol."""

    def __init__(self, path: Path = SOCKET) -> None:
        """Connect. Raises OSError."""
        super().__init__(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), str(path))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def send_now(self, message: bytes) -> bool:
        """Send an entry if there is room for it, whatever its length. Raises OSError."""
        try:
            return super().send_now(message)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
        return self._send_file(message)

    def _send_file(self, message: bytes) -> bool:
        fd = os.memfd_create("journal-entry", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(message)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(self.socket, [b""], [fd])
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True


class Sender(sending.Sender):
    """One container's entries on their way to the journal."""

    name = "journald"

    def __init__(self, fields: Mapping[str, str], terms: Terms, path: Path | None = None) -> None:
        """*fields* go into each entry."""
        super().__init__(terms)
        self._path = path or SOCKET
        own = {**fields, "CONTAINER_LOG_EPOCH": new_id()}
        self._fields = b"".join(
            field(key, value.encode(errors="replace")) for key, value in own.items()
        )
        self._ordinal = 0

    def message(self, line: Line) -> bytes:
        """Return a line's entry."""
        self._ordinal += 1
        made = [
            field("MESSAGE", line.text),
            field("PRIORITY", b"%d" % _PRIORITY.get(line.kind, 6)),
            self._fields,
            field("CONTAINER_LOG_ORDINAL", b"%d" % self._ordinal),
            field("SYSLOG_TIMESTAMP", stamp(line.time_ns).encode()),
        ]
        if (partial := line.partial) is not None:
            made += [
                field("CONTAINER_PARTIAL_ID", partial.id.encode()),
                field("CONTAINER_PARTIAL_ORDINAL", b"%d" % partial.ordinal),
                field("CONTAINER_PARTIAL_LAST", b"true" if partial.last else b"false"),
            ]
            if not partial.last:
                made.append(field("CONTAINER_PARTIAL_MESSAGE", b"true"))
        return b"".join(made)

    async def dial(self) -> Journal:
        """Connect to the journal. Raises InternalError in Docker's words where there is none."""
        try:
            return Journal(self._path)
        except OSError as error:
            raise InternalError("journald is not enabled on this host") from error


def sender(container: Container, terms: Terms) -> Sender:
    """Return the way of a container's lines into the journal. Raises InternalError."""
    options = container.host.log_config.config
    tag = tagging.tag(container, options.get("tag") or tagging.DEFAULT)
    fields = {
        "CONTAINER_ID": container.id[:12],
        "CONTAINER_ID_FULL": container.id,
        "CONTAINER_NAME": container.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": container.config.image,
        "SYSLOG_IDENTIFIER": tag,
    }
    return Sender({**fields, **attributes(container)}, terms)


def attributes(container: Container) -> dict[str, str]:
    """Return what ``labels`` and ``env`` add to each entry. Raises InternalError.

    What no field may be called is left out, as journald does.
    """
    named = ((key_of(key), value) for key, value in tagging.attributes(container))
    return {key: value for key, value in named if _KEY.match(key)}
