"""Volumes and binds against root in a privileged container: the share is the host's to keep."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.framework.host import Host


@dataclass
class Shared:
    host: Host
    rw: Path
    ro: Path
    outside: Path

    def sh(self, command: str, timeout: float = 60) -> tuple[int, str]:
        done = self.host.docker(
            "exec", "root", "sh", "-c", command, check=False, timeout=timeout
        )  # fmt: skip
        return done.code, done.out + done.err


@pytest.fixture
def shared(host: Host, tmp_path: Path) -> Iterator[Shared]:
    made = Shared(host, tmp_path / "rw", tmp_path / "ro", tmp_path / "outside")
    for folder in (made.rw, made.ro, made.outside):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    host.docker(
        *("run", "-d", "--name", "root", "--privileged", "-v", f"{made.rw}:/rw"),
        *("-v", f"{made.ro}:/ro:ro", "-v", "named:/vol", "busybox", "sleep", "10000"),
    )
    yield made
    host.docker("rm", "-f", "-v", "root")
    host.docker("volume", "rm", "-f", "named")


@pytest.mark.parametrize(
    "attempt",
    [
        "echo x > /ro/file",
        "touch /ro/new",
        "rm /ro/file",
        "mv /ro/file /ro/other",
        "mount -o remount,rw /ro && touch /ro/new",
        "mount --bind /ro /mnt2 && mount -o remount,rw,bind /mnt2 && touch /mnt2/new",
        "mount -t virtiofs share /mnt2 && for d in /mnt2 /mnt2/*; do"
        " [ $(cat $d/file) = ro ] && echo x > $d/file && exit 0; done; exit 1",
        "chmod 777 /ro/file",
        "ln /ro/file /rw/link",
        "setfacl -m u:1:rwx /ro/file",
    ],
)
def test_read_only_is_kept_by_the_host(shared: Shared, attempt: str) -> None:
    shared.sh("mkdir -p /mnt2")
    before = (shared.ro / "file").stat()
    code, _ = shared.sh(attempt)
    assert code != 0, attempt
    assert (shared.ro / "file").read_text() == "ro"
    assert (shared.ro / "file").stat().st_mode == before.st_mode
    assert [p.name for p in shared.ro.iterdir()] == ["file"]


@pytest.mark.parametrize("where", ["/rw", "/vol"])
def test_no_device_file_is_made_on_the_host(shared: Shared, where: str) -> None:
    for kind in ("c 1 1", "b 254 0", "c 10 200"):
        code, _ = shared.sh(f"mknod {where}/node {kind}")
        assert code != 0
    assert shared.sh(f"mkfifo {where}/fifo")[0] == 0  # harmless, and Docker lets it be


def test_a_device_file_of_the_host_cannot_be_opened(shared: Shared) -> None:
    """Opened by the guest's kernel it would be the guest's device; the host's is never reached."""
    os.mknod(shared.rw / "kmsg", 0o020666, os.makedev(1, 11))
    mark = f"forged {time.time()}"
    shared.sh(f"echo '{mark}' > /rw/kmsg")
    with contextlib.suppress(OSError), Path("/dev/kmsg").open("rb", buffering=0) as kernel:
        os.set_blocking(kernel.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while record := kernel.read(8192):
                assert mark.encode() not in record


@pytest.mark.parametrize(
    "target", ["/etc/hostname", "../outside/file", "../../../../../../../etc/hostname", "/proc/1"]
)
def test_links_lead_through_the_guest_alone(shared: Shared, target: str) -> None:
    if target.startswith("../outside"):
        assert (shared.rw / target).resolve().exists()
    shared.sh(f"ln -sf {target} /rw/link")
    _, text = shared.sh("cat /rw/link")
    assert Path("/etc/hostname").read_text() not in (text, text + "\n")
    assert "outside" not in text or "No such file" in text


def test_dots_end_at_the_mount(shared: Shared) -> None:
    _, text = shared.sh("ls /rw/../ /vol/../.. /rw/../../../..")
    assert "outside" not in text


def test_a_race_of_links_and_folders_never_leaves_the_share(shared: Shared) -> None:
    """One loop swaps a folder for a link that points out, another writes beneath that name."""
    code, text = shared.sh(
        f"mkdir /rw/real; ln -s {shared.outside} /rw/bad; cp -r /rw/real /rw/d;"
        " (for i in $(seq 1 300); do mv /rw/d /rw/d1; ln -s ../outside /rw/d; rm /rw/d;"
        " mv /rw/d1 /rw/d; done) &"
        " for i in $(seq 1 300); do echo x > /rw/d/file; echo y > /rw/d/new$i; done 2>/dev/null;"
        " wait; true",
        timeout=120,
    )
    assert code == 0, text
    assert (shared.outside / "file").read_text() == "outside"
    assert [p.name for p in shared.outside.iterdir()] == ["file"]


def test_one_share_does_not_lead_to_another_containers(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "secret").write_text("secret")
    shared.host.docker(
        "run", "-d", "--name", "other", "-v", f"{tmp_path}/theirs:/t", "busybox", "sleep", "1000"
    )
    _, text = shared.sh("mkdir -p /mnt2; mount -t virtiofs share /mnt2; find /mnt2 /mnt2/.. -xdev")
    assert "secret" not in text
    shared.host.docker("rm", "-f", "other")


def test_open_files_are_bounded_and_others_go_on(shared: Shared) -> None:
    shared.host.docker("run", "-d", "--name", "other", "-v", "named:/v", "busybox", "sleep", "1000")
    shared.sh(
        "cd /rw; i=0; while [ $i -lt 3000 ]; do : > f$i; i=$((i+1)); done;"
        " ulimit -n 100000; tail -f f* >/dev/null 2>&1 & sleep 3; true",
        timeout=120,
    )
    assert shared.host.docker("exec", "other", "touch", "/v/works").code == 0
    assert shared.host.ping()
    shared.host.docker("rm", "-f", "other")


def test_the_file_server_is_confined(shared: Shared) -> None:
    """It is uid 0 for the files' sake, with capabilities for files alone, and sees the mounts."""
    pid = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"virtiofsd" in _read(entry / "cmdline")
        and f"{shared.rw}".encode() in _read(entry / "mountinfo")
    )
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    held = int(status["CapEff"], 16)
    forbidden = {2: "DAC_READ_SEARCH", 12: "NET_ADMIN", 19: "SYS_PTRACE", 21: "SYS_ADMIN",
                 17: "SYS_RAWIO", 27: "MKNOD", 16: "SYS_MODULE", 18: "SYS_CHROOT"}  # fmt: skip
    assert [name for bit, name in forbidden.items() if held >> bit & 1] == []
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "1"
    root = Path(f"/proc/{pid}/root")
    assert not (root / "etc" / "shadow").exists()
    assert sorted(p.name for p in (root / "share").iterdir()) == ["m0", "m1", "m2"]
    for name in ("net", "mnt", "pid", "ipc", "uts"):
        assert (root.parent / "ns" / name).readlink() != Path(f"/proc/self/ns/{name}").readlink()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_setuid_file_of_a_guest_is_the_binds_owners_matter(shared: Shared) -> None:
    """As with Docker: root in the container is root on the files. docs/threat-model.md says so."""
    shared.sh("cp /bin/busybox /rw/suid && chmod 4755 /rw/suid")
    found = (shared.rw / "suid").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o4755)
    volume = next((shared.host.data_root / "volumes").iterdir())
    shared.sh("cp /bin/busybox /vol/suid && chmod 4755 /vol/suid")
    # In a volume no other user of the host comes by it.
    assert any(p.stat().st_mode & 0o007 == 0 for p in (volume, *volume.parents[:2]))
