"""Builds by the real docker CLI and by the API as it is: output, history, files, cache, ends."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.framework.host import DOCKER, Host, Result
from tests.unit.build.tars import Files, context

BASE: dict[str, str | tuple[str] | None] = {
    "a": "hi\n",
    "b": "yo\n",
    "d": None,
    "d/s": None,
    "d/s/c": "z",
    "d/f": "f",
    "l": ("a",),
}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(str(self._path))


@contextlib.contextmanager
def posted(
    host: Host, body: bytes, query: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Send a build and give its answer, of which nothing was read yet."""
    connection = _Connection(host.socket)
    with contextlib.closing(connection):
        target = f"/v1.51/build?{urlencode(query or {})}"
        connection.request("POST", target, body, {"Content-Type": "application/x-tar"})
        with connection.getresponse() as answer:
            yield answer


def sent(text: str, files: Files | None = None) -> bytes:
    """Return the context of a Dockerfile."""
    return context({**BASE, **(files or {}), "Dockerfile": text})


def build(host: Host, text: str, files: Files | None = None, **query: str) -> tuple[str, str]:
    """Build; return the text that a terminal shows, and the error or the image's id."""
    with posted(host, sent(text, files), query) as answer:
        data = answer.read()
    assert answer.status == 200, data
    lines = [json.loads(line) for line in data.splitlines() if line]
    shown = "".join(line.get("stream", "") for line in lines)
    error = "".join(line.get("error", "") for line in lines)
    ids = [line["aux"]["ID"] for line in lines if "aux" in line]
    return shown, error or (ids[-1] if ids else "")


def cli(host: Host, *args: str, stdin: bytes = b"", check: bool = True) -> Result:
    done = subprocess.run(
        [DOCKER, "-H", host.url, "build", *args],
        input=stdin,
        capture_output=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": str(host.root), "DOCKER_BUILDKIT": "0"},
    )
    result = Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())
    assert result.code == 0 or not check, result
    return result


@pytest.fixture(autouse=True)
def _clean(host: Host) -> Iterator[None]:
    yield
    host.remove_everything()
    for image in host.docker("images", "-q", "--filter", "reference=built*").out.split():
        host.docker("rmi", "-f", image, check=False)
    host.docker("image", "prune", "-f")


def test_the_cli_builds_runs_and_finds_its_cache_again(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hi\n")
    (tmp_path / "Dockerfile").write_text(
        'FROM busybox\nRUN echo made > /x\nCOPY a /a\nCMD ["cat", "/x", "/a"]\n'
    )
    first = cli(host, "-t", "built:1", "-t", "built:2", str(tmp_path)).out
    assert "Step 2/4 : RUN echo made > /x\n ---> Running in " in first
    assert " ---> Removed intermediate container " in first
    assert first.splitlines()[-2:] == [
        "Successfully tagged built:1",
        "Successfully tagged built:2",
    ]
    assert host.docker("run", "--rm", "built:1").out == "made\nhi\n"
    assert cli(host, str(tmp_path)).out.count(" ---> Using cache\n") == 3
    (tmp_path / "a").write_text("other\n")
    changed = cli(host, "-q", "-t", "built:1", str(tmp_path)).out
    assert changed.startswith("sha256:")
    assert host.docker("run", "--rm", "built:1").out == "made\nother\n"
    shown = [line.split() for line in host.docker("images", "built").out.splitlines()[1:]]
    assert {(line[0], line[1]) for line in shown} == {("built", "1"), ("built", "2")}


def test_history_is_that_of_the_classic_builder(host: Host) -> None:
    text = (
        "FROM busybox\nARG X=1\nRUN echo $X > /x\nWORKDIR /w\nCOPY d ./d\n"
        'ENV A=b\nEXPOSE 80\nCMD ["sh"]\nMAINTAINER me'
    )
    _, image = build(host, text, t="built")
    steps = host.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Size}}", "built")
    lines = steps.out.splitlines()
    assert lines[:8] == [
        "/bin/sh -c #(nop)  MAINTAINER me|0B",
        '/bin/sh -c #(nop)  CMD ["sh"]|0B',
        "/bin/sh -c #(nop)  EXPOSE 80|0B",
        "/bin/sh -c #(nop)  ENV A=b|0B",
        "/bin/sh -c #(nop) COPY dir:"
        "3cd3bb6a8c177bab2c6bd53b418e8bbc11158f0336b0bea0315ee3ded5da03e6 in ./d |2B",
        "/bin/sh -c #(nop) WORKDIR /w|0B",
        "|1 X=1 /bin/sh -c echo $X > /x|2B",
        "/bin/sh -c #(nop)  ARG X=1|0B",
    ]
    ids = host.docker("history", "--no-trunc", "--format", "{{.ID}}", "built").out.split()
    assert ids[0] == image
    assert all(id_.startswith("sha256:") for id_ in ids)
    removed = host.docker("rmi", "built").out
    assert removed.count("Deleted: ") == 11  # eight images, and three layers of their own


