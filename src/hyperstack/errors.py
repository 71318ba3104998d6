"""The closed tree of errors that may reach a user.

    HyperError
    |-- NotFound          no such container, image, network, volume, exec, path
    |-- Conflict          the object's state forbids it (running, in use, name taken)
    |-- InvalidParameter  the caller's input is wrong
    |-- Unauthorized      credentials missing or refused
    |-- Forbidden         understood, and refused
    |-- NotModified       already in the wanted state (start of a running container)
    |-- Unavailable       a part that is needed is not there now (registry, kit, swarm)
    |-- RateLimited       a registry has been asked too often
    |-- Unsupported       a registry does not do what was asked of it
    |-- NotImplemented    Docker has it, Hyper does not
    `-- InternalError     anything else: a defect, a dead guest, a full disk
        `-- GuestError    the guest's kernel or agent failed; carries the console's tail

The message is the sentence the user reads, in Docker's words where Docker has them. HTTP statuses
are decided in one table, ``api/docker/errors.py``. Foreign exceptions are mapped to these where
they enter, with the cause chained.
"""

from __future__ import annotations


class HyperError(Exception):
    """Base of every error whose message is meant for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(HyperError):
    """The named object does not exist."""


class Conflict(HyperError):
    """The object's state, or another object, forbids the operation."""


class InvalidParameter(HyperError):
    """The caller's input is wrong."""


class Unauthorized(HyperError):
    """Credentials are missing or were refused."""


class Forbidden(HyperError):
    """The request was understood and is refused."""


class NotModified(HyperError):
    """The object is already in the state that was asked for."""


class Unavailable(HyperError):
    """A part that the operation needs is not there now."""


class RateLimited(HyperError):
    """A registry has been asked too often."""


class Unsupported(HyperError):
    """A registry does not do what was asked of it."""


class NotImplementedHere(HyperError):
    """Docker has this and Hyper does not (yet, or by its nature)."""


class InternalError(HyperError):
    """A failure that is nobody's input: a defect, the host's disk or kernel."""


class GuestError(InternalError):
    """A guest failed: its VMM, kernel or agent. The message ends with its console's last lines."""

    def __init__(self, message: str, console: str = "") -> None:
        tail = console.strip()
        super().__init__(f"{message}; the guest's console ended with: {tail}" if tail else message)
        self.console = tail
