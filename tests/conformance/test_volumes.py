"""Volumes as people use them: mounted by the host, shared, filled from images, left behind."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.raw import ask
from tests.framework.host import Host


@pytest.fixture(autouse=True)
def _no_volumes(host: Host) -> Iterator[None]:
    """Leave none, whatever their options."""
    yield
    host.remove_everything()
    if names := host.docker("volume", "ls", "-q").out.split():
        host.docker("volume", "rm", *names)


@pytest.fixture(scope="module")
def filled(shared_host: Host) -> Iterator[str]:
    """An image with files of several kinds at /data, and one with another at the same place."""
    script = (
        "mkdir -p /data/sub; cd /data; echo d > f; chown 5:6 f; ln -s f l; ln f h; mkfifo p; "
        "touch -d '2001-02-03 04:05:06' f; chmod 2750 .; chown 3:4 ."
    )
    for name, words in (("filled", script), ("other", "mkdir /data; echo o > /data/o")):
        shared_host.docker("run", "--name", name, "busybox", "sh", "-c", words)
        shared_host.docker("commit", name, name)
        shared_host.docker("rm", name)
    yield "filled"
    shared_host.docker("rmi", "filled", "other")


def run(host: Host, *words: str) -> str:
    """Run a shell's script, the last word, in busybox; return all that it says."""
    done = host.docker("run", "--rm", *words[:-1], "busybox", "sh", "-c", words[-1], check=False)
    return done.out + done.err


def mounted(host: Host) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if str(host.data_root / "volumes") in line]


def test_a_tmpfs_volume_is_one_file_system_for_all_and_ends_with_the_last(host: Host) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000,mode=700")
    host.docker("volume", "create", *options, "shared")
    writer = ("run", "-d", "--name", "writer", "-v", "shared:/t", "busybox", "sh", "-c",
              "echo one > /t/file; exec sleep 100")  # fmt: skip
    host.docker(*writer)
    look = (
        "until cat /u/file; do sleep 0.1; done 2> /dev/null; stat -c '%u %a' /u; "
        "df -k /u | tail -n 1 | tr -s ' ' | cut -d' ' -f 2; echo two > /u/other"
    )
    seen = run(host, "-v", "shared:/u", look)
    assert seen == "one\n1000 700\n1024\n"
    assert mounted(host) == [str(host.data_root / "volumes" / "shared" / "_data")]
    host.kill()
    host.start()
    assert host.docker("exec", "writer", "cat", "/t/other").out == "two\n"
    assert run(host, "-v", "shared:/u:ro", "cat /u/other; touch /u/x").startswith("two\n")
    host.docker("kill", "writer")
    host.docker("wait", "writer")
    assert mounted(host) == []
    assert run(host, "-v", "shared:/u", "ls -A /u") == ""
    host.kill()
    host.start()
    assert mounted(host) == []


def test_a_volume_shows_a_directory_of_the_host_while_it_is_used(
    host: Host, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("here\n")
    host.docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}",
                "bound")  # fmt: skip
    shown = host.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "bound").out.strip()
    assert shown == str(host.data_root / "volumes" / "bound" / "_data")
    assert run(host, "-v", "bound:/b", "cat /b/f; echo new > /b/g") == "here\n"
    assert (tmp_path / "g").read_text() == "new\n"
    host.docker("volume", "prune", "-a", "-f")  # leaves those with options
    host.docker("volume", "rm", "bound")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "g"]
    host.docker("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o",
                f"device={tmp_path}", "read-only")  # fmt: skip
    assert "Read-only file system" in run(host, "-v", "read-only:/b", "touch /b/h")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=zz"}, "data: size=zz: invalid argument"),
        ({"type": "none", "o": "bind", "device": "/no/such"}, "flags: 0x1000: no such file or"),
        ({"type": "ext4", "device": "/dev/null"}, "the host reads no disk"),
        ({"type": "nfs", "device": ":/x", "o": "addr=no.such.invalid"}, "network volume address"),
    ],
)
def test_what_the_host_cannot_mount_is_said_by_start(
    host: Host, options: dict[str, str], sentence: str
) -> None:
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    host.docker("volume", "create", *words, "broken")
    host.docker("create", "--name", "user", "-v", "broken:/x", "busybox")
    refused = host.docker("start", "user", check=False)
    assert refused.code == 1
    assert sentence in refused.err
    assert mounted(host) == []


