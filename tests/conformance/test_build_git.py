"""Contexts that are git repositories, by ``remote=``: from real git servers beside the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.test_build import posted
from tests.framework import gitserver
from tests.framework.host import Host

FAR = "198.51.100.7"
"""An address that is not near, though it is this namespace's."""
WEB, GIT = 8092, 9418
A_NEW = "e09c9bebcb6c5adac51812e36ab006b1f5d9fa8e43cd1d18bdc474b8564e72ef"
SUB = "777399e7448f5d4ded8809a5bd5c75713b7254231063047aa756cdc5f7bf7b1c"
"""Checksums of the same files in the same context, from the history of dockerd 28.5."""
_WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}  # fmt: skip


def _git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words],
        cwd=folder, env={**os.environ, **_WHO}, check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def _commit(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "x")


def _published(source: Path, name: str) -> None:
    made = source.parent / f"{name}.git"
    _git(source.parent, "clone", "-q", "--bare", str(source), str(made))
    (made / "git-daemon-export-ok").touch()
    _git(made, "update-server-info")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repositories")
    one = root / "one"
    _git(root, "init", "-q", "-b", "master", "one")
    (one / "sub").mkdir()
    (one / "sub" / "b").write_text("yo\n")
    (one / "sub" / "b").chmod(0o755)
    (one / "evil").symlink_to("/etc")
    (one / "link").symlink_to("sub")
    _commit(
        one,
        a="hi\n",
        Dockerfile="FROM scratch\nCOPY a /a\nCOPY sub /sub/\n",
        sub__Dockerfile="FROM scratch\nCOPY b /b\nCOPY . /all/\n",
    )
    _git(one, "tag", "v1")
    _commit(one, a="newest\n")
    _git(one, "checkout", "-q", "-b", "side", "v1")
    _commit(one, Dockerfile="FROM scratch\nCOPY . /\nLABEL where=side\n")
    _git(one, "checkout", "-q", "master")
    _published(one, "one")
    for name, url in (("super", "../one.git"), ("near", f"http://127.0.0.1:{WEB}/smart/one.git")):
        _git(root, "init", "-q", "-b", "master", name)
        _git(root / name, "submodule", "add", str(root / "one.git"), "mod")
        _git(root / name, "config", "-f", ".gitmodules", "submodule.mod.url", url)
        _commit(root / name, Dockerfile="FROM scratch\nCOPY mod/a /a\n")
        _published(root / name, name)
    return root


@pytest.fixture(scope="module")
def servers(shared_host: Host, repositories: Path) -> Iterator[None]:
    enter = shared_host.netns.enter
    shared_host.inside("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    web = [*enter, sys.executable, gitserver.__file__, str(repositories)]
    commands = [[*web, address, str(WEB)] for address in ("127.0.0.1", FAR)]
    commands.append(
        [*enter, "git", "daemon", "--verbose", f"--base-path={repositories}", "--reuseaddr",
         "--listen=127.0.0.1", f"--listen={FAR}", "--log-destination=stderr"]
    )  # fmt: skip
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        for command in commands
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline()
    yield
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)  # git's daemon is a child of git's
        process.communicate()
    shared_host.inside("ip", "address", "del", f"{FAR}/32", "dev", "lo")


@pytest.fixture(autouse=True)
def _servers(host: Host, servers: None) -> Iterator[None]:
    yield
    assert list((host.data_root / "tmp").iterdir()) == []
    for image in host.docker("images", "-q", "--filter", "reference=built*").out.split():
        host.docker("rmi", "-f", image, check=False)


def fetched(host: Host, remote: str) -> tuple[int, str]:
    """Build; return the status, and the error or what was built's history."""
    with posted(host, b"", {"remote": remote, "t": "built"}) as answer:
        data = answer.read()
    if answer.status != 200:
        return answer.status, str(json.loads(data)["message"])
    errors = [line["error"] for line in map(json.loads, data.splitlines()) if "error" in line]
    if errors:
        return 200, errors[0]
    words = ("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built")
    return 200, host.docker(*words).out


@pytest.mark.parametrize(
    "server",
    [f"http://127.0.0.1:{WEB}/smart", f"http://127.0.0.1:{WEB}", "git://127.0.0.1", f"git://{FAR}"],
    ids=["smart", "dumb", "git", "git-by-another-address"],
)
def test_a_repository_is_a_context_by_every_protocol(host: Host, server: str) -> None:
    status, history = fetched(host, f"{server}/one.git")
    assert status == 200
    assert f"COPY file:{A_NEW} in /a" in history, history
    assert f"COPY dir:{SUB} in /sub/" in history


