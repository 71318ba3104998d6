"""The docker CLI from elsewhere: contexts, mutual TLS with right and wrong papers, ssh."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.host import DOCKER, Host, Result, running_host
from tests.framework.pki import make_pki

SSHD_TREE = Path(__file__).parents[2] / ".cache" / "packages" / "sshd"
TCP = "tcp://127.0.0.1:2376"


class Client:
    """A user's docker CLI with a home of its own, in the engine's network namespace."""

    def __init__(self, host: Host, home: Path) -> None:
        self.host = host
        self.home = home
        home.mkdir()
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}

    def __call__(self, *words: str, **environment: str) -> Result:
        return self.fed(b"", *words, **environment)

    def fed(self, stdin: bytes, *words: str, **environment: str) -> Result:
        done = subprocess.run(
            [*self.host.netns.enter, DOCKER, *words],
            input=stdin,
            capture_output=True,
            timeout=60,
            env=self.environment | environment,
        )
        return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Path]]:
    """A daemon that listens on TCP with mutual TLS, and the folder of its certificates."""
    root = tmp_path_factory.mktemp("remote")
    papers = make_pki(root / "pki")
    flags = [
        "-H", TCP, "--tlsverify", "--tlscacert", str(papers / "ca.pem"),
        "--tlscert", str(papers / "server-cert.pem"), "--tlskey", str(papers / "server-key.pem"),
    ]  # fmt: skip
    with running_host(root / "h", 3, flags) as host:
        yield host, papers


def _papers(folder: Path, *, ca: Path | None = None) -> list[str]:
    return [
        "--tlscacert", str((ca or folder) / "ca.pem"),
        "--tlscert", str(folder / "cert.pem"), "--tlskey", str(folder / "key.pem"),
    ]  # fmt: skip


def test_mutual_tls_lets_in_who_has_the_right_papers_only(
    remote: tuple[Host, Path], tmp_path: Path
) -> None:
    host, papers = remote
    other = make_pki(tmp_path / "other")
    docker = Client(host, tmp_path / "home")
    ask = ("version", "--format", "{{.Server.Os}}")
    assert docker("-H", TCP, "--tlsverify", *_papers(papers), *ask).out == "linux\n"
    by_environment = {"DOCKER_HOST": TCP, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(papers)}
    assert docker(*ask, **by_environment).out == "linux\n"
    stranger = docker("-H", TCP, "--tlsverify", *_papers(other, ca=papers), *ask)
    assert (stranger.code, stranger.out) == (1, "\n")
    assert "tls: unknown certificate authority" in stranger.err
    impostor = docker("-H", TCP, "--tlsverify", *_papers(papers, ca=other), *ask)
    assert impostor.code == 1
    assert "certificate signed by unknown authority" in impostor.err
    endpoint = f"host={TCP},ca={papers}/ca.pem"
    assert docker("context", "create", "nobody", "--docker", endpoint).code == 0
    nobody = docker("--context", "nobody", *ask)
    assert nobody.code == 1
    assert "certificate required" in nobody.err
    assert "Client sent an HTTP request to an HTTPS server" in docker("-H", TCP, *ask).err


def test_contexts_name_engines(remote: tuple[Host, Path], tmp_path: Path) -> None:
    host, papers = remote
    docker = Client(host, tmp_path / "home")
    described = ("--description", "here")
    assert docker("context", "create", "near", "--docker", f"host={host.url}", *described).code == 0
    endpoint = f"host={TCP},ca={papers}/ca.pem,cert={papers}/cert.pem,key={papers}/key.pem"
    assert docker("context", "create", "far", "--docker", endpoint).code == 0
    assert docker("context", "create", "bare", "--docker", f"host={TCP}").code == 0
    assert docker("context", "use", "far").out == "far\n"
    assert docker("context", "show").out == "far\n"
    docker("volume", "create", "through-far")
    assert docker("--context", "near", "volume", "ls", "-q").out == "through-far\n"
    assert docker("volume", "rm", "through-far", DOCKER_CONTEXT="near").code == 0
    assert docker("volume", "ls", "-q").out == ""
    assert docker("--context", "bare", "ps").code == 1
    listed = docker("context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}} {{.Current}}").out
    assert f"far {TCP} true" in listed
    assert f"near {host.url} false" in listed
    assert docker("context", "export", "far", str(tmp_path / "far.tar")).code == 0
    assert docker("context", "import", "again", str(tmp_path / "far.tar")).code == 0
    assert docker("--context", "again", "info", "-f", "{{.OSType}}").out == "linux\n"
    assert docker("context", "rm", "far").code == 1  # it is in use
    assert docker("context", "use", "default").code == 0
    assert docker("context", "rm", "far", "near", "bare", "again").code == 0


@pytest.fixture
def sshd(remote: tuple[Host, Path], tmp_path: Path) -> Iterator[Path]:
    """A real sshd on loopback that knows one key; gives the folder of the client's ``ssh``.

    It runs in a mount namespace with a user for its privilege separation, which the machine need
    not have.
    """
    host, _ = remote
    for program in ("sshd", "ssh", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: docker over ssh can't be tried")
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(words, check=True)
    users = Path("/etc/passwd").read_text()
    if "\nsshd:" not in users:
        users += "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
    (tmp_path / "passwd").write_text(users)
    path = os.pathsep.join((str(Path(shutil.which(DOCKER) or DOCKER).parent), "/usr/bin", "/bin"))
    (tmp_path / "config").write_text(
        f"Port 2222\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nPermitRootLogin yes\n"
        f"UsePAM no\nPasswordAuthentication no\n"
        f'SetEnv "PATH={path}" "DOCKER_HOST={host.url}"\n'
    )
    script = (
        "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && "
        f"mount --bind {tmp_path}/passwd /etc/passwd && exec sshd -D -e -f {tmp_path}/config"
    )
    libraries = [SSHD_TREE / "usr/lib/x86_64-linux-gnu", SSHD_TREE / "lib/x86_64-linux-gnu"]
    with (tmp_path / "sshd.log").open("wb") as log:
        server = subprocess.Popen(
            [*host.netns.enter, "unshare", "--mount", "--", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                "PATH": f"{os.environ['PATH']}:/usr/sbin",
                "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            },
        )
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin" / "ssh"
    client.write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -F none -i {tmp_path}/user -o LogLevel=ERROR "
        f'-o StrictHostKeyChecking=no -o UserKnownHostsFile={tmp_path}/known "$@"\n'
    )
    client.chmod(0o755)
    try:
        bound = time.monotonic() + 30
        while "Server listening" not in (tmp_path / "sshd.log").read_text():
            if server.poll() is not None or time.monotonic() > bound:
                pytest.skip(f"sshd does not run here: {(tmp_path / 'sshd.log').read_text()[-300:]}")
            time.sleep(0.1)
        yield tmp_path / "bin"
    finally:
        server.terminate()
        server.wait(30)


def test_docker_over_ssh_reaches_the_engine(
    remote: tuple[Host, Path], sshd: Path, tmp_path: Path
) -> None:
    from tests.framework.images import busybox_tar

    host, _ = remote
    host.docker("import", "-", "busybox:latest", stdin=busybox_tar())
    docker = Client(host, tmp_path / "home")
    docker.environment["PATH"] = f"{sshd}:{docker.environment['PATH']}"
    url = "ssh://root@127.0.0.1:2222"
    assert docker("version", "-f", "{{.Server.Os}}", DOCKER_HOST=url).out == "linux\n"
    script = ("sh", "-c", "cat; echo end; exit 4")
    ran = docker.fed(b"in\n", "-H", url, "run", "--rm", "-i", "busybox", *script)
    assert (ran.code, ran.out) == (4, "in\nend\n"), ran.err
    assert docker("context", "create", "shell", "--docker", f"host={url}").code == 0
    (tmp_path / "file").write_text("carried\n")
    far = ("--context", "shell")
    assert docker(*far, "create", "--name", "over", "busybox", "cat", "/tmp/file").code == 0
    assert docker(*far, "cp", str(tmp_path / "file"), "over:/tmp/file").code == 0
    assert docker(*far, "start", "-a", "over").out == "carried\n"
    nowhere = docker("-H", "ssh://root@127.0.0.1:2223", "ps")
    assert nowhere.code == 1
    assert "Connection refused" in nowhere.err