def test_a_new_volume_takes_what_the_image_has_there_with_all_its_attributes(
    host: Host, filled: str
) -> None:
    look = "cd /data; stat -c '%n %F %a %u %g %h' . * | sort; stat -c %Y f; readlink l"
    for mode in ("", ":ro"):
        done = host.docker("run", "--rm", "-v", f"fresh{mode[1:]}:/data{mode}", filled, "sh", "-c",
                           look)  # fmt: skip
        assert done.out.splitlines() == [
            ". directory 2750 3 4 3",
            "f regular file 644 5 6 2",
            "h regular file 644 5 6 2",
            "l symbolic link 777 0 0 1",
            "p fifo 644 0 0 1",
            "sub directory 755 0 0 2",
            "981173106",
            "f",
        ]
    assert run(host, "-v", "fresh:/elsewhere", "cat /elsewhere/h") == "d\n"


def test_containers_fill_a_volume_in_the_order_in_which_they_were_made(
    host: Host, filled: str
) -> None:
    host.docker("create", "--name", "data", "-v", "turns:/data", "-v", "/anonymous", filled)
    done = host.docker("run", "--rm", "-v", "turns:/data", "other", "ls", "/data")
    assert done.out.split() == ["f", "h", "l", "p", "sub"]
    assert run(host, "--volumes-from", "data:ro", "cat /data/f; touch /data/x").startswith("d\n")
    host.docker("create", "--name", "empty", "-v", "/data", "busybox")
    done = host.docker("run", "--rm", "--volumes-from", "empty", "other", "ls", "-A", "/data")
    assert done.out == ""
    host.docker("run", "--name", "emptier", "-v", "mine:/data", filled, "sh", "-c",
                "ls /data; rm -r /data/*")  # fmt: skip
    assert host.docker("start", "-a", "emptier", check=False).out == ""  # it is not filled again
    skipped = host.docker("run", "--rm", "-v", "plain:/data:nocopy", filled, "ls", "-A", "/data")
    assert skipped.out == ""


