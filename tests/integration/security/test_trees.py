"""``cp``, ``export``, ``diff`` and ``commit`` on trees that a hostile container made."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import Host

MAKE = r"""
cd /; mkdir t; cd t
touch "$(printf 'new\nline')" "$(printf 'esc\033[2J')" "$(printf 'bad\377\376')" ' ' -- '-rf'
ln -s /etc/hostname abs; ln -s ../../../../../../etc/hostname up; ln -s loop loop
ln -s / root; mkfifo fifo; mkdir dir; ln -s dir/../../.. deep
i=0; echo x > farm; while [ $i -lt 500 ]; do ln farm farm$i; i=$((i+1)); done
truncate -s 5G sparse
n=$(printf 'd%.0s' $(seq 1 200))
(for i in $(seq 1 18); do mkdir $n && cd $n || break; done; touch end)
chmod 6777 farm; setfattr -n trusted.overlay.opaque -v y dir 2>/dev/null; true
"""


def names(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture(params=["running", "stopped"])
def tree(request: pytest.FixtureRequest, host: Host) -> Iterator[Host]:
    host.docker("run", "-d", "--name", "tree", "busybox", "sleep", "10000")
    host.docker("exec", "tree", "sh", "-c", MAKE)
    if request.param == "stopped":
        host.docker("stop", "-t", "0", "tree")
    yield host
    host.remove_everything()
    assert "Traceback" not in host.log.read_text()[-20_000:]


def test_links_that_point_out_are_the_guests_when_read(tree: Host, tmp_path: Path) -> None:
    ours = Path("/etc/hostname").read_text()
    for name in ("abs", "up"):
        tree.docker("cp", "-L", f"tree:/t/{name}", str(tmp_path / name), check=False)
        if (tmp_path / name).exists():
            assert (tmp_path / name).read_text() != ours
    out = tree.docker("cp", "tree:/t/root/etc/hostname", "-", check=False).out
    assert ours not in out


def test_links_that_point_out_are_the_guests_when_written(tree: Host, tmp_path: Path) -> None:
    before = names("/"), names("/etc")
    (tmp_path / "planted").write_text("x")
    for target in ("/t/root/", "/t/deep/", "/t/dir/../../../../etc/", "/../../../etc/", "/t/up"):
        tree.docker("cp", str(tmp_path / "planted"), f"tree:{target}", check=False)
    assert (names("/"), names("/etc")) == before


def test_a_tar_whose_names_lead_out_stays_inside(tree: Host) -> None:
    before = names("/"), names(tree.root)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link in (
            ("../../../../planted", tarfile.REGTYPE, ""), ("/planted2", tarfile.REGTYPE, ""),
            ("l", tarfile.SYMTYPE, "/"), ("l/planted3", tarfile.REGTYPE, ""),
            ("h", tarfile.LNKTYPE, "../../../../etc/passwd"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
            tree.docker("cp", "-", "tree:/t", stdin=buffer.getvalue(), check=False)
    assert (names("/"), names(tree.root)) == before


def test_a_hostile_tree_is_told_and_read_whole(tree: Host) -> None:
    assert "/t/abs" in tree.docker("diff", "tree").out
    done = subprocess.run(
        ["docker", "-H", tree.url, "cp", "tree:/t/dir", "-"], capture_output=True, timeout=60
    )
    assert done.returncode == 0
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert all(not m.name.startswith(("/", "..")) for m in tar.getmembers())


def test_an_export_streams_without_taking_the_daemons_memory(tree: Host) -> None:
    """A sparse file of 5 GiB is 5 GiB of zeros in a tar: it must flow, not pile up."""
    pid = (tree.root / "hyperd.pid").read_text()
    with subprocess.Popen(
        ["docker", "-H", tree.url, "export", "tree"], stdout=subprocess.PIPE
    ) as export:
        assert export.stdout is not None
        read = 0
        while read < 300 << 20 and (part := export.stdout.read(1 << 20)):
            read += len(part)
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        export.kill()
    assert resident < 300 << 20
    assert tree.ping()


def test_a_commit_of_it_is_an_image_that_runs(tree: Host) -> None:
    tree.docker("start", "tree")
    tree.docker("exec", "tree", "rm", "/t/sparse")
    tree.docker("commit", "tree", "tree:latest", timeout=120)
    done = tree.docker("run", "--rm", "tree:latest", "sh", "-c", "ls -l /t/farm; ls /bin/busybox")
    assert "rwsrwsrwx" in done.out
    assert "/bin/busybox" in done.out
    tree.docker("rmi", "-f", "tree:latest")


def test_paths_that_no_kernel_takes_are_one_sentence(tree: Host) -> None:
    tree.docker("start", "tree")
    deep = (
        "n=$(printf 'd%.0s' $(seq 1 200)); cd /t;"
        " for i in $(seq 1 40); do mkdir -p $n && cd $n || break; done; true"
    )
    tree.docker("exec", "tree", "sh", "-c", deep)
    for words in (("diff", "tree"), ("commit", "tree", "tree:latest")):
        done = tree.docker(*words, check=False, timeout=60)
        assert done.code != 0
        assert len(done.err) < 10_000
        assert done.err.strip().isprintable()