def test_the_fragment_chooses_ref_and_folder(host: Host) -> None:
    server = "git://127.0.0.1/one.git"
    assert "LABEL where=side" in fetched(host, f"{server}#side")[1]
    assert "in /all/" in fetched(host, f"{server}#v1:sub")[1]
    assert "in /all/" in fetched(host, f"{server}#:link")[1]
    assert f"file:{A_NEW}" not in fetched(host, f"{server}#v1")[1]
    assert "LABEL where=side" in fetched(host, f"{server}#refs/heads/side")[1]


def test_the_tree_has_its_git_folder_and_no_credentials(host: Host) -> None:
    status, history = fetched(host, f"http://u:p%20w@127.0.0.1:{WEB}/auth/one.git#side")
    assert status == 200, history
    container = host.docker("create", "built", "x").out.strip()
    tar = subprocess.run(
        ["docker", "-H", host.url, "cp", f"{container}:/.git", "-"],
        capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert b"ref: refs/heads/side" in tar
    assert f"url = http://127.0.0.1:{WEB}/auth/one.git".encode() in tar
    assert b"p%20w" not in tar
    assert "p%20w" not in host.log.read_text()
    status, words = fetched(host, f"http://127.0.0.1:{WEB}/auth/one.git")
    assert status == 500
    assert words == (
        f"error fetching: fatal: could not read Username for 'http://127.0.0.1:{WEB}': No such "
        "device or address\n: exit status 128"
    )


@pytest.mark.parametrize(
    ("remote", "words"),
    [
        ("git://127.0.0.1/one.git#no", "error fetching: fatal: couldn't find remote ref no\n: "),
        ("git://127.0.0.1/none.git", "fatal: remote error: access denied or repository not exp"),
        ("git://127.0.0.1:1/x", "unable to connect to 127.0.0.1:\n127.0.0.1[0: 127.0.0.1]: errno="
         "Connection refused\n\n: exit status 128"),
        (f"http://127.0.0.1:{WEB}/smart/none.git", f"fatal: repository 'http://127.0.0.1:{WEB}/"
         "smart/none.git/' not found\n: exit status 128"),
        ("http://127.0.0.1:1/x.git", "Failed to connect to 127.0.0.1 port 1 after "),
        ("git@127.0.0.1:x", "ssh: connect to host 127.0.0.1 port 22: Connection refused\r\nfatal"),
        ("git://127.0.0.1/one.git#:evil", "/etc: no such file or directory"),
        ("git://127.0.0.1/one.git#:a", "error setting git context, not a directory: "),
        ("git://127.0.0.1/one.git#:../..", '"../.." not within git root: evalSymlinksInScope: '),
        ("git://127.0.0.1/one.git#--x", "invalid refspec: --x"),
    ],
)  # fmt: skip
def test_what_can_not_be_had_is_told_in_gits_words(host: Host, remote: str, words: str) -> None:
    status, found = fetched(host, remote)
    assert status == 500
    assert words in found


def test_submodules_come_along(host: Host) -> None:
    for server in ("git://127.0.0.1", f"http://127.0.0.1:{WEB}/smart", f"http://127.0.0.1:{WEB}"):
        status, history = fetched(host, f"{server}/super.git")
        assert status == 200, history
        assert "in /a" in history, history


def test_a_stranger_leads_nobody_to_this_host(host: Host) -> None:
    """Neither by a submodule nor by a redirect, unless the client's own address is near."""
    assert fetched(host, "git://127.0.0.1/near.git")[0] == 200
    status, words = fetched(host, f"git://{FAR}/near.git")
    assert status == 500
    assert words.startswith("error initializing submodules: ")
    assert "SOCKS" in words
    status, words = fetched(host, f"http://{FAR}:{WEB}/to/127.0.0.1:{WEB}/smart/one.git")
    assert status == 500
    assert "127.0.0.1 leads to this host" in words
    assert fetched(host, f"http://127.0.0.1:{WEB}/to/{FAR}:{WEB}/smart/one.git")[0] == 200


def _gits(host: Host) -> list[str]:
    uid = 700_000 + 70_000 * host.number + 65_000 - 2
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return [words for words in found if words]


def _until(true: object, seconds: float = 20.0) -> None:
    assert callable(true)
    bound = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < bound
        time.sleep(0.05)


def test_git_ends_with_the_client_and_with_the_daemon(host: Host) -> None:
    query = {"remote": f"http://127.0.0.1:{WEB}/hang/x.git"}

    def begun() -> bool:
        return any("git" in words and "fetch" in words for words in _gits(host))

    for end in ("client", "daemon"):
        process = subprocess.Popen(
            [*host.netns.enter, "curl", "-sN", "--unix-socket", str(host.socket), "-X", "POST",
             f"http://d/v1.51/build?remote={query['remote']}"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _until(begun)
        if end == "daemon":
            host.kill()
        process.kill()
        process.wait()
        _until(lambda: not _gits(host))
        if end == "daemon":
            host.start()
        _until(lambda: list((host.data_root / "tmp").iterdir()) == [])
