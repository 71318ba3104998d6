"""Clients of the API that mean no good: every route with wrong values, broken HTTP, slow senders.

Against a real daemon on its unix socket and on TCP, which the operator has opened in plain words.
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hyperstack.api.docker.routes import all_routes
from tests.conformance.raw import ask, connected
from tests.framework.host import Host, running_host
from tests.framework.images import busybox_tar

ROUNDS = 12
"""Requests to each route, each with other values. The seed is fixed: a failure comes again."""
NAMES = (
    "box", "busybox:latest", "nosuch", "..", "../../etc/passwd", "%2e%2e%2f", "a" * 5000, "\x00",
    "\n", "🦊", "-rf", "$(id)", "a/b/c", "sha256:" + "0" * 64, "0" * 64, "*", "'\"", " ", "bridge",
)  # fmt: skip
VALUES = (
    "", "0", "1", "-1", "true", "maybe", "9" * 40, "1e309", "NaN", "\x00", "\r\nX: y", "🦊", "{}",
    "[]", "null", '{"a":', '{"label":["x"]}', '{"label":{"x":true}}', '{"status":["x"]}',
    '{"until":["9999999999999999999"]}', '{"id":[1]}', '{"name":["("]}', "[" * 2000, "../../x",
    "/etc/passwd", "/", "2020-01-01T00:00:00Z", "1.5.3", "-ef", "-o pid,", "a" * 3000, "\udcff",
)  # fmt: skip
PARAMETERS = (
    "filters all limit size since until before tail stdout stderr timestamps details signal t w h"
    " name force v link path fromImage fromSrc repo tag names condition stream one-shot ps_args"
    " term detachKeys logs stdin noOverwriteDirNonDir copyUIDGID platform type comment author pause"
    " changes message quiet container version noprune driver dangling verbose scope manifests"
).split()
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1 << 31, 1 << 63, -(1 << 63), 1.5, "", "x", "/", "..", "\x00",
    "\n\x1b[2J",
    "a" * 10_000, "🦊", "\ud800", [], {}, [None], [[]], {"": ""}, ["a=b", "=", ""], [1, 2],
    {"x": {"x": {"x": {}}}}, ["../../x:/y"], ["/:/"], {"80/tcp": [{}]}, {"99999/tcp": None},
    {"80/tcp": [{"HostIp": "x", "HostPort": "-1"}]}, ["c *:* rwm"], "999.999.999.999/99",
)  # fmt: skip
CREATE: dict[str, Any] = {
    "Image": "busybox:latest", "Cmd": ["true"], "Env": ["A=b"], "User": "root", "WorkingDir": "/",
    "Hostname": "h", "Domainname": "d", "Labels": {"a": "b"}, "Volumes": {"/v": {}}, "Tty": False,
    "ExposedPorts": {"80/tcp": {}}, "Entrypoint": None, "StopSignal": "TERM", "StopTimeout": 1,
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 10**9, "Retries": 1},
    "MacAddress": "02:42:ac:11:00:09", "Shell": ["/bin/sh"], "OpenStdin": False,
    "HostConfig": {
        "Binds": ["v:/v"], "Memory": 64 << 20, "CpuShares": 2, "PortBindings": {"80/tcp": [{}]},
        "Links": [], "Dns": ["1.1.1.1"], "DnsSearch": ["x"], "ExtraHosts": ["a:1.2.3.4"],
        "VolumesFrom": [], "CapAdd": ["ALL"], "CapDrop": [], "NetworkMode": "bridge",
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x",
                     "CgroupPermissions": "r"}],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "LogConfig": {"Type": "json-file"},
        "RestartPolicy": {"Name": "no"}, "SecurityOpt": [], "Tmpfs": {"/t": "size=1m"},
        "Sysctls": {"net.core.somaxconn": "5"}, "ShmSize": 1 << 20, "Runtime": "", "Init": True,
        "Mounts": [{"Type": "volume", "Source": "v", "Target": "/w"}], "OomScoreAdj": 1,
        "NanoCpus": 10**9, "PidsLimit": 10, "Privileged": False, "ReadonlyRootfs": False,
        "StorageOpt": {"size": "1G"}, "CgroupParent": "x", "IpcMode": "", "PidMode": "",
        "MaskedPaths": ["/x"], "ReadonlyPaths": ["/y"], "GroupAdd": ["1"], "Annotations": {},
    },
    "NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a"], "IPAMConfig": {}}}},
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/containers/create": CREATE,
    "/update": {"Memory": 1 << 28, "CpuShares": 5, "RestartPolicy": {"Name": "always"}},
    "/exec": {"Cmd": ["true"], "Env": ["A=b"], "User": "x", "WorkingDir": "/", "Tty": True,
              "DetachKeys": "ctrl-p", "ConsoleSize": [1, 2]},
    "/start": {"Detach": True, "Tty": False, "ConsoleSize": [1, 2]},
    "/networks/create": {"Name": "n", "Driver": "bridge", "Internal": False, "Options": {"a": "b"},
                         "IPAM": {"Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]},
                         "Labels": {"a": "b"}, "EnableIPv6": False},
    "/connect": {"Container": "box", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.9.0.7"}}},
    "/volumes/create": {"Name": "v2", "Driver": "local", "DriverOpts": {}, "Labels": {}},
    "/commit": {"Cmd": ["x"], "Env": ["a=b"]},
    "/auth": {"username": "u", "password": "p", "serveraddress": "127.0.0.1:1"},
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Iterator[Host]:
    flags = ["--debug", "-H", "tcp://127.0.0.1:2375", "--allow-insecure-tcp"]
    with running_host(tmp_path_factory.mktemp("api"), worker_number + 40, flags) as host:
        host.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        host.docker("create", "--name", "box", "busybox", "true")
        yield host


def _mutated(value: Any, dice: random.Random) -> Any:
    """Return a copy of *value* in which one place holds something else."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        return {**value, key: _mutated(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.6:
        return [*value[:-1], _mutated(value[-1], dice)]
    return dice.choice(HOSTILE)


