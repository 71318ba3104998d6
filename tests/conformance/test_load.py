"""Load and abuse: whatever some clients do, others are answered, memory is bounded, nothing leaks.

The figures go to standard output; ``docs/performance.md`` has those of a quiet machine. The bounds
here are on hangs, since a machine that tests is a busy one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.raw import ask, connected
from tests.framework.host import Host, running_host
from tests.framework.images import busybox_tar
from tests.framework.leaks import leftovers
from tests.framework.trouble import eventually, load_busybox
from tests.framework.watching import Watch, descriptors, resident

HANG = 5.0
"""Seconds after which an answer counts as a hang."""
GROWTH = 64 << 20
"""Bytes by which the daemon may be larger after all of one test."""
SPARE = 4
"""Descriptors that the daemon may keep: pipes and loops of threads that were needed for once."""
RUNS = int(os.environ.get("HYPER_RUNS", "50"))
MANY = int(os.environ.get("HYPER_CREATES", "150"))

pytestmark = [pytest.mark.alone, pytest.mark.xdist_group("load")]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, worker_number: int) -> Iterator[Host]:
    """A daemon for this module, of which nothing may be left in the end."""
    with running_host(tmp_path_factory.mktemp("load"), worker_number + 30) as host:
        load_busybox(host)
        host.docker("run", "-d", "--name", "calm", "busybox", "sleep", "100000")
        ask(host, "GET", "/v1.51/containers/json?all=1")
        yield host
        host.remove_everything()
        host.docker("volume", "prune", "-af")
        host.docker("rmi", "-f", *set(host.docker("images", "-aq").out.split()))
        bound = time.monotonic() + 20
        while (left := leftovers(host)) and time.monotonic() < bound:
            time.sleep(0.2)
        assert left == []
        assert "Traceback" not in host.log.read_text()


@pytest.fixture
def busy(daemon: Host) -> Iterator[Host]:
    """The daemon, which has in the end what it had before: memory about, descriptors exactly."""
    memory, files = resident(daemon), descriptors(daemon)
    yield daemon
    for container in ask(daemon, "GET", "/v1.51/containers/json?all=1")[1]:
        if container["Names"] != ["/calm"]:
            ask(daemon, "DELETE", f"/v1.51/containers/{container['Id']}?force=1&v=1")
    eventually(lambda: descriptors(daemon) <= files + SPARE)
    assert resident(daemon) - memory < GROWTH


def watched(host: Host, name: str) -> Watch:
    return Watch(host, name, "calm")


def started(host: Host, name: str, script: str) -> None:
    host.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script)


def test_fifty_parallel_runs_keep_nobody_waiting(busy: Host) -> None:
    def run(number: int) -> str:
        return busy.docker("run", "--rm", "-m", "32m", "busybox", "echo", str(number)).out

    with (
        watched(busy, f"{RUNS} runs") as watch,
        concurrent.futures.ThreadPoolExecutor(RUNS) as pool,
    ):
        assert list(pool.map(run, range(RUNS))) == [f"{n}\n" for n in range(RUNS)]
    assert watch.longest < HANG


def test_a_hundred_followers_keep_nobody_waiting_and_get_it_all(busy: Host) -> None:
    started(busy, "talk", "while [ ! -e /go ]; do sleep 0.1; done; seq 5000")
    sockets = [connected(busy) for _ in range(100)]
    for sock in sockets:
        sock.sendall(request("GET", "/containers/talk/logs?follow=1&stdout=1"))
    with watched(busy, "100 followers") as watch:
        busy.docker("exec", "talk", "touch", "/go")
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(everything, sockets))
    wanted = "".join(f"{number}\n" for number in range(1, 5_001)).encode()
    for answer in answers:
        assert b"".join(frames(unchunked(answer))) == wanted
    assert watch.longest < HANG


def unchunked(answer: bytes) -> bytes:
    """Return the body of an answer in chunks (RFC 9112, 7.1)."""
    rest = answer.partition(b"\r\n\r\n")[2]
    parts: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return b"".join(parts)
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]


def frames(stream: bytes) -> Iterator[bytes]:
    """Return what is in the frames of a stream of a container without a terminal."""
    at = 0
    while at < len(stream):
        size = int.from_bytes(stream[at + 4 : at + 8], "big")
        yield stream[at + 8 : at + 8 + size]
        at += 8 + size


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return the bytes of a request that ends its connection."""
    lines = [f"{method} /v1.51{path} HTTP/1.1", "Host: d", "Connection: close", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def everything(sock: socket.socket) -> bytes:
    """Read an answer to its end."""
    data = bytearray()
    with sock, contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 16):
            data += piece
    return bytes(data)