def test_copies_land_where_docker_puts_them(host: Host) -> None:
    text = """FROM busybox
COPY a /one
COPY a b /two/
COPY d /three
COPY l /four/
RUN mkdir /real && ln -s /real /link && ln -s /real/a /file
COPY b /link/
COPY a /file
COPY d/* /five/
COPY --chown=user:users d /six/new
"""
    _, image = build(host, text, t="built")
    assert image.startswith("sha256:"), image
    listed = host.docker(
        "run", "--rm", "built", "sh", "-c",
        "cd / && stat -c '%n %F %u:%g %a' one two/* three three/* four/* real/* five/* six/new "
        "six/new/s/c file link; stat -c %Y one",
    ).out.splitlines()  # fmt: skip
    assert listed == [
        "one regular file 0:0 644",
        "two/a regular file 0:0 644",
        "two/b regular file 0:0 644",
        "three directory 0:0 755",
        "three/f regular file 0:0 644",
        "three/s directory 0:0 750",
        "four/l regular file 0:0 644",
        "real/a regular file 0:0 644",
        "real/b regular file 0:0 644",
        "five/c regular file 0:0 644",
        "five/f regular file 0:0 644",
        "six/new directory 1000:100 755",
        "six/new/s/c regular file 1000:100 644",
        "file symbolic link 0:0 777",
        "link symbolic link 0:0 777",
        "1700000000",
    ]


def test_archives_are_unpacked_by_add_alone(host: Host) -> None:
    files = {"t.tar": context({"in": None, "in/x": "inner"})}
    _, image = build(host, "FROM busybox\nADD t.tar a /to/\nCOPY t.tar /kept\n", files, t="built")
    assert image.startswith("sha256:"), image
    out = host.docker("run", "--rm", "built", "sh", "-c", "cat /to/in/x /to/a; wc -c < /kept").out
    assert out == f"innerhi\n{len(files['t.tar'])}\n"


def test_stages_copy_from_each_other_and_from_images(host: Host) -> None:
    text = """ARG V=latest
FROM busybox:$V AS base
RUN mkdir /o && echo 1 > /o/1 && ln -s 1 /o/2 && chown 5:6 /o/1
FROM scratch
COPY --from=base /o /p/
COPY --from=0 /o/2 /q
COPY --from=busybox /bin/busybox /bin/ls* /bin/
CMD ["/bin/busybox", "ls", "-ln", "/p", "/q", "/bin"]
"""
    shown, image = build(host, text, t="built")
    assert image.startswith("sha256:"), image
    assert "Step 4/8 : FROM scratch\n ---> \n" in shown
    out = " ".join(host.docker("run", "--rm", "built").out.split())
    assert "-rw-r--r-- 1 5 6 2 " in out
    assert " 2 -> 1" in out
    assert " /q " in out
    assert " busybox" in out
    again, _ = build(host, text)
    assert again.count(" ---> Using cache\n") == 5


def test_triggers_run_in_the_next_build(host: Host) -> None:
    build(host, "FROM busybox\nONBUILD COPY a /q\nONBUILD ENV X=1\n", t="built:base")
    shown, image = build(host, "FROM built:base\nRUN cat /q; echo $X\n", t="built:child")
    assert "# Executing 2 build triggers\n" in shown
    assert "\nhi\n1\n" in shown
    inspected = json.loads(host.docker("inspect", image).out)[0]
    assert inspected["Config"]["OnBuild"] is None


