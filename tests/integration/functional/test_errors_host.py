"""What a host may lack or refuse: the daemon ends with one sentence, or says it per container."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import Host, NetworkNamespace, Result, running_host
from tests.framework.trouble import copy_kit, load_busybox, small_disk, state

BUSY = "import socket,time; s=socket.socket(); s.bind(('0.0.0.0',8085)); s.listen(); "
HIDE_TUN = 'mount -t tmpfs tmpfs /dev/net && exec "$@"'


class Place:
    """A place where a daemon could be started."""

    def __init__(self, root: Path, number: int) -> None:
        self.netns = NetworkNamespace()
        self.root = root
        self.number = number
        root.mkdir()

    def hyperd(self, *flags: str, before: tuple[str, ...] = ()) -> Result:
        """Start a daemon that can't come up, and return what it left."""
        argv = Host(root=self.root, netns=self.netns, number=self.number).argv()
        enter = len(self.netns.enter)
        done = subprocess.run(
            [*argv[:enter], *before, *argv[enter:], *flags],
            capture_output=True,
            timeout=60,
            text=True,
        )
        return Result(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.fixture
def place(tmp_path: Path, worker_number: int) -> Iterator[Place]:
    made = Place(tmp_path / "h", worker_number + 30)
    yield made
    made.netns.close()


def refused(result: Result, sentence: str) -> None:
    """Check that the daemon ended with status 1 and one sentence."""
    assert result.code == 1
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("hyperd: ")
    assert sentence in last
    assert "Traceback" not in result.err


def test_without_rights_the_daemon_says_so(place: Place) -> None:
    who = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    # The checkout may lie where nobody else may look.
    nobody = (*who, "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    refused(place.hyperd(before=nobody), "needs to be started with root privileges")


def test_a_missing_damaged_or_foreign_kit_is_told_with_what_to_do(
    place: Place, tmp_path: Path
) -> None:
    kits = tmp_path / "kits"
    flags = ("--kit-dir", str(kits))
    refused(place.hyperd(*flags), f"no guest kit at {kits}/current; run 'hyper kit build'")
    kit = copy_kit(kits)
    manifest = kit / "manifest.json"
    good = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**good, "format": 99}))
    refused(place.hyperd(*flags), "was made by another release; run 'hyper kit build'")
    manifest.write_text("{")
    refused(place.hyperd(*flags), "is damaged (manifest.json); run 'hyper kit build'")
    manifest.write_text(json.dumps(good))
    os.truncate(kit / "uml" / "linux", 4096)
    refused(place.hyperd(*flags), "is damaged (uml/linux); run 'hyper kit build'")