def test_clients_that_do_not_read_keep_nobody_waiting(busy: Host) -> None:
    started(busy, "flood", "while :; do seq 100000; done")
    targets = [
        request("GET", "/containers/flood/logs?follow=1&stdout=1"),
        request("POST", "/containers/flood/attach?stream=1&stdout=1", b"", "Upgrade: tcp"),
        request("GET", "/containers/flood/export"),
        request("GET", "/containers/flood/archive?path=/bin"),
        request("GET", "/containers/flood/stats"),
        request("GET", "/images/busybox/get"),
        request("GET", "/events"),
    ]
    with contextlib.ExitStack() as stack, watched(busy, "clients that do not read") as watch:
        for target in targets * 8:
            sock = stack.enter_context(connected(busy))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(target)
        time.sleep(2)
        memory = resident(busy)
        time.sleep(1)
        assert resident(busy) - memory < GROWTH
    assert watch.longest < HANG


def halves(host: Host) -> list[bytes]:
    """Return what a client may have sent when it vanishes."""
    exec_id = ask(host, "POST", "/v1.51/containers/calm/exec", {"Cmd": ["sleep", "1"]})[1]["Id"]
    create = json.dumps({"Image": "busybox", "Cmd": ["true"]}).encode()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("f"))
    stream = f"Content-Length: {10 << 20}"
    whole = [
        request("GET", "/containers/calm/logs?follow=1&stdout=1"),
        request("GET", "/events"),
        request("GET", "/containers/calm/stats"),
        request("GET", "/containers/calm/export"),
        request("POST", "/containers/calm/wait"),
        request("POST", "/containers/create", create),
        request("POST", "/containers/calm/attach?stream=1&stdin=1&stdout=1", b"", "Upgrade: tcp"),
        request("POST", f"/exec/{exec_id}/start", b"{}", "Upgrade: tcp"),
        request("GET", "/images/busybox/get"),
        request("GET", "/system/df"),
    ]
    parts = [
        b"",
        b"P",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\n",
        request("POST", "/containers/create", create)[:-10],
        *(
            request("POST", path, b"", stream) + tar.getvalue()[:700]
            for path in ("/build", "/images/load", "/images/create?fromSrc=-")
        ),
        request("PUT", "/containers/calm/archive?path=/tmp", b"", stream) + tar.getvalue()[:700],
        request("POST", "/images/load", b"", "Transfer-Encoding: chunked") + b"fff\r\nabc",
    ]
    return parts + whole


def test_clients_may_vanish_in_every_state(busy: Host) -> None:
    with watched(busy, "clients that vanish") as watch:
        for sent in halves(busy) * 3:
            for answered in (False, True):
                with connected(busy) as sock:
                    sock.sendall(sent)
                    if answered:
                        sock.settimeout(0.1)
                        with contextlib.suppress(TimeoutError):
                            sock.recv(100)
    assert watch.longest < HANG


