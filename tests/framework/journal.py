"""A real systemd-journald in a mount namespace of its own, which a daemon takes for its host's."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

JOURNALD = Path("/lib/systemd/systemd-journald")
_HIDE = """
mount --make-rprivate /
for folder in /run/systemd /run/log /var/log/journal; do
    mkdir -p $folder && mount -t tmpfs none $folder
done
mkdir -p /run/systemd/journal
exec sleep infinity
"""
START_BOUND = 20.0


class Journal:
    """The namespace and the journal in it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--mount", "--", "sh", "-c", _HIDE])
        self._journald: subprocess.Popen[bytes] | None = None

    @property
    def enter(self) -> tuple[str, ...]:
        """The words that put a command into the namespace."""
        return ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--")

    def start(self) -> None:
        """Start journald, which goes on with what it has."""
        socket = Path(f"/proc/{self._holder.pid}/root/run/systemd/journal/socket")
        self._wait_for(socket.parent)
        socket.unlink(missing_ok=True)
        self._journald = subprocess.Popen(
            [*self.enter, str(JOURNALD)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait_for(socket)

    @staticmethod
    def _wait_for(path: Path) -> None:
        bound = time.monotonic() + START_BOUND
        while not path.exists():
            assert time.monotonic() < bound, f"{path} did not come"
            time.sleep(0.02)

    def stop(self) -> None:
        """End journald; the namespace stays."""
        if self._journald is not None:
            self._journald.terminate()
            self._journald.wait(10)
            self._journald = None

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """Return what the journal has, by field; values that are no text are lists of numbers."""
        done = subprocess.run(
            [*self.enter, "journalctl", "-a", "-o", "json", *matches],
            capture_output=True, check=True, timeout=30,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for(self, count: int, *matches: str) -> list[dict[str, Any]]:
        """Return so many entries when they are there."""
        bound = time.monotonic() + START_BOUND
        while len(found := self.entries(*matches)) < count:
            assert time.monotonic() < bound, f"{count} entries did not come: {found}"
            time.sleep(0.1)
        return found

    def close(self) -> None:
        """End all of it."""
        try:
            self.stop()
        finally:
            self._holder.kill()
            self._holder.wait()


@contextlib.contextmanager
def running_journal() -> Iterator[Journal]:
    """Give a journal that takes entries; skip the test where there is no journald."""
    if not JOURNALD.exists():
        pytest.skip("systemd-journald is not installed")
    journal = Journal()
    try:
        journal.start()
        yield journal
    finally:
        journal.close()