def test_roots_that_cannot_be_used_are_named(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    refused(place.hyperd("--data-root", str(file)), f"data root {file} can't be written")
    with small_disk(tmp_path / "ro", 1 << 20, "ro"):
        refused(place.hyperd("--exec-root", f"{tmp_path}/ro/x"), "Read-only file system")
        refused(place.hyperd("--data-root", f"{tmp_path}/ro/x"), "Read-only file system")
    long = f"/tmp/{'x' * 80}"
    refused(place.hyperd("--exec-root", long), "is longer than 69 bytes")
    refused(place.hyperd("-H", f"unix://{long}{long}"), "is longer than 107 bytes")
    assert not Path(long).exists()


def test_a_damaged_newer_or_unreadable_database_is_left_alone(place: Place) -> None:
    database = place.root / "data" / "hyper.db"
    database.parent.mkdir()
    database.write_bytes(b"garbage" * 1000)
    refused(place.hyperd(), "file is not a database")
    assert database.read_bytes() == b"garbage" * 1000
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    refused(place.hyperd(), "written by a newer version of Hyper (schema 99")


def test_a_row_that_cannot_be_read_keeps_the_daemon_from_clearing_up(
    tmp_path: Path, worker_number: int
) -> None:
    with running_host(tmp_path / "h", worker_number + 30) as host:
        host.stop()
        database = host.data_root / "hyper.db"
        folder = host.data_root / "containers" / "kept"
        folder.mkdir(parents=True)
        with sqlite3.connect(database) as connection:
            connection.execute("INSERT INTO containers VALUES ('kept', 'kept', '{}')")
        connection.close()
        done = subprocess.run(host.argv(), capture_output=True, timeout=60, text=True)
        refused(Result(code=done.returncode, out="", err=done.stderr), "a row of the database")
        assert folder.is_dir()


def test_a_host_without_tun_is_told_to_load_it(place: Place) -> None:
    hide = ("unshare", "--mount", "--", "sh", "-c", HIDE_TUN, "sh")
    refused(place.hyperd(before=hide), "/dev/net/tun is missing (load the module tun)")


def test_a_second_daemon_is_refused(host: Host) -> None:
    done = subprocess.run(host.argv(), capture_output=True, timeout=60, text=True)
    assert done.returncode == 1
    assert "is used by another hyperd" in done.stderr
    assert host.ping()


def test_a_port_in_use_is_refused_in_dockers_words_and_leaves_nothing(host: Host) -> None:
    holder = subprocess.Popen(
        [*host.netns.enter, sys.executable, "-c", BUSY + "print(flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        for ports in ("8085:80", "8085-8085:80"):
            done = host.docker("run", "-d", "-p", ports, "busybox", "sleep", "9", check=False)
            assert done.code == 125
            assert "driver failed programming external connectivity" in done.err
            assert "8085" in done.err
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    host.docker("run", "-d", "--name", "first", "-p", "8085:80", "busybox", "sleep", "1000")
    done = host.docker("run", "-d", "--name", "second", "-p", "8085:80", "busybox", "sleep", "9",
                       check=False)  # fmt: skip
    assert "port is already allocated" in done.err
    assert state(host, "second")["Status"] == "created"
    host.docker("rm", "-f", "first")
    host.docker("start", "second")


def test_an_unknown_runtime_is_refused_at_create(host: Host) -> None:
    done = host.docker("create", "--runtime", "runsc", "busybox", check=False)
    assert "unknown or invalid runtime name: runsc" in done.err


def test_a_registry_that_is_down_refuses_or_hangs_is_told(host: Host) -> None:
    listening = (
        "import socket,time; s=socket.socket(); s.bind(('127.0.0.1',5055)); s.listen(); "
        "print(flush=True); time.sleep(300)"
    )
    began = time.monotonic()
    done = host.docker("pull", "127.0.0.1:5054/x", check=False)
    assert "connection refused" in done.err
    assert time.monotonic() - began < 20
    silent = subprocess.Popen(
        [*host.netns.enter, sys.executable, "-c", listening], stdout=subprocess.PIPE
    )
    assert silent.stdout is not None
    try:
        silent.stdout.readline()
        done = host.docker("pull", "127.0.0.1:5055/x", check=False, timeout=200)
        assert done.code
        assert "Traceback" not in done.err
        assert "timeout" in done.err.lower() or "canceled" in done.err.lower(), done.err
    finally:
        silent.kill()
        silent.wait()
        silent.stdout.close()


def test_a_daemon_without_cgroups_says_so_where_it_matters(
    tmp_path: Path, worker_number: int
) -> None:
    drop = (
        "for m in $(grep cgroup /proc/mounts | cut -d' ' -f2 | sort -r); do umount -l $m; done; "
        'exec "$@"'
    )
    with running_host(
        tmp_path / "h",
        worker_number + 30,
        before=("unshare", "--mount", "--", "sh", "-c", drop, "sh"),
    ) as host:
        load_busybox(host)
        done = host.docker("run", "--rm", "busybox", "echo", "hi", check=False)
        assert (done.code, done.out) == (0, "hi\n") or "cgroup" in done.err
        assert "Traceback" not in host.log.read_text()
