"""Testcontainers for Python: containers, networks, wait strategies, modules of databases."""

from __future__ import annotations

import tempfile
import urllib.request
from pathlib import Path

from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    ExecWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

SERVER = ["sh", "-c", "mkdir /www; echo served > /www/index.html; exec httpd -f -v -p 80 -h /www"]


def a_container_with_all_that_it_is_given() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file").write_text("from the host")
        container = (
            DockerContainer("busybox")
            .with_command(["sh", "-c", "echo ready; exec sleep 60"])
            .with_env("GREETING", "hello")
            .with_volume_mapping(folder, "/mapped", "ro")
            .with_name("tc-first")
            .with_kwargs(labels={"part": "first"}, mem_limit="64m", working_dir="/tmp")
            .waiting_for(LogMessageWaitStrategy("ready"))
        )
        with container:
            assert container.exec("echo hi") == (0, b"hi\n")
            assert container.exec(["sh", "-c", "echo $GREETING; exit 3"]) == (3, b"hello\n")
            assert container.exec("cat /mapped/file").output == b"from the host"
            assert container.exec("touch /mapped/x").exit_code == 1
            assert container.get_logs() == (b"ready\n", b"")
            wrapped = container.get_wrapped_container()
            assert wrapped.labels["part"] == "first"
            assert wrapped.attrs["HostConfig"]["Memory"] == 64 << 20
            (found,) = wrapped.client.containers.list(filters={"label": "part=first"})
            assert found.id == wrapped.id
        assert not found.client.containers.list(all=True, filters={"name": "tc-first"})


def services_on_a_network() -> None:
    with Network() as network:
        server = (
            DockerContainer("busybox")
            .with_command(SERVER)
            .with_network(network)
            .with_network_aliases("web", "other")
            .with_exposed_ports(80)
            .waiting_for(HttpWaitStrategy(80).for_status_code(200))
        )
        with server:
            port = server.get_exposed_port(80)
            url = f"http://{server.get_container_host_ip()}:{port}/"
            assert urllib.request.urlopen(url, timeout=10).read() == b"served\n"
            for name in ("web", "other"):
                client = (
                    DockerContainer("busybox")
                    .with_network(network)
                    .with_command(["wget", "-qO-", f"http://{name}/"])
                )
                with client:
                    asked = client.get_wrapped_container()
                    assert asked.wait()["StatusCode"] == 0
                    assert asked.logs(stderr=False) == b"served\n"


def other_ways_of_waiting() -> None:
    with (
        DockerContainer("busybox")
        .with_command(SERVER)
        .with_exposed_ports(80)
        .waiting_for(PortWaitStrategy(80))
    ) as by_port:
        by_port.waiting_for(ExecWaitStrategy(["wget", "-qO-", "http://127.0.0.1/"]))
    check = {"test": ["CMD", "test", "-d", "/www"], "interval": 200_000_000, "retries": 50}
    with (
        DockerContainer("busybox")
        .with_command(SERVER)
        .with_kwargs(healthcheck=check)
        .waiting_for(HealthcheckWaitStrategy())
    ) as healthy:
        wrapped = healthy.get_wrapped_container()
        wrapped.reload()
        assert wrapped.health == "healthy"


def an_image_built_for_the_test() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text('FROM busybox\nCOPY f /f\nCMD ["cat", "/f"]\n')
        Path(folder, "f").write_text("built\n")
        with DockerImage(path=folder, tag="tc-built:1") as image:
            assert image.short_id
            with DockerContainer(str(image)) as container:
                wrapped = container.get_wrapped_container()
                wrapped.wait()
                assert wrapped.logs() == b"built\n"


def databases() -> None:
    with RedisContainer("redis") as store:
        client = store.get_client(decode_responses=True)
        assert client.set("key", "value")
        assert client.get("key") == "value"
        client.close()
    with PostgresContainer(
        "postgres", username="postgres", password="secret", dbname="postgres", driver=None
    ) as database:
        assert database.get_connection_url().startswith("postgresql://postgres:secret@")
        query = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-tAc", "select 6 * 7"]
        assert database.exec(query) == (0, b"42\n")


def main() -> None:
    a_container_with_all_that_it_is_given()
    services_on_a_network()
    other_ways_of_waiting()
    an_image_built_for_the_test()
    databases()


if __name__ == "__main__":
    main()