BODIES: dict[str, bytes] = {
    "nothing": b" ",
    "no object": b"[1,2,3]",
    "a word": b"null",
    "not JSON": b"{'Image': busybox}",
    "half of it": b'{"Image": "busybox", "Cmd": [',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and whole": b'{"Labels":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "a number without end": b'{"Image":' + b"9" * 500_000 + b"}",
    "numbers beyond all": b'{"StopTimeout":1e999,"HostConfig":{"Memory":-1e999}}',
    "no numbers": b'{"StopTimeout":NaN,"HostConfig":{"NanoCpus":Infinity}}',
    "no UTF-8": b'{"Image":"\xff\xfe\xed\xa0\x80"}',
    "half of a pair": b'{"Image":"\\ud800"}',
    "a NUL": b'{"Image":"bu\\u0000sy","Cmd":["\\u0000"]}',
    "wrong types": b'{"Image":{},"Cmd":1,"Env":{},"HostConfig":[],"Labels":[1]}',
    "wrong types below": b'{"HostConfig":{"Binds":{},"PortBindings":[],"Memory":"x","Ulimits":1}}',
    "a key often": b"{" + b'"Image":"busybox",' * 50_000 + b'"Image":"none"}',
    "many keys": b'{"Labels":{' + b",".join(b'"k%d":""' % n for n in range(150_000)) + b"}}",
    "a long word": b'{"Image":"' + b"a" * (3 << 20) + b'"}',
    "too large": b'{"Image":"' + b"a" * (5 << 20) + b'"}',
}
TAKERS = (
    "/containers/create",
    "/containers/calm/update",
    "/containers/calm/exec",
    "/networks/create",
    "/volumes/create",
    "/networks/bridge/connect",
)


def test_bodies_of_any_shape_and_size_are_answered_and_none_is_a_fault(busy: Host) -> None:
    faults = []
    with watched(busy, "bodies of any shape") as watch:
        for path in TAKERS:
            for name, body in BODIES.items():
                sock = connected(busy)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.sendall(request("POST", path, body))
                answer = everything(sock)
                status = answer.split(b" ", 2)[1:2]
                if not status or not 200 <= int(status[0]) < 500:
                    faults.append((path, name, answer[:300]))
    assert faults == []
    assert watch.longest < HANG


def test_hundreds_of_containers_are_made_listed_measured_and_removed(busy: Host) -> None:
    body: dict[str, Any] = {"Image": "busybox", "Cmd": ["true"], "Labels": {"load": "yes"}}
    with watched(busy, f"{MANY} containers") as watch:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(
                pool.map(lambda _: ask(busy, "POST", "/v1.51/containers/create", body), range(MANY))
            )
        assert {status for status, _ in made} == {201}
        assert len(ask(busy, "GET", "/v1.51/containers/json?all=1&size=1")[1]) == MANY + 1
        assert ask(busy, "GET", "/v1.51/system/df")[0] == 200
        for _, container in made[:50]:
            assert ask(busy, "GET", f"/v1.51/containers/{container['Id']}/json?size=1")[0] == 200
        pruned = ask(busy, "POST", '/v1.51/containers/prune?filters={"label":["load=yes"]}')[1]
        assert len(pruned["ContainersDeleted"]) == MANY
    assert watch.longest < HANG


def test_images_that_come_and_go_keep_nobody_waiting(busy: Host, tmp_path: Path) -> None:
    tree = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=tree, mode="a") as archive:
        big = tarfile.TarInfo("big")
        big.size = 40 << 20
        archive.addfile(big, io.BytesIO(os.urandom(big.size)))
        for number in range(1000):
            archive.addfile(tarfile.TarInfo(f"many/{number}"))
    with watched(busy, "import, save, load, build") as watch:
        busy.docker("import", "-", "big", stdin=tree.getvalue())
        busy.docker("save", "-o", str(tmp_path / "saved"), "big")
        busy.docker("rmi", "big")
        busy.docker("load", "-i", str(tmp_path / "saved"))
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, text in (("Dockerfile", b"FROM big\nCOPY . /x\nRUN ls /many\n"), ("f", b"")):
                file = tarfile.TarInfo(name)
                file.size = len(text)
                archive.addfile(file, io.BytesIO(text))
        sock = connected(busy)
        stream = (f"Content-Length: {len(context.getvalue())}", "Content-Type: application/x-tar")
        sock.sendall(request("POST", "/build?t=built", b"", *stream) + context.getvalue())
        assert b"Successfully built" in everything(sock)
        busy.docker("rmi", "built", "big")
    assert watch.longest < HANG
