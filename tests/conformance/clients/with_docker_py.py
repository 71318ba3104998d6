"""docker-py: each method of its models and what of the low-level API they leave out.

The argument is the API version, ``auto`` for the newest that both know.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import EndpointConfig, IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

SLEEP = ["sleep", "60"]


def raises(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    """Check that *call* fails as it should."""
    with pytest.raises(kind, match=re.escape(words)):
        call()


def tar_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Use:
    """One client and what is done with it."""

    def __init__(self, version: str) -> None:
        self.client: Any = docker.from_env(version=version, timeout=120)
        self.api: Any = self.client.api

    def since(self, minor: int) -> bool:
        """Tell whether the API has what came with 1.*minor*."""
        return int(self.api._version.split(".")[1]) >= minor

    def the_system(self) -> None:
        client = self.client
        assert client.ping()
        assert client.version()["Os"] == "linux"
        assert client.info()["OSType"] == "linux"
        if self.since(25):
            assert set(client.df()) >= {"Images", "Containers", "Volumes"}
        raises(docker.errors.APIError, "not a swarm manager", client.services.list)
        raises(docker.errors.APIError, "not a swarm manager", client.nodes.list)
        if self.since(25):
            assert client.plugins.list() == []

    def a_container(self) -> None:
        containers = self.client.containers
        made = containers.create(
            "busybox", SLEEP, name="py-made", labels={"by": "py"}, hostname="named",
            environment={"A": "b"}, mem_limit="64m", cap_add=["NET_ADMIN"], cap_drop=["MKNOD"],
            dns=["10.9.9.9"], extra_hosts={"other": "10.1.1.1"}, tmpfs={"/scratch": "size=1m"},
            ulimits=[Ulimit(name="nofile", soft=100, hard=100)], read_only=False, user="root",
            working_dir="/tmp", shm_size="8m", stop_signal="SIGKILL",
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
            log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m"}),
            healthcheck={"test": ["CMD", "true"], "interval": 200_000_000},
            ports={"80/tcp": ("127.0.0.1", None)}, sysctls={"net.ipv4.ip_forward": "0"},
            **({"init": True} if self.since(25) else {}),
        )  # fmt: skip
        assert made.status == "created"
        made.start()
        made.reload()
        assert made.status == "running"
        assert made.ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
        for command, said in (
            ("hostname", "named"),
            ("pwd", "/tmp"),
            ("sh -c 'echo $A; ulimit -n'", "b\n100"),
            ("sh -c 'grep -c 10.9.9.9 /etc/resolv.conf; grep -c other /etc/hosts'", "1\n1"),
            ("sh -c 'df -k /scratch /dev/shm | tail -n 2 | tr -s \" \" | cut -d\" \" -f 2'",
             "1024\n8192"),
        ):  # fmt: skip
            code, output = made.exec_run(command)
            assert (code, output.decode().strip()) == (0, said), (command, output)
        bound = time.monotonic() + 60
        while made.health != "healthy":
            assert time.monotonic() < bound
            time.sleep(0.1)
            made.reload()
        made.pause()
        made.unpause()
        made.rename("py-renamed")
        made.update(mem_limit="48m", memswap_limit="96m")
        made.restart(timeout=0)
        assert next(made.stats(decode=True))["name"] == "/py-renamed"
        assert "PID" in made.top(ps_args="-o pid,comm")["Titles"]
        made.resize(height=24, width=80)
        assert containers.get("py-renamed").id == made.id
        assert [c.id for c in containers.list(filters={"label": "by=py"})] == [made.id]
        made.stop(timeout=1)
        assert made.wait()["StatusCode"] == 137
        made.remove(v=True)
        raises(docker.errors.NotFound, "No such container", made.reload)
        raises(docker.errors.NotFound, "No such container", lambda: made.remove())

    def output(self) -> None:
        run = self.client.containers.run
        assert run("busybox", "echo hi", remove=True) == b"hi\n"
        parts = run("busybox", ["sh", "-c", "echo a; echo b"], remove=True, stream=True)
        assert b"".join(parts) == b"a\nb\n"
        container = run("busybox", ["sh", "-c", "echo o; echo e >&2; sleep 60"], detach=True)
        lines = container.logs(stream=True, follow=True)
        assert sorted([next(lines), next(lines)]) == [b"e\n", b"o\n"]
        lines.close()
        assert container.logs(stdout=True, stderr=False, timestamps=True)[:2] == b"20"
        assert container.logs(tail=1).strip() in (b"o", b"e")
        assert container.logs(since=int(time.time()) + 100) == b""
        code, stream = container.exec_run(
            ["sh", "-c", "echo 1; echo 2 >&2"], stream=True, demux=True
        )
        assert sorted(filter(None, (part for pair in stream for part in pair))) == [b"1\n", b"2\n"]
        assert code is None
        where = {"workdir": "/tmp", "environment": {"E": "f"}} if self.since(35) else {}
        code, output = container.exec_run("sh -c 'id -u; pwd; echo $E'", user="1000", **where)
        assert (code, output) == (0, b"1000\n/tmp\nf\n" if where else b"1000\n/\n\n")
        made = self.api.exec_create(container.id, "sh", stdin=True, tty=True)["Id"]
        socket = self.api.exec_start(made, tty=True, socket=True)
        raw = getattr(socket, "_sock", socket)
        self.api.exec_resize(made, height=33, width=99)
        raw.sendall(b"stty size; exit 7\n")
        seen = b""
        while part := raw.recv(4096):
            seen += part
        socket.close()
        assert b"33 99" in seen, seen
        found = self.api.exec_inspect(made)
        assert (found["ExitCode"], found["Running"]) == (7, False)
        container.remove(force=True)
        raises(
            docker.errors.ContainerError,
            "returned non-zero exit status 3",
            lambda: run("busybox", ["sh", "-c", "exit 3"], remove=True),
        )
        raises(docker.errors.APIError, "executable file not found", lambda: run("busybox", "nope"))
        raises(docker.errors.ImageNotFound, "", lambda: self.client.containers.create("no-such"))

    def files(self) -> None:
        container = self.client.containers.create("busybox", SLEEP)
        assert container.put_archive("/tmp", tar_of(f="one"))
        assert [(d["Path"], d["Kind"]) for d in container.diff()][-1] == ("/tmp/f", 1)
        chunks, stat = container.get_archive("/tmp/f")
        assert (stat["name"], stat["size"]) == ("f", 3)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            member = tar.extractfile("f")
            assert member is not None
            assert member.read() == b"one"
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
            assert "tmp/f" in tar.getnames()
        image = container.commit("py-commit", "1", message="m", author="a", changes="ENV X=y")
        assert "X=y" in image.attrs["Config"]["Env"]
        container.remove()
        self.client.images.remove("py-commit:1")

    def images(self) -> None:
        images = self.client.images
        with tempfile.TemporaryDirectory() as folder:
            text = 'FROM busybox AS one\nARG W\nRUN echo $W > /w\nFROM one\nCMD ["cat", "/w"]\n'
            Path(folder, "Dockerfile").write_text(text)
            image, told = images.build(
                path=folder, tag="py-built:1", buildargs={"W": "word"}, labels={"l": "v"}, rm=True,
            )  # fmt: skip
        assert any("Successfully built" in line.get("stream", "") for line in told)
        assert image.labels == {"l": "v"}
        assert self.client.containers.run("py-built:1", remove=True) == b"word\n"
        raises(
            docker.errors.BuildError,
            "returned a non-zero code: 9",
            lambda: images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 9\n")),
        )
        assert image.tag("py-built", "2")
        image.reload()
        assert sorted(image.tags) == ["py-built:1", "py-built:2"]
        assert image.history()[0]["Id"] == image.id
        assert [i.id for i in images.list(name="py-built")] == [image.id]
        assert [i.id for i in images.list(filters={"label": "l=v"})] == [image.id]
        data = b"".join(image.save(named="py-built:1"))
        images.remove("py-built:1")
        images.remove("py-built:2")
        raises(docker.errors.ImageNotFound, "No such image", lambda: images.get("py-built:1"))
        (loaded,) = images.load(data)
        assert (loaded.id, loaded.tags) == (image.id, ["py-built:1"])
        images.remove(loaded.id, force=True)
        told = self.api.import_image_from_data(tar_of(file="x"), repository="py-import", tag="1")
        assert "sha256:" in told
        images.remove("py-import:1")
        if self.since(25):
            images.prune(filters={"dangling": True})
        raises(
            docker.errors.APIError,
            "connection refused",
            lambda: images.pull("127.0.0.1:1/none", tag="1"),
        )
        raises(
            docker.errors.APIError,
            "connection refused",
            lambda: self.client.login("u", "p", registry="127.0.0.1:1"),
        )

    def volumes(self) -> None:
        volumes = self.client.volumes
        volume = volumes.create("py-volume", labels={"by": "py"})
        options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
        held = volumes.create("py-tmpfs", driver="local", driver_opts=options)
        assert held.attrs["Options"] == options
        run = self.client.containers.run
        mounts = {"py-volume": {"bind": "/v", "mode": "rw"}}
        run("busybox", ["sh", "-c", "echo kept > /v/f"], volumes=mounts, remove=True)
        if self.since(30):
            self.mounts()
        user = self.client.containers.create("busybox", SLEEP, volumes=["py-volume:/v"])
        raises(docker.errors.APIError, "volume is in use", volume.remove)
        user.remove()
        assert volumes.get("py-volume").attrs["Labels"] == {"by": "py"}
        assert [v.id for v in volumes.list(filters={"label": "by=py"})] == ["py-volume"]
        volume.remove()
        held.remove(**({"force": True} if self.since(25) else {}))
        raises(docker.errors.NotFound, "no such volume", lambda: volumes.get("py-volume"))
        if self.since(25):
            volumes.prune()

    def mounts(self) -> None:
        wishes = [
            Mount("/v", "py-volume", read_only=True),
            Mount("/t", "py-tmpfs"),
            Mount("/m", None, type="tmpfs", tmpfs_size="2m", tmpfs_mode=0o700),
        ]
        script = (
            "cat /v/f; touch /v/x; stat -c %a /m; df -k /t | tail -n 1 | tr -s ' ' | cut -d' ' -f2"
        )
        out = self.client.containers.run(
            "busybox", ["sh", "-c", script], mounts=wishes, remove=True
        )
        assert out == b"kept\n700\n1024\n", out

    def networks(self) -> None:
        networks = self.client.networks
        pool = IPAMPool(subnet="10.123.7.0/24", gateway="10.123.7.1")
        network = networks.create(
            "py-net",
            ipam=IPAMConfig(pool_configs=[pool]),
            labels={"by": "py"},
            check_duplicate=True,
        )
        server = self.client.containers.run(
            "busybox",
            ["sh", "-c", "mkdir /w; echo here > /w/index.html; exec httpd -f -p 80 -h /w"],
            detach=True, network="py-net", name="py-server",
            networking_config={"py-net": EndpointConfig(self.api._version, aliases=["alias"])},
        )  # fmt: skip
        out = self.client.containers.run(
            "busybox", ["wget", "-qO-", "http://alias/"], network="py-net", remove=True
        )
        assert out == b"here\n"
        network.reload()
        assert [c.id for c in network.containers] == [server.id]
        network.disconnect(server, force=True)
        network.connect(server, ipv4_address="10.123.7.9", aliases=["more"])
        server.reload()
        found = server.attrs["NetworkSettings"]["Networks"]["py-net"]
        assert found["IPAddress"] == "10.123.7.9"
        assert [n.id for n in networks.list(names=["py-net"], filters={"label": "by=py"})] == [
            network.id
        ]
        assert networks.get("py-net").attrs["Driver"] == "bridge"
        raises(docker.errors.APIError, "has active endpoints", network.remove)
        server.remove(force=True)
        network.remove()
        if self.since(25):
            networks.prune()

    def events(self) -> None:
        seen = self.client.events(decode=True, filters={"type": "container", "event": "die"})
        since = int(time.time())
        self.client.containers.run("busybox", ["sh", "-c", "exit 4"], detach=True, name="py-dies")
        event = next(seen)
        seen.close()
        attributes = event["Actor"]["Attributes"]
        assert (attributes["name"], attributes["exitCode"]) == ("py-dies", "4")
        self.client.containers.get("py-dies").remove()
        past = self.client.events(decode=True, since=since, until=int(time.time()) + 1)
        actions = [e["Action"] for e in past if e["Actor"]["Attributes"].get("name") == "py-dies"]
        assert actions == ["create", "start", "die", "destroy"], actions
        if self.since(25):
            self.client.containers.prune()

    def close(self) -> None:
        self.client.close()


PARTS = "the_system a_container output files images volumes networks events".split()


def main() -> None:
    version, *parts = *sys.argv[1:], *([] if sys.argv[2:] else PARTS)
    use = Use(version)
    for part in parts:
        getattr(use, part)()
    use.close()


if __name__ == "__main__":
    main()
