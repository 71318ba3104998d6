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

from tests.framework.host import KIT_DIR, Host, NetworkNamespace
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


def copy_kit(kits: Path) -> Path:
    """Put a kit of its own into *kits*, to be spoiled, and return its folder."""
    kit = kits / "one"
    kits.mkdir(parents=True, exist_ok=True)
    source = (KIT_DIR / "current").resolve()
    # Ten gigabytes of the template for disks are holes.
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(kit)], check=True)
    (kits / "current").symlink_to("one")
    return kit


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
    # The table may skip lines while others mount and unmount: look again until none is there.
    while mounts := _mounts_below(host.exec_root):
        for mount in mounts:
            subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(host.exec_root)
    host.socket.unlink(missing_ok=True)
    host.netns.close()
    host.netns = NetworkNamespace()


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [mount for line in lines if (mount := line.split()[4]).startswith(f"{folder}/")]