def test_arguments_reach_commands_and_unused_ones_are_warned_of(host: Host) -> None:
    text = "FROM busybox\nARG A=1\nARG B\nRUN echo [$A$B$HTTP_PROXY]\n"
    args = json.dumps({"A": "2", "B": "3", "U": "4", "HTTP_PROXY": "p"})
    shown, _ = build(host, text, t="built", buildargs=args)
    assert "\n[23p]\n" in shown
    assert "[Warning] One or more build-args [U] were not consumed\n" in shown
    top = host.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built").out
    assert top.splitlines()[0] == "|2 A=2 B=3 /bin/sh -c echo [$A$B$HTTP_PROXY]"
    again, _ = build(host, text, buildargs=json.dumps({"A": "2", "B": "3", "HTTP_PROXY": "q"}))
    assert again.count(" ---> Using cache\n") == 3
    other, _ = build(host, text, buildargs=json.dumps({"A": "2", "B": "4"}))
    assert other.count(" ---> Using cache\n") == 2


def test_a_failing_command_is_told_with_its_code_and_its_container_stays(host: Host) -> None:
    with posted(host, sent("FROM busybox\nRUN echo out; echo err >&2; exit 7\n")) as answer:
        lines = [json.loads(line) for line in answer.read().splitlines() if line]
    words = "The command '/bin/sh -c echo out; echo err >&2; exit 7' returned a non-zero code: 7"
    assert lines[-1] == {"errorDetail": {"code": 7, "message": words}, "error": words}
    assert {"stream": "\x1b[91merr\n\x1b[0m"} in lines
    assert len(host.docker("ps", "-aq").out.split()) == 1
    host.remove_everything()
    build(host, "FROM busybox\nRUN exit 3\n", forcerm="1")
    assert host.docker("ps", "-aq").out == ""
    build(host, "FROM busybox\nENV A=1\nRUN true\n", rm="0", nocache="1")
    assert len(host.docker("ps", "-aq").out.split()) == 2


@pytest.mark.parametrize(
    ("text", "query", "status", "words"),
    [
        ("FROM x\nFOO y\n", {}, 400, "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM busybox\n", {"version": "2"}, 501, "BuildKit is not supported"),
        ("FROM busybox\n", {"squash": "1"}, 400, "squash is only supported with experimental mode"),
        ("FROM busybox\n", {"remote": "ftp://x"}, 500, "(ftp://x) could not be recognized as URL"),
        ("FROM busybox\n", {"remote": "ssh://x/y.git"}, 500, "could not be recognized as URL"),
        ("FROM busybox\n", {"remote": "client-session"}, 400, "use builder version v2"),
        ("FROM busybox\n", {"t": "A B"}, 500, "invalid reference format"),
        ("FROM busybox AS a\n", {"target": "b"}, 400, 'target stage "b" could not be found'),
        ("FROM busybox\n", {"buildargs": "["}, 400, "reading build args: unexpected end of JSON"),
        (
            "FROM busybox\n",
            {"buildargs": "[]"},
            400,
            "cannot unmarshal array into Go value of type",
        ),
        ("FROM busybox\n", {"platform": "a/b/c/d"}, 400, "cannot parse platform specifier"),
        ("FROM busybox\n", {"isolation": "hyperv"}, 400, 'unsupported isolation: "hyperv"'),
        ("FROM busybox\n", {"dockerfile": "../x"}, 500, "forbidden path outside the build context"),
        ("FROM busybox\nRUN <<E\n", {}, 400, "failed to parse Dockerfile: unterminated heredoc"),
    ],
)
def test_what_can_not_be_built_is_refused_before_anything(
    host: Host, text: str, query: dict[str, str], status: int, words: str
) -> None:
    with posted(host, sent(text), query) as answer:
        assert answer.status == status
        assert words in json.loads(answer.read())["message"]


def test_a_body_that_is_no_tar_is_refused(host: Host) -> None:
    with posted(host, b"no tar" * 200) as answer:
        assert answer.status == 500
        assert "archive/tar: invalid tar header" in json.loads(answer.read())["message"]
    assert list((host.data_root / "tmp").iterdir()) == []


def test_a_build_ends_with_its_client(host: Host) -> None:
    with posted(host, sent("FROM busybox\nRUN echo begun; sleep 300\n")) as answer:
        while b'"begun' not in answer.readline():
            pass
        assert len(host.docker("ps", "-q").out.split()) == 1
    bound = time.monotonic() + 20
    while host.docker("ps", "-aq").out:
        assert time.monotonic() < bound
        time.sleep(0.1)
    assert list((host.data_root / "tmp").iterdir()) == []


def test_a_build_ends_with_its_daemon(host: Host) -> None:
    with posted(host, sent("FROM busybox\nRUN echo begun; sleep 300\n")) as answer:
        while b'"begun' not in answer.readline():
            pass
        host.kill()
    host.start()
    bound = time.monotonic() + 20
    while host.docker("ps", "-aq").out:
        assert time.monotonic() < bound
        time.sleep(0.1)
    assert list((host.data_root / "tmp").iterdir()) == []


