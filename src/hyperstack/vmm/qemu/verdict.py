"""What is known of this host's KVM: the outcome of one probe, for one boot and one kit.

It lies beside the kits, since it is about the host and a kit's kernel and not about a data root:
all daemons of a host share it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from hyperstack.errors import InternalError

FILE = "kvm.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MAX_BYTES = 16 << 10


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a guest has booted with KVM; *reason* is a sentence for the user if not."""

    boot: str
    """The host's boot id (random(4)): after another boot everything may be different."""
    kit: str
    ok: bool
    reason: str = ""
    seconds: float = 0.0
    """How long the guest took to its agent."""


def boot_id() -> str:
    """Return what names this boot of the host."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def load(kit_dir: Path, kit: str) -> Verdict | None:
    """Return the verdict on this boot of the host and the kit of this version, or None."""
    try:
        with (kit_dir / FILE).open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_BYTES), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if (found.boot, found.kit) == (boot_id(), kit) else None


def store(kit_dir: Path, verdict: Verdict) -> None:
    """Keep a verdict: the whole file or the old one. Raises InternalError."""
    try:
        fd, name = tempfile.mkstemp(prefix=f".{FILE}.", dir=kit_dir)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.json.encode(verdict))
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).rename(kit_dir / FILE)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InternalError(
            f"what was found out about KVM can't be kept in {kit_dir}: {error.strerror}"
        ) from error
