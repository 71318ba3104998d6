"""Trouble made for real: full disks, machines that are killed or frozen, a host that reboots."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.framework.host import Host, NetworkNamespace
from tests.framework.images import busybox_tar


def load_busybox(host: Host) -> None:
    """Give the daemon the busybox image."""
    host.docker("import", "--change", 'CMD ["sh"]', "-", "busybox", stdin=busybox_tar())


def inspect(host: Host, name: str) -> dict[str, Any]:
    """Return what ``docker inspect`` says of a container."""
    found: dict[str, Any] = json.loads(host.docker("inspect", name).out)[0]
    return found


def state(host: Host, name: str) -> dict[str, Any]:
    """Return a container's State."""
    found: dict[str, Any] = inspect(host, name)["State"]
    return found


def folder_of(host: Host, name: str) -> Path:
    """Return where a container's disk and log lie."""
    return host.data_root / "containers" / str(inspect(host, name)["Id"])


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until *what* is true. Fails after *seconds*."""
    bound = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < bound, "it did not come true in time"
        time.sleep(0.1)


def signal_machine(host: Host, name: str, number: signal.Signals) -> None:
    """Send a signal to a container's VMM."""
    os.kill(state(host, name)["Pid"], number)


@contextlib.contextmanager
def small_disk(folder: Path, size: int, mode: str = "rw") -> Iterator[None]:
    """Mount a file system of *size* bytes at *folder*, *mode* is rw or ro."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=711,{mode}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Take all the space of a file system, and give it back."""
    path = folder / "ballast"
    try:
        with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        path.unlink()


def reboot(host: Host) -> None:
    """Do what a reboot does: every process ends, what lies in /run and the network are gone.

    Start the daemon afterwards.
    """
    host.kill()
    base = 700_000 + 70_000 * host.number
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if base <= entry.stat().st_uid < base + 70_000:
                os.kill(int(entry.name), signal.SIGKILL)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount = line.split()[4]
        if mount.startswith(f"{host.root}/exec"):
            subprocess.run(["umount", "-l", mount], check=True)
    shutil.rmtree(host.exec_root)
    host.socket.unlink(missing_ok=True)
    host.netns.close()
    host.netns = NetworkNamespace()
