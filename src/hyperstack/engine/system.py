"""``info``, ``version``, ``system df``: facts about this engine and its host."""

from __future__ import annotations

import contextlib
import os
import platform
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperstack import __version__
from hyperstack.engine.core import Core
from hyperstack.engine.prune import disk_usage
from hyperstack.engine.runtimes import HOST_DEFAULT
from hyperstack.image.service import Image
from hyperstack.model import Container, Status
from hyperstack.vmm import DefaultChoice
from hyperstack.vmm.base import Driver, Runtime
from hyperstack.volume.local import Volume


@dataclass(frozen=True, kw_only=True)
class Info:
    """What ``docker info`` shows; sizes in bytes."""

    id: str
    name: str
    containers: int
    running: int
    paused: int
    stopped: int
    images: int
    runtimes: tuple[str, ...]
    default_runtime: str
    default_driver: str
    kernel: str
    operating_system: str
    os_version: str
    architecture: str
    cpus: int
    memory: int
    kit_version: str
    cgroup_version: int
    warnings: tuple[str, ...]
    runtime_notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DiskUsage:
    """What ``docker system df`` adds up."""

    images: tuple[Image, ...]
    layers_size: int
    containers: tuple[tuple[Container, int, int], ...]
    """container, bytes written, bytes with its image"""
    volumes: tuple[Volume, ...]


class SystemService:
    """Facts about the engine and the host."""

    def __init__(
        self, core: Core, machines: Mapping[Runtime, Driver], choice: DefaultChoice
    ) -> None:
        self._core = core
        self._machines = machines
        self._choice = choice
        self._id = _engine_id(core.config.data_root)

    def choose(self, choice: DefaultChoice) -> None:
        """Take note of another choice of the default runtime."""
        self._choice = choice

    async def info(self) -> Info:
        """Collect the facts of now."""
        core = self._core
        states = [container.state.status for container in core.table]
        running = sum(s in (Status.RUNNING, Status.RESTARTING) for s in states)
        paused = states.count(Status.PAUSED)
        release = _os_release()
        return Info(
            id=self._id,
            name=platform.node(),
            containers=len(states),
            running=running,
            paused=paused,
            stopped=len(states) - running - paused,
            images=core.images.count(),
            runtimes=(HOST_DEFAULT, *(r.value for r in self._machines)),
            default_runtime=core.config.default_runtime,
            default_driver=self._choice.runtime.value,
            kernel=platform.release(),
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            architecture=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            kit_version=core.sandboxes.kit.version,
            cgroup_version=2,
            warnings=self._warnings(),
            runtime_notes=self._choice.reasons,
        )

    def _warnings(self) -> tuple[str, ...]:
        found = []
        driver = self._machines.get(self._choice.runtime)
        if driver is not None and not driver.capabilities.security_boundary:
            found.append(
                f"WARNING: runtime {self._choice.runtime} relies on the jail alone: guest "
                "programs may reach the guest's kernel"
            )
        if Runtime.UML_FAST in self._machines:
            found.append(
                "WARNING: runtime hyper-uml-fast is allowed: its guests' programs are kept out of "
                "the guest kernel's memory by nothing, the jail alone stands"
            )
        return tuple(found)

    def version(self) -> dict[str, str]:
        """Return versions by component."""
        return {
            "version": __version__,
            "kernel": platform.release(),
            "kit": self._core.sandboxes.kit.version,
            "python": platform.python_version(),
        }

    def image_uses(self) -> Counter[str]:
        """Return by image id how many containers use it."""
        return Counter(container.image_id for container in self._core.table)

    async def disk_usage(self) -> DiskUsage:
        """Add up what images, containers and volumes take on the host."""
        core = self._core
        containers = []
        for container in core.table:
            written = disk_usage(core.disk(container.id))
            containers.append((container, written, written + core.images.size(container.image_id)))
        images = tuple(core.images.list(all_=False, filters={}))
        return DiskUsage(
            images=images,
            layers_size=core.images.layers_size(),
            containers=tuple(containers),
            volumes=tuple(await core.volumes.list_with_sizes()),
        )


def _engine_id(data_root: Path) -> str:
    """Return this engine's id, made once and kept in the data root."""
    path = data_root / "engine-id"
    with contextlib.suppress(FileNotFoundError):
        if kept := path.read_text().strip():
            return kept
    made = str(uuid.uuid4())
    partial = path.with_suffix(".new")
    with partial.open("w") as file:
        file.write(f"{made}\n")
        file.flush()
        os.fsync(file.fileno())  # before it has its name: a host that fails keeps all or nothing
    partial.rename(path)
    return made


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