def _body(path: str, dice: random.Random) -> bytes:
    plain = next((body for end, body in BODIES.items() if path.endswith(end)), {"x": 1})
    kind = dice.random()
    if kind < 0.1:
        return dice.choice([b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 5000, b'{"a":1}x'])
    for _ in range(dice.choice([0, 1, 1, 1, 2, 5])):
        plain = _mutated(plain, dice)
    return json.dumps(plain, ensure_ascii=True).encode()


def _routes() -> list[tuple[str, str]]:
    found = []
    for (method, _), routes in sorted(all_routes()._routes.items()):
        for route in routes:
            path = route.pattern.pattern.replace("\\", "").replace("(?P<name>.*)", "{name}")
            found.append((method, path))
    return sorted(set(found))


def _request(method: str, path: str, dice: random.Random) -> bytes:
    names = ("box",) if dice.random() < 0.5 else NAMES
    while "{name}" in path or "(?P<" in path:
        start = path.find("{name}") if "{name}" in path else path.find("(?P<")
        end = start + 6 if path[start] == "{" else path.find(")", start) + 1
        path = path[:start] + quote(dice.choice(names), safe="") + path[end:]
    chosen = dice.sample(PARAMETERS, dice.choice([0, 1, 2, 4]))
    query = "&".join(
        f"{name}={quote(dice.choice(VALUES).encode('utf-8', 'surrogateescape'))}" for name in chosen
    )
    body = _body(path, dice) if method in ("POST", "PUT") else b""
    kind = b"application/json" if dice.random() < 0.95 else b"text/plain"
    head = f"{method} {dice.choice(['', '/v1.24', '/v1.41', '/v1.51'])}{path}?{query} HTTP/1.1\r\n"
    return (
        head.encode("utf-8", "surrogateescape")
        + b"Host: docker\r\nConnection: close\r\nContent-Type: "
        + kind
        + f"\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def _answer(host: Host, request: bytes, bound: float = 20.0) -> bytes:
    """Return the beginning of what comes back; a stream that goes on is left."""
    with connected(host) as sock:
        sock.settimeout(bound)
        sock.sendall(request)
        return sock.recv(65536)


@pytest.mark.parametrize(("method", "path"), _routes(), ids=lambda word: str(word))
def test_no_route_fails_whatever_it_is_given(daemon: Host, method: str, path: str) -> None:
    waits = path == "/events" or path.endswith(("/attach", "/wait"))
    bound = 1.0 if waits else 30.0
    dice = random.Random(f"{method} {path}")
    begin = daemon.log.stat().st_size
    for _ in range(ROUNDS):
        request = _request(method, path, dice)
        try:
            answer = _answer(daemon, request, bound)
        except TimeoutError:
            assert bound == 1.0, request[:3000]
            continue
        assert answer.startswith(b"HTTP/1.1 "), (request[:3000], answer[:300])
        status = int(answer.split(b" ", 2)[1])
        assert status != 500 or b"internal error" not in answer, (request[:3000], answer[-300:])
    assert daemon.ping()
    said = daemon.log.read_bytes()[begin:].decode()
    assert "Traceback" not in said, said[-3000:]
    assert all(line.isprintable() for line in said.splitlines())
    if not any(
        word == "box" for word in daemon.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    ):
        daemon.docker("create", "--name", "box", "busybox", "true", check=False)


@pytest.mark.parametrize(
    "smuggled",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n",
        b"Content-Length: 0x10\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_a_second_request_is_never_smuggled_in_the_first(daemon: Host, smuggled: bytes) -> None:
    inner = b"GET /_ping HTTP/1.1\r\nHost: inner\r\n\r\n"
    with connected(daemon) as sock:
        sock.sendall(b"POST /volumes/create HTTP/1.1\r\nHost: d\r\n" + smuggled + inner)
        sock.settimeout(5)
        text = b""
        while part := sock.recv(65536):
            text += part
    assert text.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), text[:200]
    assert text.count(b"HTTP/1.1 ") == 1


def test_a_head_that_comes_too_slowly_is_cut_off_and_others_are_served(daemon: Host) -> None:
    slow = [connected(daemon) for _ in range(200)]
    try:
        for sock in slow:
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: ")
        begun = time.monotonic()
        assert daemon.ping()
        assert time.monotonic() - begun < 1
        slow[0].settimeout(45)
        assert b"408" in slow[0].recv(100) or slow[0].recv(1) == b""
    finally:
        for sock in slow:
            sock.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /_ping HTTP/1.1\r\nHost: d\r\n" + b"X: " + b"a" * 100_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00" * 70_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_a_head_out_of_bounds_is_refused(daemon: Host, head: bytes) -> None:
    with connected(daemon) as sock:
        try:
            sock.sendall(head)
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(1000)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
    assert daemon.ping()


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ("Host: 127.0.0.1:2375", True),
        ("Host: evil.example", False),
        ("Host: 127.0.0.1:2375\nOrigin: http://evil.example", False),
        ("Host: 127.0.0.1:2375\nSec-Fetch-Site: cross-site", False),
    ],
)
def test_a_page_in_a_browser_gets_nothing_over_tcp(
    daemon: Host, headers: str, served: bool
) -> None:
    words = [word for line in headers.splitlines() for word in ("-H", line)]
    done = daemon.inside(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{header_json}", *words,
        "http://127.0.0.1:2375/containers/json",
    )  # fmt: skip
    assert done.out.startswith("200") == served, done.out
    assert "access-control-allow" not in done.out.lower()
    upgrade = daemon.inside(
        "curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", *words,
        "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
        "-H", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "http://127.0.0.1:2375/containers/nosuch/attach/ws",
    )  # fmt: skip
    assert (upgrade.out == "403") == (not served), upgrade.out


@pytest.mark.parametrize("name", ["../../../etc", "..", "a/../../b", "/etc", "x\x00y", "a" * 300])
def test_a_name_never_becomes_a_path(daemon: Host, name: str) -> None:
    before = sorted(p.name for p in daemon.root.iterdir())
    status, _ = ask(daemon, "POST", "/volumes/create", {"Name": name})
    # A name that no file can have is the daemon's trouble, as dockerd sees it.
    assert status == (500 if len(name) > 255 else 400)
    status, _ = ask(daemon, "DELETE", f"/volumes/{quote(name, safe='')}")
    assert status in (301, 400, 404)
    status, _ = ask(daemon, "POST", f"/containers/create?name={quote(name)}", {"Image": "busybox"})
    assert status == 400 or name == "/etc"
    assert sorted(p.name for p in daemon.root.iterdir()) == before
    assert Path("/etc/passwd").exists()
