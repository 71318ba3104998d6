"""Compose v2 as people use it: a web server that is built, a database, networks, a volume.

One project is brought up once for all tests of this file, and the last one takes it down.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.test_real_images import provide, until
from tests.framework.host import DOCKER, Host, Result
from tests.integration.registry.servers import Registry, running_registry
from tools.compose import CONFIG

pytestmark = pytest.mark.xdist_group("compose")

PROJECT = """
name: shop
services:
  web:
    build: {context: web, args: {GREETING: hello}}
    image: @REGISTRY@/shop/web:v1
    ports: ["127.0.0.1:18080:80", "18081"]
    environment: {DATABASE: store, MODE: test}
    depends_on:
      db: {condition: service_healthy}
    networks:
      front: {}
      back: {aliases: [www]}
  db:
    image: redis:latest
    volumes: ["data:/data"]
    command: [redis-server, --dir, /data, --protected-mode, "no"]
    healthcheck: {test: [CMD, redis-cli, ping], interval: 300ms, timeout: 9s, retries: 30}
    networks:
      back: {aliases: [store]}
networks:
  front: {}
  back: {internal: true, labels: {role: inner}}
volumes:
  data: {labels: {kept: "yes"}}
"""
DOCKERFILE = """
FROM nginx:latest
ARG GREETING
RUN echo "$GREETING from compose" > /usr/share/nginx/html/index.html
"""


@dataclass(frozen=True)
class Project:
    """A Compose project in a folder, and the daemon that it runs on."""

    host: Host
    folder: Path

    def compose(self, *args: str, check: bool = True) -> Result:
        """Run Compose, with the classic builder, as Debian's has no other."""
        done = subprocess.run(
            [DOCKER, "-H", self.host.url, "compose", "--ansi", "never", *args],
            cwd=self.folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "DOCKER_CONFIG": str(CONFIG),
                "DOCKER_BUILDKIT": "0",
            },
        )
        result = Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())
        assert not check or not result.code, (args, result)
        return result

    def ask(self, *argv: str) -> str:
        """Run a program in the web server and return what it says."""
        return self.compose("exec", "-T", "web", *argv).out


@pytest.fixture(scope="module")
def registry(shared_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("hub"), shared_host.netns.enter) as running:
        yield running


