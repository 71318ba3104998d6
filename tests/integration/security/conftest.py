from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from resource import RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC
from typing import Any

import pytest

from hyperstack.platform.filters import Program
from hyperstack.platform.jail import Bind, JailSpec, Tmpfs, launch
from hyperstack.platform.process import ProcessHandle, become_subreaper, start_time

JAIL = Path(__file__).parents[3] / "native" / "jail"
LIMITS = {RLIMIT_NOFILE: 1024, RLIMIT_NPROC: 64, RLIMIT_FSIZE: 1 << 20}


def _uid() -> int:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return 680_000 + int(worker.removeprefix("gw"))


@dataclass
class Jails:
    """Jails around the program ``breakout``."""

    launcher: Path
    root: Path
    folder: Path
    uid: int
    held: list[ProcessHandle] = field(default_factory=list)

    def spec(self, *arguments: str, program: Program | None = Program.UML, **keys: Any) -> JailSpec:
        settings: dict[str, Any] = {
            "root": self.root,
            "argv": ("/breakout", *arguments),
            "program": program,
            "uid": self.uid,
            "gid": self.uid,
            "binds": (
                Bind(source=self.folder / "ro", target="/ro"),
                Bind(source=self.folder / "rw", target="/rw", read_only=False),
            ),
            "tmpfs": (Tmpfs(target="/tmp", size=4 << 20),),
            "devices": ("/dev/null", "/dev/urandom"),
            "limits": LIMITS,
        }
        return JailSpec(**{**settings, **keys})

    async def hold(self, **keys: Any) -> ProcessHandle:
        """Launch a jailed process that has come to rest."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            keys["fds"] = {**keys.get("fds", {}), 1: write}
            process = await launch(self.spec("hold", **keys), self.launcher)
            self.held.append(process)
        finally:
            os.close(write)
        assert await asyncio.to_thread(os.read, read, 100) == b"holding\n"
        os.close(read)
        return process

    def processes(self) -> list[int]:
        """Return the processes that run as the jails' uid; those that have ended are reaped."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or f"\nUid:\t{self.uid}\t" not in _status(entry):
                    continue
            except OSError:
                continue
            if start_time(int(entry.name)) is not None:
                found.append(int(entry.name))
            else:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(entry.name), os.WNOHANG)
        return found


def _status(entry: Path) -> str:
    return (entry / "status").read_text()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher and what runs in the jail."""
    if os.geteuid() != 0:
        pytest.skip("a jail is built by root")
    become_subreaper()
    build = tmp_path_factory.mktemp("jail")
    subprocess.run(["make", "-s", "-C", JAIL, f"BUILD={build}", "all", "test"], check=True)
    return build


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A jail's root and two folders to bind, each with what should not be reached in it."""
    root = tmp_path / "root"
    for name in ("dev", "tmp", "ro", "rw", "proc"):
        (root / name).mkdir(parents=True)
    shutil.copy(built / "breakout", root / "breakout")
    shutil.copy(built / "breakout", root / "setuid")
    (root / "setuid").chmod(0o4755)
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        os.mknod(tmp_path / name / "null", 0o020666, os.makedev(1, 3))
        (tmp_path / name / "null").chmod(0o666)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o111)
    return tmp_path


@pytest.fixture
async def jails(built: Path, folder: Path) -> AsyncIterator[Jails]:
    uid = _uid()
    os.chown(folder / "rw", uid, uid)
    os.chown(folder / "rw" / "file", uid, uid)
    made = Jails(launcher=built / "jail", root=folder / "root", folder=folder, uid=uid)
    yield made
    for process in made.held:
        await process.kill()
        process.close()
    assert not made.processes()
