"""How long a client waits for a daemon that others keep busy."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conformance.raw import ask
from tests.framework.host import Host

PAUSE = 0.05
"""Seconds between two rounds of questions."""


class Watch:
    """A client that asks again and again for `_ping`, `ps` and `inspect` while others work."""

    def __init__(self, host: Host, name: str, container: str) -> None:
        self._host = host
        self._name = name
        self._targets = {
            "ping": "/_ping",
            "ps": "/v1.51/containers/json?all=1",
            "inspect": f"/v1.51/containers/{container}/json",
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)
        self._failure: Exception | None = None
        self.seconds: dict[str, list[float]] = {what: [] for what in self._targets}
        """How long each answer took."""

    def _ask_on(self) -> None:
        try:
            while not self._stop.is_set():
                for what, target in self._targets.items():
                    began = time.monotonic()
                    status, answer = ask(self._host, "GET", target)
                    self.seconds[what].append(time.monotonic() - began)
                    assert status == 200, answer
                self._stop.wait(PAUSE)
        except Exception as error:
            self._failure = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        if error is None:
            assert self._failure is None, self._failure
        print(self)

    def __str__(self) -> str:
        parts = [
            f"{what} {statistics.median(took) * 1000:.0f} ms (at most {max(took) * 1000:.0f})"
            for what, took in self.seconds.items()
            if took
        ]
        return f"{self._name}: {', '.join(parts)}, {len(self.seconds['ping'])} rounds"

    @property
    def longest(self) -> float:
        """Seconds of the slowest answer."""
        return max(max(took, default=0.0) for took in self.seconds.values())


def daemon(host: Host) -> int:
    """Return the daemon's pid."""
    return int((host.root / "hyperd.pid").read_text())


def resident(host: Host) -> int:
    """Return the daemon's resident memory in bytes."""
    pages = Path(f"/proc/{daemon(host)}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def descriptors(host: Host) -> int:
    """Return how many file descriptors the daemon has."""
    return sum(1 for _ in Path(f"/proc/{daemon(host)}/fd").iterdir())