@pytest.fixture(scope="module")
def project(
    shared_host: Host, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    if not (CONFIG / "cli-plugins" / "docker-compose").exists():
        pytest.skip("Compose is not there: ./check fetches it")
    for image in ("nginx", "redis"):
        provide(shared_host, image)
    made = Project(shared_host, tmp_path_factory.mktemp("shop"))
    (made.folder / "compose.yaml").write_text(PROJECT.replace("@REGISTRY@", registry.host))
    (made.folder / "web").mkdir()
    (made.folder / "web" / "Dockerfile").write_text(DOCKERFILE)
    made.compose("up", "-d")
    yield made
    made.compose("down", "-v")
    shared_host.remove_everything()


def test_services_come_up_in_order_and_find_each_other(project: Project) -> None:
    listed = [json.loads(line) for line in project.compose("ps", "--format", "json").out.split("\n")
              if line]  # fmt: skip
    states = {one["Service"]: (one["State"], one["Health"]) for one in listed}
    assert states == {"web": ("running", ""), "db": ("running", "healthy")}
    assert project.ask("wget", "-qO-", "http://www/") == "hello from compose\n"
    assert project.ask("sh", "-c", "echo $DATABASE $MODE") == "store test\n"
    for name in ("db", "store", "shop-db-1.shop_back"):
        assert "Address" in project.ask("nslookup", name).split(name)[1]
    assert project.compose("port", "web", "80").out == "127.0.0.1:18080\n"
    fetched = project.host.inside("busybox", "wget", "-qO-", "http://127.0.0.1:18080/")
    assert fetched.out == "hello from compose\n"
    assert project.compose("ls", "--format", "json").out.count('"Status":"running(2)"') == 1


def test_networks_and_volumes_are_made_as_the_file_says(project: Project) -> None:
    networks = json.loads(project.host.docker("network", "inspect", "shop_back", "shop_front").out)
    back, front = networks
    assert (back["Internal"], front["Internal"]) == (True, False)
    assert back["Labels"]["role"] == "inner"
    assert {one["Name"] for one in back["Containers"].values()} == {"shop-web-1", "shop-db-1"}
    web = json.loads(project.host.docker("inspect", "shop-web-1").out)[0]
    aliases = web["NetworkSettings"]["Networks"]["shop_back"]["Aliases"]
    assert sorted(aliases) == ["shop-web-1", "web", "www"]
    volume = json.loads(project.host.docker("volume", "inspect", "shop_data").out)[0]
    assert volume["Labels"]["kept"] == "yes"


def test_the_verbs_of_compose_work_on_services(project: Project, tmp_path: Path) -> None:
    assert project.compose("config", "--services").out.split() == ["db", "web"]
    assert "Ready to accept connections" in project.compose("logs", "db").out
    assert "nginx: master process" in project.compose("top", "web").out
    project.compose("cp", "web:/etc/hostname", str(tmp_path / "name"))
    identifier = project.compose("ps", "-q", "web").out
    assert (tmp_path / "name").read_text().strip() == identifier[:12]
    project.compose("cp", str(tmp_path / "name"), "web:/tmp/copied")
    assert project.ask("cat", "/tmp/copied").strip() == identifier[:12]
    project.compose("exec", "-T", "db", "redis-cli", "set", "key", "value")
    run = ("run", "--rm", "-T", "-e", "KEY=key", "db", "sh", "-c")
    assert project.compose(*run, "redis-cli -h store get $KEY").out == "value\n"
    assert project.compose("exec", "-T", "web", "false", check=False).code == 1


def test_stopped_services_start_again_with_their_data(project: Project) -> None:
    project.compose("exec", "-T", "db", "redis-cli", "set", "kept", "still here")
    project.compose("restart", "-t", "5", "db")
    project.compose("stop", "-t", "5", "web")
    states = project.compose("ps", "-a", "--format", "{{.Service}} {{.State}} {{.ExitCode}}").out
    assert sorted(states.splitlines()) == ["db running 0", "web exited 0"]
    project.compose("up", "-d")
    assert project.ask("wget", "-qO-", "http://web/") == "hello from compose\n"
    ask = ("exec", "-T", "db", "redis-cli", "get", "kept")
    assert project.compose(*ask).out == "still here\n"


def test_events_of_a_project_are_told(project: Project, tmp_path: Path) -> None:
    told = tmp_path / "events"
    with told.open("wb") as out:
        command = [DOCKER, "-H", project.host.url, "compose", "events", "--json"]
        watching = subprocess.Popen(
            command,
            cwd=project.folder,
            stdout=out,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "DOCKER_CONFIG": str(CONFIG)},
        )

    def paused() -> bool:
        project.compose("pause", "web")
        project.compose("unpause", "web")
        return '"action":"unpause"' in told.read_text()

    try:
        until(paused)
    finally:
        watching.terminate()
        watching.wait(10)
    first = json.loads(told.read_text().splitlines()[0])
    assert (first["type"], first["service"]) == ("container", "web")


def test_an_image_that_was_built_goes_to_its_registry_and_comes_back(project: Project) -> None:
    project.compose("push", "-q", "web")
    images = project.compose("config", "--images", "web").out.split()  # those it depends on, too
    image = next(name for name in images if name.endswith("/shop/web:v1"))
    project.host.docker("tag", image, "kept:latest")
    project.host.docker("rmi", "-f", image)
    project.compose("pull", "-q", "web")
    shown = json.loads(project.host.docker("image", "inspect", image, "kept:latest").out)
    assert shown[0]["Id"] == shown[1]["Id"]
    project.host.docker("rmi", "kept:latest")


def test_down_takes_everything_away_but_volumes_unless_told(project: Project) -> None:
    project.compose("down", "-t", "5")
    assert "shop" not in project.host.docker("network", "ls").out
    assert project.compose("ps", "-aq").out == ""
    assert project.host.docker("volume", "ls", "-q").out == "shop_data\n"
    project.compose("down", "-v")
    assert project.host.docker("volume", "ls", "-q").out == ""