def test_mounts_below_a_bind_follow_their_options(host: Host, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    try:
        (below / "in").touch()
        for option, found in (
            ({}, "in rw rw"),
            ({"BindOptions": {"NonRecursive": True}}, "rw rw"),
            ({"ReadOnly": True}, "in ro ro"),
            ({"ReadOnly": True, "BindOptions": {"ReadOnlyNonRecursive": True}}, "in ro rw"),
        ):
            mount = {"Type": "bind", "Source": str(tmp_path), "Target": "/x", **option}
            script = (
                "cd /x; echo $(ls below) $(for f in . below; do touch $f/t 2> /dev/null && "
                "rm $f/t && echo rw || echo ro; done)"
            )
            status, made = ask(host, "POST", "/containers/create", {
                "Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"Mounts": [mount]},
            })  # fmt: skip
            assert status == 201, made
            assert host.docker("start", "-a", made["Id"], check=False).out == f"{found}\n"
    finally:
        host.remove_everything()
        subprocess.run(["umount", str(below)], check=True)


def test_requests_about_volumes_are_answered_as_by_engine_28(host: Host) -> None:
    create = "/volumes/create"
    anonymous = ask(host, "POST", create, {})[1]
    assert anonymous["Labels"] == {"com.docker.volume.anonymous": ""}
    shown = ask(host, "POST", create, {"Name": "vol", "Labels": {}, "DriverOpts": None})[1]
    assert (shown["Labels"], shown["Options"]) == ({}, None)
    again = {"Name": "vol", "DriverOpts": {"type": "none", "o": "bind", "device": "/tmp"}}
    assert ask(host, "POST", create, again) == (201, shown)
    for body, status, sentence in (
        ({"Name": "x", "Driver": ""}, 400, "create x: volume name is too short"),
        ({"Name": "y" * 256}, 500, "file name too long"),
        ({"Name": "vol", "Driver": "no"}, 404, "create vol: error looking up volume plugin no: pl"),
        (
            {"Name": "vo2", "DriverOpts": {"type": "tmpfs"}},
            400,
            'missing required option: "device"',
        ),
        ({"Name": "vo2", "ClusterVolumeSpec": {}}, 503, "not a swarm manager"),
        ({"Name": "vo3", "ClusterVolumeSpec": {"Group": "g"}}, 503, "not a swarm manager"),
    ):
        found = ask(host, "POST", create, body)
        assert found[0] == status, found
        assert sentence in found[1].get("message", "")
    for filters, status in (
        ('{"dangling":["true"]}', 200), ('{"dangling":["t"]}', 400), ('{"dangling":[]}', 400),
        ('{"label!":["a"]}', 400), ('{"driver":["local","x"]}', 200),
    ):  # fmt: skip
        assert ask(host, "GET", f"/volumes?filters={filters}")[0] == status, filters
    assert ask(host, "GET", "/volumes?filters=x")[1] == {
        "message": "error reading volume filters: invalid filter"
    }
    assert ask(host, "PUT", "/volumes/vol?version=1", {})[0] == 503
    pruned = ask(host, "POST", '/volumes/prune?filters={"label":["none"]}')[1]
    assert pruned == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    assert ask(host, "POST", "/volumes/prune")[1]["VolumesDeleted"] == [anonymous["Name"]]


def test_a_container_that_is_removed_before_its_first_start_leaves_its_volume_filled(
    host: Host, filled: str
) -> None:
    host.docker("create", "--name", "never", "-v", "left:/data", "-v", "/data/sub", filled)
    host.docker("rm", "never")
    assert run(host, "-v", "left:/v", "cat /v/f") == "d\n"


def mount_of(volume: str, path: str) -> dict[str, object]:
    """A body that shows a path in a volume."""
    options = {"Subpath": path}
    mount = {"Type": "volume", "Source": volume, "Target": "/v", "VolumeOptions": options}
    script = "ls /v; touch /v/new && echo writable"
    return {
        "Image": "busybox",
        "Cmd": ["sh", "-c", script],
        "HostConfig": {"Mounts": [mount]},
    }


def test_a_path_in_a_volume_is_all_that_a_container_sees_of_it(host: Host) -> None:
    run(host, "-v", "whole:/v", "mkdir -p /v/a/b; ln -s a /v/in; ln -s /etc /v/out; touch /v/a/f")
    for path, shown in (("a", "b\nf\n"), ("in/b", ""), (".", "a\nin\nout\n"), ("a/..", None)):
        status, made = ask(host, "POST", "/containers/create", mount_of("whole", path))
        assert status == 201, made
        done = host.docker("start", "-a", made["Id"], check=False)
        assert "writable" in done.out, done
        assert shown is None or done.out == f"{shown}writable\n"
        run(host, "-v", "whole:/v", "rm -f /v/new /v/a/new /v/a/b/new")
    for path, status, words in (
        ("out", 400, "path concatenation escapes the base directory"),
        ("a/none/x", 404, "/_data/a/none: no such file or directory"),
    ):
        made = ask(host, "POST", "/containers/create", mount_of("whole", path))[1]
        found = ask(host, "POST", f"/containers/{made['Id']}/start")
        assert found[0] == status, found
        assert words in found[1]["message"]


def test_a_mount_in_proc_is_refused_in_the_words_of_runc(host: Host, tmp_path: Path) -> None:
    for target, words in (
        ("/proc", '"/proc" cannot be mounted because it is not of type proc'),
        ("/proc/x", '"/proc/x" cannot be mounted because it is inside /proc'),
    ):
        done = host.docker("run", "--rm", "-v", f"{tmp_path}:{target}", "busybox", check=False)
        assert words in done.err
    (tmp_path / "told").write_text("7.00 7.00\n")
    assert run(host, "-v", f"{tmp_path}/told:/proc/uptime", "cat /proc/uptime") == "7.00 7.00\n"


def test_a_copy_from_a_container_that_does_not_run_tells_of_its_volumes(host: Host) -> None:
    host.docker("create", "--name", "still", "-v", "told:/x:ro", "busybox")
    begun = time.time()
    host.docker("cp", "still:/x", "-")
    words = '{{.Action}} {{.Actor.ID}} {{index .Actor.Attributes "read/write"}}'
    told = host.docker("events", "--since", str(begun), "--until", str(time.time()), "--filter",
                       "type=volume", "--format", words).out  # fmt: skip
    assert told.split() == ["mount", "told", "false", "unmount", "told"]
