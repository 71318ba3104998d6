"""Images of real servers made from Debian's packages, used for what people use them for."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.framework.host import Host
from tools import debian_image


def provide(host: Host, name: str) -> None:
    """Have an image in the daemon, made from packages once."""
    if host.docker("images", "-q", name).out:
        return
    changes = [w for c in debian_image.RECIPES[name].changes for w in ("--change", c)]
    host.docker("import", *changes, "-", name, stdin=debian_image.make(name).read_bytes())


def until(true: Callable[[], bool], bound: float = 60.0) -> None:
    """Wait for something to come about."""
    ends = time.monotonic() + bound
    while not true():
        assert time.monotonic() < ends, "what the test waits for did not come about"
        time.sleep(0.1)


def test_nginx_serves_through_a_published_port(host: Host) -> None:
    provide(host, "nginx")
    host.docker("run", "-d", "--name", "web", "-p", "8081:80", "nginx")
    fetch = ("busybox", "wget", "-qO-", "http://127.0.0.1:8081/")
    until(lambda: host.inside(*fetch).code == 0)
    assert "Welcome to nginx" in host.inside(*fetch).out
    host.docker("exec", "web", "sh", "-c", "echo changed > /usr/share/nginx/html/index.html")
    assert host.inside(*fetch).out == "changed\n"
    until(lambda: "GET / HTTP/1.1" in host.docker("logs", "web").out)
    host.docker("stop", "web")
    assert host.docker("inspect", "-f", "{{.State.ExitCode}}", "web").out == "0\n"


def test_redis_keeps_its_data_in_its_volume(host: Host) -> None:
    provide(host, "redis")
    host.docker("run", "-d", "--name", "store", "-v", "redis-data:/data", "redis")
    ask = ("exec", "store", "redis-cli")
    until(lambda: host.docker(*ask, "ping", check=False).out == "PONG\n")
    host.docker(*ask, "set", "key", "value")
    host.docker(*ask, "save")
    host.docker("rm", "-f", "store")
    host.docker("run", "-d", "--name", "store", "-v", "redis-data:/data", "redis")
    until(lambda: host.docker(*ask, "ping", check=False).out == "PONG\n")
    assert host.docker(*ask, "get", "key").out == "value\n"
    host.docker("rm", "-f", "store")
    host.docker("volume", "rm", "redis-data")


def test_postgres_answers_queries_after_a_restart(host: Host) -> None:
    provide(host, "postgres")
    host.docker("run", "-d", "--name", "db", "postgres")
    ask = ("exec", "db", "psql", "-h", "/tmp", "-U", "postgres", "-tAc")
    until(lambda: host.docker(*ask, "select 1", check=False).out == "1\n", 120)
    host.docker(*ask, "create table t as select generate_series(1, 1000) n")
    host.docker("restart", "db")
    until(lambda: host.docker(*ask, "select 1", check=False).out == "1\n", 120)
    assert host.docker(*ask, "select sum(n) from t").out == "500500\n"


def test_python_runs_what_comes_on_its_stdin(host: Host) -> None:
    provide(host, "python")
    program = b"import os, sys, json\nprint(json.dumps([os.getpid(), sys.version_info[0]]))\n"
    assert (
        host.docker("run", "--rm", "-i", "python", "python3", "-", stdin=program).out == "[1, 3]\n"
    )
