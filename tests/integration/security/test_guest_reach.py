"""What root in a privileged container reaches of the jail that its machine lives in.

hostfs shows a guest the jail's root, whatever folder it names: the jail is the wall (docs/vmm.md).
"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.framework.host import Host

MOUNT = "mkdir -p /h && mount -t hostfs none /h -o / && cd /h && "


@pytest.fixture
def root(host: Host) -> Host:
    host.docker(
        *("run", "-d", "--name", "root", "--privileged", "--runtime", "hyper-uml"),
        *("busybox", "sleep", "10000"),
    )
    return host


def sh(host: Host, command: str) -> tuple[int, str]:
    done = host.docker("exec", "root", "sh", "-c", command, check=False)
    return done.code, done.out + done.err


def disk(host: Host) -> Path:
    (found,) = (host.data_root / "containers").glob("*/disk.img")
    return found


def test_hostfs_shows_the_jail_and_nothing_else(root: Host) -> None:
    for option in ("/", "/../../../..", "/disks/../../..", "/proc/1/root", "/dev/../.."):
        _, names = sh(root, f"mkdir -p /x; mount -t hostfs none /x -o {option} && ls /x; umount /x")
        found = {name for name in names.split() if "/" not in name and name.isalnum()}
        assert found <= {
            "dev", "disks", "guest", "layers", "lib", "lib64", "linux", "proc", "run", "tmp", "uml",
        } or "mount" in names, (option, names)  # fmt: skip
    code, text = sh(root, MOUNT + "find . -type f -o -type s -o -type c -o -type b")
    assert code == 0
    files = sorted(line[2:] for line in text.split())
    allowed = ("lib/", "lib64/", "guest/", "linux", "run/", "layers/", "uml/", "dev/")
    assert [f for f in files if not f.startswith(allowed)] == ["disks/scratch"]
    assert {f for f in files if f.startswith("dev/")} == {"dev/null", "dev/urandom", "dev/net/tun"}
    assert sh(root, MOUNT + "ls proc")[1].strip() == ""


def test_only_its_own_layers_are_there(root: Host) -> None:
    root.docker("run", "--name", "other", "busybox", "sh", "-c", "echo mine > /secret")
    root.docker("commit", "other", "second:latest")
    root.docker("run", "-d", "--name", "two", "second:latest", "sleep", "1000")
    assert len(list((root.data_root / "layers").glob("*.erofs"))) == 2
    assert len(sh(root, MOUNT + "ls layers")[1].split()) == 1
    root.docker("rm", "-f", "two", "other")
    root.docker("rmi", "second:latest")


@pytest.mark.parametrize(
    "attempt",
    [
        "echo x > linux",
        "echo x >> guest/agent",
        "for l in layers/*; do echo x >> $l || exit 1; done",
        "touch -d 2001-01-01 linux",
        "touch disks/new",
        "touch layers/new",
        "touch guest/new",
        "touch dev/new",
        "touch run/new",
        "touch lib/new",
        "rm disks/scratch",
        "rm -f layers/*",
        "mv disks/scratch uml/d",
        "ln disks/scratch uml/hard",
        "ln -s /etc/passwd disks/link",
        "ln -s /etc/passwd uml/link",
        "mkfifo uml/fifo",
        "mknod uml/mem c 1 1",
        "mknod disks/disk b 254 0",
        "chown 0:0 disks/scratch",
        "chmod 4755 disks/scratch",
        "chmod 2755 disks/scratch",
        "truncate -s 1T disks/scratch",
        "dd if=/dev/zero of=disks/scratch bs=1 count=1 seek=10737418240 conv=notrunc",
        "dd if=/dev/zero of=uml/big bs=1k count=100",
        "chmod 777 layers",
        "rmdir uml",
    ],
)
def test_the_jail_refuses(root: Host, attempt: str) -> None:
    code, text = sh(root, MOUNT + attempt)
    assert code != 0, f"{attempt} worked: {text}"


def test_what_it_did_to_its_disk_is_undone_by_the_next_start(root: Host) -> None:
    assert sh(root, MOUNT + "chmod 777 disks/scratch")[0] == 0
    root.docker("stop", "-t", "0", "root")
    size = disk(root).stat().st_size
    root.docker("start", "root")
    found = disk(root).lstat()
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == size


def test_nobody_else_on_the_host_comes_by_its_disk_or_sockets(root: Host) -> None:
    """A guest may open the mode of its disk: the folders above are what keeps others away."""
    for path in (
        disk(root),
        *(root.data_root / "sandboxes").glob("*/disks/*"),
        *(root.exec_root / "sandboxes").glob("*/*"),
    ):
        # Not of the test's own folders: of those that the daemon has made for this sandbox.
        assert any(p.stat().st_mode & 0o007 == 0 for p in list(path.parents)[:2]), path
        assert path.lstat().st_mode & stat.S_ISUID == 0


def test_a_panic_ends_the_container_and_its_machine(root: Host) -> None:
    pid = int(root.docker("inspect", "-f", "{{.State.Pid}}", "root").out)
    root.docker("exec", "root", "sh", "-c", "echo c > /proc/sysrq-trigger", check=False)
    assert root.docker("wait", "root", timeout=30).out.strip() == "137"
    error = root.docker("inspect", "-f", "{{.State.Error}}", "root").out
    assert "panic" in error
    assert all(c in "\n\t" or c.isprintable() for c in error)
    assert not Path(f"/proc/{pid}/root").exists()


@pytest.mark.parametrize("flags", [(), ("--privileged",)], ids=["plain", "privileged"])
def test_no_service_of_the_host_or_the_engine_is_reached(host: Host, flags: tuple[str]) -> None:
    """The gateway, the agent's link on both sides, metadata; the daemon's namespace listens."""
    host.inside("sh", "-c", "for p in 22 1024 2375; do nc -l -k -p $p </dev/null & done; sleep 0.2")
    command = (
        "for a in $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') 169.254.77.1"
        " 169.254.77.2 169.254.169.254; do for p in 22 80 1024 2375; do"
        " nc -w 1 $a $p </dev/null >/dev/null 2>&1 && echo open $a $p; done; done; echo done"
    )
    assert host.docker("run", "--rm", *flags, "busybox", "sh", "-c", command).out == "done\n"
    host.inside("sh", "-c", "for p in $(pidof nc); do"
                " [ /proc/$p/ns/net -ef /proc/self/ns/net ] && kill $p; done; true")  # fmt: skip


def test_the_agents_own_link_is_not_in_a_container(host: Host) -> None:
    out = host.docker("run", "--rm", "--privileged", "busybox", "ip", "-o", "link").out
    assert "02:48:59:50:00" not in out
    assert len(out.splitlines()) == 2


def test_limits_of_the_host_hold_a_machine(root: Host) -> None:
    pid = root.docker("inspect", "-f", "{{.State.Pid}}", "root").out.strip()
    limits = Path(f"/proc/{pid}/limits").read_text()
    rows = {line[:25].strip(): line[26:].split()[1] for line in limits.splitlines()[1:]}
    assert int(rows["Max file size"]) == disk(root).stat().st_size
    assert rows["Max core file size"] in ("0", "1")
    assert int(rows["Max processes"]) <= 32768
    daemon = int((root.root / "hyperd.pid").read_text())
    score, ours = (
        int(Path(f"/proc/{p}/oom_score_adj").read_text()) for p in (pid, daemon)
    )  # fmt: skip
    assert score > ours
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    for controller, file, most in (
        ("memory", "memory.limit_in_bytes", 8 << 30),
        ("pids", "pids.max", 40_000),
    ):
        (line,) = [
            line for line in groups.splitlines()
            if controller in line.split(":")[1].split(",") or line.startswith("0::/hyper")
        ][:1]  # fmt: skip
        _, name, path = line.split(":", 2)
        folder = Path("/sys/fs/cgroup") / name / path.lstrip("/")
        value = folder / (file if name else file.replace("limit_in_bytes", "max"))
        assert 0 < int(value.read_text()) <= most
    assert Path(f"/proc/{pid}").stat().st_uid >= 700_000