def test_a_loaded_image_is_a_cache_by_name(host: Host, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\nCOPY a /a\nENV A=1\nRUN echo 2 > /2\n"
    _, first = build(host, text, t="built")
    archive = tmp_path / "built.tar"
    host.docker("save", "-o", str(archive), "built")
    host.docker("rmi", "built")
    host.docker("image", "prune", "-f")
    host.docker("load", "-i", str(archive))
    without, _ = build(host, text, target="")
    assert " ---> Using cache" not in without
    shown, second = build(host, text, cachefrom='["built", "nosuch"]')
    assert shown.count(" ---> Using cache\n") == 4
    assert second == first
    shown, _ = build(host, text + "RUN echo 3\n", cachefrom='["built"]')
    assert shown.count(" ---> Using cache\n") == 4


def test_many_builds_at_once_do_not_disturb_each_other(host: Host) -> None:
    def one(n: int) -> str:
        text = f"FROM busybox\nRUN echo {n} > /n\nCOPY a /a\n"
        return build(host, text, t=f"built:{n}")[0]

    with ThreadPoolExecutor(4) as pool:
        assert all("Successfully tagged" in shown for shown in pool.map(one, range(4)))
    for n in range(4):
        assert host.docker("run", "--rm", f"built:{n}", "cat", "/n").out == f"{n}\n"


def test_limits_hold_for_the_steps(host: Host) -> None:
    text = (
        "FROM busybox\n"
        "RUN cat /sys/fs/cgroup/memory.max; df -k /dev/shm | tail -1; cat /etc/hosts\n"
    )
    shown, _ = build(
        host, text, memory=str(64 << 20), shmsize=str(32 << 20), extrahosts="me:1.2.3.4"
    )
    assert f"\n{64 << 20}\n" in shown
    assert " 32768 " in shown
    assert "1.2.3.4\tme" in shown
    shown, _ = build(host, "FROM busybox\nRUN ls /sys/class/net\n", networkmode="none")
    assert "eth0" not in shown


HELLO = "619268f122a5dcadc7549ed7e787ed1aa7293d862af190a571b5efa88ea95e4b"


@pytest.fixture
def site(host: Host, tmp_path: Path) -> Iterator[str]:
    """A folder with files, served where the daemon is; the address of its HTTP server."""
    (tmp_path / "a.txt").write_text("hello\n")
    os.utime(tmp_path / "a.txt", (1_500_000_000, 1_500_000_000))
    (tmp_path / "plain").write_text("FROM busybox\nENV PLAIN=1\n")
    packed = gzip.compress(sent("FROM busybox\nCOPY a d/f /x/\n"))
    (tmp_path / "context.tar.gz").write_bytes(packed)
    server = subprocess.Popen(
        [
            *host.netns.enter,
            *(sys.executable, "-u", "-m", "http.server", "-b", "127.0.0.1", "-d", tmp_path, "8091"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with server:
        assert server.stdout is not None
        server.stdout.readline()
        yield "http://127.0.0.1:8091"
        server.terminate()


def test_add_fetches_what_is_named_by_an_address(host: Host, site: str) -> None:
    text = f"FROM busybox\nADD {site}/a.txt /one\nADD a {site}/a.txt {site}/context.tar.gz /dir/\n"
    _, image = build(host, text, t="built")
    assert image.startswith("sha256:"), image
    history = host.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built").out
    # The checksum was read from a real engine's history of the same file.
    assert f"/bin/sh -c #(nop) ADD {HELLO} in /one " in history
    found = host.docker("run", "--rm", "built", "stat", "-c", "%a %u:%g %Y", "/one", "/dir/a.txt")
    assert found.out == "600 0:0 1500000000\n" * 2
    names = host.docker("run", "--rm", "built", "ls", "/dir").out
    assert names == "a\na.txt\ncontext.tar.gz\n"
    again, _ = build(host, text)
    assert again.count(" ---> Using cache\n") == 2
    _, error = build(host, f"FROM busybox\nADD {site}/none /x\n")
    assert error.startswith(f"ADD failed: failed to GET {site}/none with status 404 File not found")
    _, error = build(host, f"FROM busybox\nADD {site}/ /x/\n")
    assert error == f"ADD failed: cannot determine filename for source {site}/"
    assert list((host.data_root / "tmp").iterdir()) == []


def test_a_context_or_a_dockerfile_can_be_elsewhere(host: Host, site: str) -> None:
    def remote(name: str) -> tuple[int, bytes]:
        with posted(host, b"", {"remote": f"{site}/{name}", "t": "built"}) as answer:
            return answer.status, answer.read()

    status, lines = remote("context.tar.gz")
    assert status == 200
    assert b"Successfully tagged built" in lines
    assert host.docker("run", "--rm", "built", "cat", "/x/a", "/x/f").out == "hi\nf"
    assert b"Successfully tagged built" in remote("plain")[1]
    assert host.docker("run", "--rm", "built", "env").out.count("PLAIN=1") == 1
    status, lines = remote("none")
    assert status == 404
    assert b"error downloading remote context" in lines


def test_each_step_has_its_own_layer_and_one_that_changes_nothing_has_none(host: Host) -> None:
    build(
        host,
        "FROM busybox\nRUN true\nCOPY a /1/a\nENV A=1\nADD b /1/b\nWORKDIR /1/w\nCOPY d/f ../a\n"
        "COPY d/f /1/a\nWORKDIR /etc\nADD a w/x\nADD a /1/w/y\n",
        t="built",
    )
    archive = subprocess.run(
        [DOCKER, "-H", host.url, "save", "built"], capture_output=True, check=True, timeout=60
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (manifest,) = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        found = []
        for name in manifest["Layers"][1:]:
            with tarfile.open(fileobj=tar.extractfile(name)) as layer:
                found.append(layer.getnames())
    # A file that is copied again is a layer again, as with dockerd.
    assert found == [
        ["1", "1/a"],
        ["1", "1/b"],
        ["1", "1/w"],
        ["1", "1/a"],
        ["1", "1/a"],
        ["etc", "etc/w", "etc/w/x"],
        ["1", "1/w", "1/w/y"],
    ]
    assert host.docker("run", "--rm", "built", "cat", "/1/a").out == "f"


def test_here_documents_are_passed_over_as_by_the_classic_builder(host: Host) -> None:
    shown, error = build(host, "FROM busybox\nRUN <<EOF\nexit 3\nEOF\nCOPY <<E /x\nhi\nE\n")
    assert "Step 2/3 : RUN <<EOF\n" in shown
    assert error == "COPY failed: no source files were specified"


def test_events_are_those_of_dockerd(host: Host) -> None:
    """A container for each step but COPY; an image that is told of for each but COPY."""
    begin = f"{time.time():.9f}"
    build(host, "FROM busybox\nENV A=events\nCOPY a /a\nVOLUME /v\nRUN true\n", t="built")
    build(host, "FROM busybox\nENV A=events\nCOPY a /a\n")
    end = f"{time.time():.9f}"
    events = host.docker(
        "events", "--since", begin, "--until", end, "--format", "{{.Type}} {{.Action}}"
    ).out.splitlines()
    step = ["container create", "image create", "container destroy"]
    volume = ["volume create", *step[:2], "volume destroy", step[2]]
    start = ["volume create", "container create", "container attach", "volume mount"]
    run = ["network connect", "container start", "network disconnect", "volume unmount"]
    ended = ["container die", "image create", "volume destroy", "container destroy", "image tag"]
    assert events == [*step, *volume, *start, *run, *ended]
    assert host.docker("ps", "-aq").out == ""


def test_a_number_without_a_unit_is_no_duration(host: Host) -> None:
    for text, words in (("5", 'missing unit in duration "5"'), ("5x", 'unknown unit "x" in dur')):
        with posted(host, sent(f"FROM busybox\nHEALTHCHECK --interval={text} CMD a\n")) as answer:
            assert words in json.loads(answer.read())["message"]


def test_a_build_that_ends_at_any_moment_leaves_no_container(host: Host) -> None:
    text = "FROM busybox\nENV A=1\nRUN true\nENV B=1\nWORKDIR /w\nCOPY a /a\nRUN true\n"

    def cut(tenths: int) -> None:
        connection = _Connection(host.socket)
        with contextlib.closing(connection):
            connection.request("POST", "/v1.51/build?nocache=1", sent(text))
            time.sleep(tenths / 10)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(cut, range(1, 16)))
    bound = time.monotonic() + 30
    while host.docker("ps", "-aq").out or list((host.data_root / "tmp").iterdir()):
        assert time.monotonic() < bound, host.docker("ps", "-a").out
        time.sleep(0.1)
