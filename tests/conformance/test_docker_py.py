"""docker-py, at the newest API version and at old ones."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests.framework.host import Host

# docker-py leaves the sockets of its streams to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["auto", "1.41", "1.25"])
def client(host: Host, request: pytest.FixtureRequest) -> Iterator[Any]:
    found = docker.DockerClient(base_url=host.url, version=request.param, timeout=60)
    yield found
    found.close()


def test_run_returns_the_output(client: Any) -> None:
    out = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True,
                                stderr=True)  # fmt: skip
    assert sorted(out.split()) == [b"err", b"out"]


def test_a_failing_command_is_an_exception_with_its_code(client: Any) -> None:
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    assert caught.value.exit_status == 3


def test_exec_output_is_never_lost(client: Any) -> None:
    container = client.containers.run("busybox", ["sleep", "60"], detach=True)
    for number in range(10):
        assert container.exec_run(f"echo {number}").output == f"{number}\n".encode()
    code, (out, err) = container.exec_run(["sh", "-c", "echo a; echo b >&2; exit 4"], demux=True)
    assert (code, out, err) == (4, b"a\n", b"b\n")
    missing = container.exec_run("nothing")
    assert missing.exit_code in (126, 127)
    assert b"executable file not found in $PATH" in missing.output


def test_attach_gives_the_log_and_the_stream(client: Any) -> None:
    container = client.containers.run("busybox", ["cat"], detach=True, stdin_open=True)
    attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    attached._sock.sendall(b"hello\n")
    time.sleep(0.5)
    assert attached._sock.recv(100).endswith(b"hello\n")
    attached.close()
    assert container.logs() == b"hello\n"
    assert container.attach(logs=True, stream=False) == b"hello\n"


def test_archives_go_in_compressed_and_come_out(client: Any) -> None:
    container = client.containers.run("busybox", ["sleep", "60"], detach=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("f.txt")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    assert container.put_archive("/tmp", buffer.getvalue())
    chunks, stat = container.get_archive("/tmp/f.txt")
    assert (stat["name"], stat["size"], stat["mode"]) == ("f.txt", 3, 0o644)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        member = tar.extractfile("f.txt")
        assert member is not None
        assert member.read() == b"abc"


def test_the_verbs_and_what_inspect_says(client: Any) -> None:
    container = client.containers.run("busybox", ["sleep", "60"], detach=True, name="verbs")
    assert container.stats(stream=False)["name"] == "/verbs"
    assert container.top()["Titles"][:2] == ["UID", "PID"]
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("verbs2")
    container.update(mem_limit="64m", memswap_limit="128m")
    container.reload()
    assert container.name == "verbs2"
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    container.kill()
    assert container.wait()["StatusCode"] == 137
    assert client.containers.list(all=True, filters={"id": container.id}) == [container]


def test_images_are_committed_saved_and_loaded(client: Any) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo x > /y"], detach=True)
    container.wait()
    image = container.commit("pyimage", "one")
    assert image.tags == ["pyimage:one"]
    data = b"".join(image.save(named=True))
    container.remove()
    client.images.remove("pyimage:one")
    (loaded,) = client.images.load(data)
    assert loaded.id == image.id
    client.images.remove(loaded.tags[0])


def test_errors_are_typed(client: Any) -> None:
    with pytest.raises(docker.errors.NotFound, match="No such container: zz"):
        client.containers.get("zz")
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("no-such-image")
    with pytest.raises(docker.errors.APIError, match="connection refused"):
        client.images.pull("127.0.0.1:1/none", tag="x")


def test_networks_and_volumes(client: Any) -> None:
    network = client.networks.create("pynet", labels={"a": "b"})
    assert client.networks.list(filters={"label": "a=b"}) == [network]
    network.remove()
    volume = client.volumes.create("pyvolume", labels={"a": "b"})
    assert client.volumes.list(filters={"label": "a"}) == [volume]
    volume.remove()


def test_events_are_seen_as_they_happen(client: Any) -> None:
    started = int(time.time())
    container = client.containers.run("busybox", ["true"], detach=True)
    container.wait()
    container.remove()
    actions = [
        event["Action"]
        for event in client.events(
            since=started, until=int(time.time()) + 1, decode=True, filters={"type": "container"}
        )
        if event["Actor"]["ID"] == container.id
    ]
    assert actions == ["create", "start", "die", "destroy"]
